"""A steady line of progress in a stage's log, for people and for the operator."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO

from srlm_contract.progress import Progress, format_progress

INTERVAL_SECONDS = 2.0


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
        self._printed: tuple[float, int] | None = None
        self._of: tuple[int, str] | None = None

    def update(self, done: int, total: int, unit: str = "rows", tokens: int = 0, loss: float | None = None) -> None:
        """Report `done` of `total` units; `tokens` counts all tokens since the work began."""
        now = self._clock()
        fresh = self._begun is None or self._of != (total, unit)
        if fresh:
            self._begun, self._of, self._printed = (now, done, tokens), (total, unit), None
        if self._printed is not None and now - self._printed[0] < self._interval and done < total:
            return
        assert self._begun is not None
        began, done_then, _ = self._begun
        last_time, last_tokens = self._printed or (began, self._begun[2])
        rate = (tokens - last_tokens) / (now - last_time) if tokens > last_tokens and now > last_time else None
        eta = None
        if done > done_then and done <= total:
            eta = round((now - began) / (done - done_then) * (total - done))
        line = format_progress(
            Progress(
                stage=self._stage,
                done=done,
                total=total,
                unit=unit,
                tokens_per_second=rate,
                eta_seconds=eta,
                loss=loss,
            )
        )
        print(line, file=self._out or sys.stdout, flush=True)
        self._printed = (now, tokens)

    def say(self, text: str) -> None:
        """A plain line for people."""
        print(text, file=self._out or sys.stdout, flush=True)
