"""The live screen of `srlm demo`: one screen on a terminal, steady lines in a log."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from srlm_contract.status import IterationStatus, RunStatus, StageStatus
from srlm_operator.results import duration

#: Seconds between lines when nothing but the progress changes and the output is no terminal.
LINE_SECONDS = 15.0
MARKS = {
    "Succeeded": "[green]✓[/]",
    "Running": "[yellow]▶[/]",
    "Retrying": "[red]↻[/]",
    "Failed": "[red]✗[/]",
}


class Screen:
    """Use as a context; call `show` as often as you like."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.live = Live(console=console, refresh_per_second=4) if console.is_terminal else None
        self.started = time.monotonic()
        self._states: dict[str, str] = {}
        self._line_at = 0.0

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
        """Iterations and stages, then the running stage with its progress."""
        table = Table.grid(padding=(0, 1))
        for iteration in status.iterations:
            marks = " ".join(f"{MARKS.get(s.state, '·')} {s.name}" for s in iteration.stages)
            table.add_row(Text(iteration.name, style="bold"), Text.from_markup(marks))
        progress = status.progress
        bar = ProgressBar(total=100, completed=progress.percent, width=40)
        elapsed = duration(time.monotonic() - self.started)
        line = Table.grid(padding=(0, 1))
        line.add_row(bar, f"{progress.percent}%", f"{elapsed} so far")
        return Group(table, line, Text(self._now(status), style="cyan"))

    def _now(self, status: RunStatus) -> str:
        progress = status.progress
        parts = [progress.message or status.stage or status.phase]
        if progress.shards_total > 1:
            parts.append(f"shards {progress.shards_done}/{progress.shards_total}")
        if progress.eta_seconds is not None:
            parts.append(f"about {duration(progress.eta_seconds)} left in this stage")
        waiting = [
            c for c in status.conditions if c.type in ("Reconciling", "Stalled") and c.status == "True"
        ]
        parts += [f"{c.reason}: {c.message}" for c in waiting if c.reason != "Progressing"]
        return ", ".join(parts)

    def _lines(self, status: RunStatus) -> None:
        elapsed = duration(time.monotonic() - self.started)
        for iteration in status.iterations:
            for stage in iteration.stages:
                if self._states.get(f"{iteration.name}/{stage.name}") != stage.state:
                    self._states[f"{iteration.name}/{stage.name}"] = stage.state
                    if stage.state != "Pending":
                        self.console.print(f"{elapsed:>8}  {_line(iteration, stage)}", highlight=False, soft_wrap=True)
                        self._line_at = time.monotonic()
        if time.monotonic() - self._line_at >= LINE_SECONDS:
            self._line_at = time.monotonic()
            self.console.print(
                f"{elapsed:>8}  {status.progress.percent:3d}%  {self._now(status)}", highlight=False
            )


def _line(iteration: IterationStatus, stage: StageStatus) -> str:
    text = f"{iteration.name} {stage.name}: {stage.state}"
    if stage.state == "Retrying" and stage.last_failure:
        text += f" after {stage.last_failure.reason}: {stage.last_failure.message}"
    return text
