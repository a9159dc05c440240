"""A steady line of progress in a stage's log, for people and for the operator."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO

from srlm_contract.progress import Progress, format_progress

INTERVAL_SECONDS = 2.0
#: Share of the work that must be done before the time left is told: an engine works at many texts at once, so that the
#: first one takes about as long as all of them.
TELLING_SHARE = 0.1


class ProgressReporter:
    """Prints at most one PROGRESS line every few seconds, and always the first and the last."""

    def __init__(
        self,
        stage: str,
        out: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        interval: float = INTERVAL_SECONDS,
    ) -> None:
        self._stage, self._out, self._clock, self._interval = stage, out, clock, interval
        self._begun: tuple[float, int, int] | None = None
        self._printed: float | None = None
        self._of: tuple[int, str] | None = None

    def begin(self, total: int, unit: str, activity: str) -> None:
        """Say what is done before the first of `total` units; speed and time left count from the next update on."""
        self._begun = self._printed = self._of = None
        self._print(Progress(stage=self._stage, done=0, total=total, unit=unit, activity=activity))

    def update(self, done: int, total: int, unit: str = "rows", tokens: int = 0, loss: float | None = None) -> None:
        """Report `done` of `total` units; `tokens` counts all tokens since the work began."""
        now = self._clock()
        if self._begun is None or self._of != (total, unit):
            self._begun, self._of, self._printed = (now, done, tokens), (total, unit), None
        if self._printed is not None and now - self._printed < self._interval and done < total:
            return
        began, done_then, tokens_then = self._begun
        seconds, units = now - began, done - done_then
        self._print(
            Progress(
                stage=self._stage,
                done=done,
                total=total,
                unit=unit,
                # Of all the work so far: engines count a text's tokens when it is finished, many at the same moment.
                tokens_per_second=(tokens - tokens_then) / seconds if tokens > tokens_then and seconds > 0 else None,
                eta_seconds=_seconds_left(seconds, units, total - done),
                loss=loss,
            )
        )
        self._printed = now

    def say(self, text: str) -> None:
        """A plain line for people."""
        print(text, file=self._out or sys.stdout, flush=True)

    def _print(self, progress: Progress) -> None:
        self.say(format_progress(progress))


def _seconds_left(seconds: float, units: int, left: int) -> int | None:
    """Seconds for the units that are left when `units` took `seconds`; None while that says little, and at the end."""
    if units <= 0 or left <= 0 or units < TELLING_SHARE * (units + left):
        return None
    return round(seconds / units * left)
