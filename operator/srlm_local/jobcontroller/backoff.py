"""When a Job may make its next pod: ten seconds after a failure, doubled with each, at most ten minutes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

FIRST_SECONDS = 10.0
MAX_SECONDS = 600.0


@dataclass(frozen=True)
class Backoff:
    """Failures since the last success, and when the last of them was."""

    failures: int = 0
    last: datetime | None = None

    def after(self, succeeded: Iterable[datetime], failed: Iterable[datetime]) -> Backoff:
        """With pods that ended since: a success forgets the failures before it."""
        successes, failures = list(succeeded), sorted(failed)
        count, last = self.failures, self.last
        if successes:
            count, last = 0, None
            failures = [time for time in failures if time > max(successes)]
        if failures:
            count, last = count + len(failures), failures[-1]
        return Backoff(count, last)

    def wait(self, now: datetime) -> float:
        """Seconds until the next pod may be made, 0 for now."""
        return remaining(self.failures, self.last, now)


def remaining(failures: int, last: datetime | None, now: datetime) -> float:
    """Seconds left of the back-off after so many failures, the last of them at `last`."""
    if not failures or last is None:
        return 0.0
    total = min(FIRST_SECONDS * 2.0 ** min(failures - 1, 10), MAX_SECONDS)
    return max(total - (now - last).total_seconds(), 0.0)
