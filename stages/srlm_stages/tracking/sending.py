"""Telling trackers without waiting for them: a thread each, and an end that is bounded in time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence

from ..runtime.redaction import redacted
from .tracker import Refused, Row, Series, State, Tracker, TrackerError

#: How long the end of a stage waits for its trackers, and that of one that failed or was stopped.
PATIENCE_SECONDS, HURRY_SECONDS = 30.0, 5.0
#: Pauses after failures: the first, and the longest.
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 300.0


class Sending:
    """Rows and settings on their way to the trackers of one run."""

    def __init__(self, told: Sequence[Tracker], say: Callable[[str], None], environ: Mapping[str, str]) -> None:
        """say: writes a line of the log."""
        self._lines = [_Line(tracker, say, environ) for tracker in told]

    def add(self, series: Series, *rows: Row) -> None:
        """To be sent, by rising step."""
        for line in self._lines:
            line.add(series, rows)

    def describe(self, settings: Mapping[str, str], state: State) -> None:
        """To be sent: how the run is set up, and how it stands."""
        for line in self._lines:
            line.describe(settings, state)

    def finish(self) -> None:
        """Nothing more comes: send what is left without a pause."""
        for line in self._lines:
            line.finish()

    def close(self, seconds: float = PATIENCE_SECONDS) -> list[str]:
        """Send what is left for at most `seconds`; a warning for each tracker that has not got everything."""
        end = time.monotonic() + seconds
        self.finish()
        return [warning for line in self._lines if (warning := line.outcome(end - time.monotonic()))]


class _Line:
    """One tracker and its thread, which dies with the process."""

    def __init__(self, tracker: Tracker, say: Callable[[str], None], environ: Mapping[str, str]) -> None:
        self._tracker, self._say, self._environ = tracker, say, environ
        self._change = threading.Condition()
        self._rows: list[tuple[Series, Row]] = []
        self._description: tuple[Mapping[str, str], State] | None = None
        self._closing, self._over = False, False
        self._problem, self._said = "", False
        self._thread = threading.Thread(target=self._work, name=tracker.name, daemon=True)
        self._thread.start()

    def add(self, series: Series, rows: Sequence[Row]) -> None:
        with self._change:
            if not self._over:
                self._rows += [(series, row) for row in rows]
                self._change.notify()

    def describe(self, settings: Mapping[str, str], state: State) -> None:
        with self._change:
            self._description = (settings, state)
            self._change.notify()

    def finish(self) -> None:
        with self._change:
            self._closing = True
            self._change.notify()

    def outcome(self, seconds: float) -> str:
        """Why not all has arrived, after at most `seconds`; empty when it has."""
        self._thread.join(max(0.0, seconds))
        with self._change:
            late = "" if self._over else "it has not answered in time"
            return self._warning(self._problem or late) if late or self._problem else ""

    def _work(self) -> None:
        failures = 0
        while not self._over:
            with self._change:
                self._change.wait_for(lambda: self._closing or self._rows or self._description)
                closing, rows, self._rows = self._closing, self._rows, []
            try:
                self._send(rows)
                self._problem, failures = "", 0
            except Refused as refused:
                self._fail(str(refused))
                self._end()
                return
            except Exception as error:  # a client's own, too: none of them is worth a stage
                told = str(error) if isinstance(error, TrackerError) else f"{type(error).__name__}: {error}"
                self._fail(told)
                failures += 1
                with self._change:
                    self._rows = rows + self._rows
            with self._change:
                if closing and (failures or not self._rows):
                    break
                if not closing:
                    pause = min(FIRST_PAUSE * 2 ** (failures - 1), LONGEST_PAUSE) if failures else self._tracker.pause
                    self._change.wait_for(lambda: self._closing, pause)
        self._end()

    def _send(self, rows: Sequence[tuple[Series, Row]]) -> None:
        by_series: dict[Series, list[Row]] = {}
        for series, row in rows:
            by_series.setdefault(series, []).append(row)
        for series, some in by_series.items():
            self._tracker.send(series, some)
        description = self._description
        if description is not None:
            self._tracker.describe(*description)
            with self._change:
                if self._description is description:
                    self._description = None

    def _fail(self, why: str) -> None:
        self._problem = redacted(why, self._environ)[:200]
        if not self._said:
            self._said = True
            self._say(f"warning: {self._warning(self._problem)}; the stage goes on")

    def _warning(self, why: str) -> str:
        return f"{self._tracker.name} has not got everything: {why}"

    def _end(self) -> None:
        try:
            self._tracker.close()
        except Exception as error:
            self._fail(str(error))
        with self._change:
            self._over, self._rows = True, []
