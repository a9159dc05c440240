"""`srlm status NAME [-w]`: one screen about a run."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from datetime import UTC, datetime

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from srlm_cli.results import PHASE_STYLES, duration, results_table
from srlm_cli.runs import NoSuchRun, add_run_arguments, cluster_of, read
from srlm_contract.status import IterationStatus, StageStatus
from srlm_operator.errors import Unavailable
from srlm_operator.times import parse
from srlm_operator.values import Run

_MARKS = {
    "Succeeded": ("✓", "green"),
    "Running": ("▶", "cyan"),
    "Retrying": ("↻", "yellow"),
    "Failed": ("✗", "red"),
    "Pending": ("·", "dim"),
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `srlm status`."""
    add_run_arguments(parser)
    parser.add_argument("-w", "--watch", action="store_true", help="stay and follow")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Print the screen. Returns the exit status; 1 when the run does not exist."""
    return asyncio.run(_show(args))


async def _show(args: argparse.Namespace) -> int:
    console = Console()
    async with cluster_of(args) as (client, namespace):
        found = await read(client, namespace, args.name)
        if not args.watch:
            console.print(screen(found, datetime.now(UTC)))
            return 0
        with Live(screen(found, datetime.now(UTC)), console=console, auto_refresh=False) as live:
            while True:
                await asyncio.sleep(1)
                with contextlib.suppress(Unavailable):
                    try:
                        found = await read(client, namespace, args.name)
                    except NoSuchRun:
                        return 0
                    live.update(screen(found, datetime.now(UTC)), refresh=True)


def screen(run: Run, now: datetime) -> RenderableType:
    """The whole screen for a run."""
    status = run.status
    head = Text.assemble(
        (f"{run.namespace}/{run.name}  ", "bold"),
        (status.phase, PHASE_STYLES.get(status.phase, "")),
        f"  model {status.current_model or '–'}",
    )
    parts: list[RenderableType] = [head, *_conditions(run)]
    if run.spec_error:
        parts.append(Text(run.spec_error, style="red"))
    for number, iteration in enumerate(status.iterations):
        parts.append(_iteration(number, iteration, now))
    if status.phase not in ("Succeeded", "Pending"):
        bar = Table.grid(padding=(0, 1))
        bar.add_row(ProgressBar(total=100, completed=status.progress.percent, width=40), f"{status.progress.percent} %")
        parts += [bar, _progress(run)]
    if any(iteration.stages for iteration in status.iterations):
        parts.append(results_table(status, title="Figures"))
    parts += _report(run)
    if status.storage is not None:
        parts.append(Text(f"storage: {status.storage.uri}", style="dim"))
    spent = [f"{status.gpu_seconds:,.0f} GPU-seconds"] if status.gpu_seconds else []
    spent += [f"{status.tokens:,} tokens"] if status.tokens else []
    if spent:
        parts.append(Text("spent: " + ", ".join(spent), style="dim"))
    return Group(*parts)


def _conditions(run: Run) -> list[Text]:
    found = []
    for condition in run.status.conditions:
        if condition.status != "True" or condition.reason == "Progressing":
            continue
        style = {"Stalled": "red", "Reconciling": "yellow", "Ready": "green"}.get(condition.type, "yellow")
        found.append(Text(f"{condition.type}: {condition.reason}: {condition.message}", style=style))
    found += [Text(f"warning: {text}", style="yellow") for text in run.status.preflight.warnings]
    return found


def _report(run: Run) -> list[Text]:
    """Where the report lies, and what a new one waits for."""
    report, stage = run.status.report, run.status.report_stage
    found = [Text(f"report: {report.uri} of {report.made_at}", style="dim")] if report.uri else []
    if report.message:
        found.append(Text(f"report: {report.message}", style="yellow"))
    elif stage is not None and stage.state != "Succeeded":
        found.append(Text("report: a new one is being made", style="cyan"))
    return found


def _progress(run: Run) -> Text:
    progress = run.status.progress
    parts = [progress.message or run.status.stage]
    if progress.shards_total > 1:
        parts.append(f"shards {progress.shards_done}/{progress.shards_total}")
    if progress.eta_seconds is not None:
        parts.append(f"about {duration(progress.eta_seconds)} left in this stage")
    return Text(", ".join(part for part in parts if part), style="cyan")


def _iteration(number: int, iteration: IterationStatus, now: datetime) -> RenderableType:
    line = Text.assemble((f"{iteration.name:<4}", "bold"))
    for stage in iteration.stages:
        mark, style = _MARKS[stage.state]
        line.append(f" {mark} {stage.name}{_time(stage, now)}", style=style)
    failures = [
        Text(f"     {s.name}: attempt {s.attempt}: {s.last_failure.reason}: {s.last_failure.message}", style="red")
        for s in iteration.stages
        if s.last_failure is not None and s.state in ("Retrying", "Failed")
    ]
    missed = [Text(f"     gate: {text}", style="yellow") for text in iteration.gates]
    return Group(line, *failures, *missed)


def _time(stage: StageStatus, now: datetime) -> str:
    if stage.reused:
        return " (reused)"
    began = parse(stage.started_at)
    if began is None:
        return ""
    ended = parse(stage.finished_at) or now
    return f" {duration((ended - began).total_seconds())}"
