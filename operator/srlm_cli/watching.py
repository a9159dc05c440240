"""`srlm status NAME -w`: what changes about a run, on a small terminal or as lines of a log."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from srlm_cli.results import PHASE_STYLES, doing, duration, running_jobs, stages_line
from srlm_contract.figures import FIGURES
from srlm_contract.status import ENDED, BaselineStatus, IterationStatus, RunStatus
from srlm_operator.names import RETRY_ANNOTATION
from srlm_operator.plan.gates import is_released
from srlm_operator.times import parse
from srlm_operator.values import Run

#: What of each iteration fits a line of 80 characters, with the heads of the columns.
COLUMNS = {
    "pairs": "PAIRS",
    "parse_rate": "PARSED",
    "tie_rate": "TIES",
    "mean_score": "SCORE",
    "judge_accuracy": "AGREES",
    "win_rate": "WINS",
    "loss": "LOSS",
}
#: Lines of the screen beside those of the iterations.
OTHER_LINES = 15
#: Lines that a message may take.
MESSAGE_LINES = 3


def small_screen(run: Run, now: datetime, width: int, height: int) -> RenderableType:
    """At most `height` lines: state and message first, then what runs now, then a line an iteration."""
    status = run.status
    head = Text.assemble(
        (f"{run.namespace}/{run.name}  ", "bold"),
        (status.phase, PHASE_STYLES.get(status.phase, "")),
        f"  {_so_far(status, now)}{status.current_model or 'no model yet'}  {now.astimezone():%H:%M:%S}",
    )
    parts: list[RenderableType] = [head]
    parts += [_cut(text, width) for text in (*_messages(status), *_failures(status))][:2]
    if status.phase not in ENDED:
        bar = Table.grid(padding=(0, 1))
        bar.add_row(ProgressBar(total=100, completed=status.progress.percent, width=30), f"{status.progress.percent}%")
        parts += [bar, _cut(doing(status), width)]
        if (current := _current(status)) is not None:
            parts.append(stages_line(current, now, running_jobs(status)))
    if status.iterations:
        parts += ["", _table(status, max(1, height - OTHER_LINES))]
    return Group(*parts)


def has_ended(run: Run) -> bool:
    """Whether nothing more happens by itself: an end that the operator has not come back to since is none."""
    status, marks = run.status, run.annotations
    if status.phase not in ENDED or status.observed_generation < run.generation:
        return False
    if marks.get(RETRY_ANNOTATION, "") not in ("", status.retry_token) and status.phase != "Succeeded":
        return False
    if status.phase == "Held":
        held = next((i.name for i in reversed(status.iterations) if i.gates), "")
        return not is_released(held, marks)
    return True


class Changes:
    """Lines for a log: each change once."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def lines(self, run: Run, now: datetime) -> Iterator[str]:
        """What is new since the last call, oldest first."""
        status = run.status
        told: dict[str, str] = {"": status.phase}
        for iteration in status.iterations:
            for stage in iteration.stages:
                if stage.state != "Pending":
                    told[f"{iteration.name} {stage.name}"] = stage.state
            told |= {f"{iteration.name} gate {text}": "missed" for text in iteration.gates}
        told |= {model.name: "is finished" for model in status.models}
        told |= dict.fromkeys((*_messages(status), *_failures(status)), "")
        head = f"{now.astimezone():%H:%M:%S} {status.progress.percent:3d}% "
        for what, state in told.items():
            if self._known.get(what) != state:
                yield f"{head} {': '.join(word for word in (what, state) if word)}"
        self._known = told


def _so_far(status: RunStatus, now: datetime) -> str:
    began = parse(status.started_at)
    if began is None:
        return ""
    ended = parse(status.finished_at) or now
    return f"{duration((ended - began).total_seconds())}  "


def _messages(status: RunStatus) -> list[str]:
    """Conditions that say more than that it goes on."""
    return [
        f"{c.reason}: {c.message}"
        for c in status.conditions
        if c.status == "True" and c.reason != "Progressing" and c.type != "Ready"
    ]


def _failures(status: RunStatus) -> list[str]:
    return [
        f"{iteration.name} {s.name}, attempt {s.attempt}: {s.last_failure.reason}: {s.last_failure.message}"
        for iteration in status.iterations
        for s in iteration.stages
        if s.last_failure is not None and s.state in ("Retrying", "Failed")
    ]


def _current(status: RunStatus) -> IterationStatus | None:
    """The iteration that is at work: the last one in which something has begun."""
    begun = [i for i in status.iterations if any(stage.state != "Pending" for stage in i.stages)]
    return begun[-1] if begun else None


def _table(status: RunStatus, lines: int) -> Table:
    """What M1 is measured against and the last iterations, with the figures that at least one of them has."""
    iterations = status.iterations[-max(1, lines - len(status.baselines)) :]
    shown: tuple[BaselineStatus | IterationStatus, ...] = (*status.baselines, *iterations)
    by_name = {figure.name: figure for figure in FIGURES}
    figures = [by_name[name] for name in COLUMNS if any(by_name[name].value(i.metrics) is not None for i in shown)]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("MODEL")
    for head in ("STAGES", *(COLUMNS[figure.name] for figure in figures), "TIME"):
        table.add_column(head, justify="right")
    for row in shown:
        cells = [figure.show(row.metrics).partition(" ")[0] for figure in figures]
        stages = row.stages if isinstance(row, IterationStatus) else ()
        done = f"{sum(stage.state == 'Succeeded' for stage in stages)}/{len(stages)}" if stages else ""
        table.add_row(row.name, done, *cells, duration(row.metrics.seconds) if stages else "")
    return table


def _cut(text: str, width: int) -> Text:
    most = width * MESSAGE_LINES
    return Text(text if len(text) <= most else text[: most - 1] + "…", style="yellow")
