"""The live screen of `srlm demo`: one screen on a terminal; in a log a line whenever something has changed."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from srlm_cli.demo.remaining import seconds_left
from srlm_cli.results import duration
from srlm_contract.status import IterationStatus, RunStatus, StageStatus

#: Seconds between lines when nothing but the progress changes and the output is no terminal.
LINE_SECONDS = 15.0
#: Seconds without news after which it is said where to look; twice as many before it is said again.
QUIET_SECONDS = 60.0
MARKS = {
    "Succeeded": "[green]✓[/]",
    "Running": "[yellow]▶[/]",
    "Retrying": "[red]↻[/]",
    "Failed": "[red]✗[/]",
}


class Screen:
    """Use as a context; call `show` as often as you like.

    iterations: those that the run has after the bootstrap. log: the file that the pod at work writes, if there is one.
    """

    def __init__(
        self,
        console: Console,
        iterations: int,
        log: Callable[[], Path | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.console, self.iterations, self.log, self.clock = console, iterations, log, clock
        self.live = Live(console=console, refresh_per_second=4) if console.is_terminal else None
        self.started = clock()
        self._states: dict[str, str] = {}
        self._shown = ""
        self._line_at = self._news_at = self.started
        self._quiet = QUIET_SECONDS

    def __enter__(self) -> Self:
        if self.live:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.live.stop()

    def show(self, status: RunStatus) -> None:
        """Shows the status of the moment."""
        if self.live:
            self.live.update(self.render(status))
        else:
            self._lines(status)

    def render(self, status: RunStatus) -> Group:
        """Iterations and stages, then the running stage with its progress and where its log is."""
        table = Table.grid(padding=(0, 1))
        for iteration in status.iterations:
            marks = " ".join(f"{MARKS.get(s.state, '·')} {s.name}" for s in iteration.stages)
            table.add_row(Text(iteration.name, style="bold"), Text.from_markup(marks))
        progress = status.progress
        bar = ProgressBar(total=100, completed=progress.percent, width=40)
        line = Table.grid(padding=(0, 1))
        so_far = duration(self.clock() - self.started)
        line.add_row(bar, f"{progress.percent}%", f"{so_far} so far, {self._left(status)}")
        now = ", ".join([self._now(status), *self._stage_left(status)])
        parts: list[RenderableType] = [table, line, Text(now, style="cyan")]
        if (log := self.log()) is not None:
            parts.append(Text(f"log: {log}", style="dim"))
        return Group(*parts)

    def _now(self, status: RunStatus) -> str:
        """What is going on, without the times that change by themselves."""
        progress = status.progress
        parts = [progress.message or status.stage or status.phase]
        if progress.shards_total > 1:
            parts.append(f"shards {progress.shards_done}/{progress.shards_total}")
        waiting = [c for c in status.conditions if c.type in ("Reconciling", "Stalled") and c.status == "True"]
        parts += [f"{c.reason}: {c.message}" for c in waiting if c.reason != "Progressing"]
        return ", ".join(parts)

    @staticmethod
    def _stage_left(status: RunStatus) -> list[str]:
        eta = status.progress.eta_seconds
        return [] if eta is None else [f"about {duration(eta)} left in this stage"]

    def _left(self, status: RunStatus) -> str:
        left = seconds_left(status, self.iterations, datetime.now(UTC))
        return f"about {max(1, round(left / 60))}m left in all"

    def _lines(self, status: RunStatus) -> None:
        for iteration in status.iterations:
            for stage in iteration.stages:
                if self._states.get(f"{iteration.name}/{stage.name}") != stage.state:
                    self._states[f"{iteration.name}/{stage.name}"] = stage.state
                    if stage.state != "Pending":
                        self._print(_line(iteration, stage), news=True)
        now = self._now(status)
        if self.clock() - self._line_at < LINE_SECONDS:
            return
        if now != self._shown:
            self._shown = now
            shown = [f"{status.progress.percent:3d}%  {now}", *self._stage_left(status), self._left(status)]
            self._print(", ".join(shown), news=True)
        elif self.clock() - self._news_at >= self._quiet:
            log = self.log()
            where = f"; what the pod says: {log}" if log is not None else ""
            self._print(f"no news for {duration(self.clock() - self._news_at)}, {self._left(status)}{where}")
            self._quiet *= 2

    def _print(self, text: str, *, news: bool = False) -> None:
        now = self.clock()
        self.console.print(f"{duration(now - self.started):>8}  {text}", highlight=False, markup=False, soft_wrap=True)
        self._line_at = now
        if news:
            self._news_at, self._quiet = now, QUIET_SECONDS


def _line(iteration: IterationStatus, stage: StageStatus) -> str:
    text = f"{iteration.name} {stage.name}: {stage.state}"
    if stage.state == "Retrying" and stage.last_failure:
        text += f" after {stage.last_failure.reason}: {stage.last_failure.message}"
    return text
