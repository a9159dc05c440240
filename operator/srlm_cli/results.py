"""The table of results of a run: one column a model, figures as they stand in status, by what they stand on."""

from __future__ import annotations

from datetime import datetime

from rich.table import Table
from rich.text import Text

from srlm_contract.figures import NOTHING, figure_groups
from srlm_contract.progress import whole_seconds
from srlm_contract.status import IterationStatus, RunStatus, StageStatus
from srlm_operator.times import parse

#: Mark and colour of each state of a stage.
MARKS = {
    "Succeeded": ("✓", "green"),
    "Running": ("▶", "cyan"),
    "Retrying": ("↻", "yellow"),
    "Failed": ("✗", "red"),
    "Pending": ("·", "dim"),
}
#: Said of a stage that a Job comes to that runs.
SAME_JOB = "same Job"
#: Colour of each phase, where it has one.
PHASE_STYLES = {"Succeeded": "green", "Running": "cyan", "Stalled": "red", "Failed": "red"} | dict.fromkeys(
    ("Waiting", "Queued", "Held", "Suspended"), "yellow"
)


def duration(seconds: float | None) -> str:
    """`1h 02m`, `3m 05s` or `42s`."""
    return NOTHING if seconds is None else whole_seconds(seconds)


def results_table(status: RunStatus, *, title: str) -> Table:
    """One column a model: its figures with a heading for those that stand on the same texts, then the stages' times.

    Below it stands what texts those are.
    """
    groups = figure_groups([column.metrics for column in status.measured])
    basis = "\n".join(f"{group.title}: {group.basis}" for group, _ in groups if group.basis)
    table = Table(title=title, title_justify="left", caption=basis, caption_justify="left")
    table.add_column("")
    for column in status.measured:
        table.add_column(column.name, justify="right")
    for group, rows in groups:
        table.add_row(Text(group.title, style="bold"))
        for label, *cells in rows:
            table.add_row(f"  {label}", *cells)
        table.add_section()
    for name in stage_names(status.iterations):
        times = (duration(stage_seconds(i, name)) for i in status.iterations)
        table.add_row(f"time of {name}", *("" for _ in status.baselines), *times)
    return table


def stage_names(iterations: tuple[IterationStatus, ...]) -> list[str]:
    """All stage names in the order in which they appear first."""
    return list(dict.fromkeys(stage.name for iteration in iterations for stage in iteration.stages))


def stage_seconds(iteration: IterationStatus, name: str) -> float | None:
    """Seconds from the first attempt to the commit; None when it did not run in this iteration."""
    for stage in iteration.stages:
        if stage.name == name and stage.started_at and stage.finished_at and not stage.reused:
            return (
                datetime.fromisoformat(stage.finished_at) - datetime.fromisoformat(stage.started_at)
            ).total_seconds()
    return None


def _stage_time(stage: StageStatus, now: datetime, running: set[str]) -> str:
    """How long it took or has taken, after a blank; or that it was reused, or that a Job that runs comes to it.

    running: names of the Jobs that run.
    """
    if stage.reused:
        return " (reused)"
    if stage.state == "Pending" and stage.job in running:
        return f" ({SAME_JOB})"
    began = parse(stage.started_at)
    if began is None:
        return ""
    ended = parse(stage.finished_at) or now
    return f" {duration((ended - began).total_seconds())}"


def running_jobs(status: RunStatus) -> set[str]:
    """Names of the Jobs that run, as status knows them."""
    return {stage.job for iteration in status.iterations for stage in iteration.stages if stage.state == "Running"}


def stages_line(iteration: IterationStatus, now: datetime, running: set[str]) -> Text:
    """A model's name, then each stage with its mark and time. running: names of the Jobs that run."""
    line = Text.assemble((f"{iteration.name:<4}", "bold"))
    for stage in iteration.stages:
        mark, style = MARKS[stage.state]
        line.append(f" {mark} {stage.name}{_stage_time(stage, now, running)}", style=style)
    return line


def doing(status: RunStatus) -> str:
    """What runs now, how far it is and how long it still takes."""
    progress = status.progress
    parts = [progress.message or status.stage]
    if progress.shards_total > 1:
        parts.append(f"shards {progress.shards_done}/{progress.shards_total}")
    if progress.eta_seconds is not None:
        parts.append(f"about {duration(progress.eta_seconds)} left in this stage")
    return ", ".join(part for part in parts if part)
