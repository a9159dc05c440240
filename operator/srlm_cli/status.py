"""`srlm status NAME [-w]`: one screen about a run."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
from datetime import UTC, datetime

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from srlm_cli.results import PHASE_STYLES, doing, results_table, running_jobs, stages_line
from srlm_cli.runs import NoSuchRun, add_run_arguments, cluster_of, read
from srlm_cli.watching import Changes, has_ended, small_screen
from srlm_contract.status import IterationStatus
from srlm_operator.cluster.client import Client
from srlm_operator.errors import Unavailable
from srlm_operator.values import Run

#: Seconds between two looks at the run.
LOOK_SECONDS = 1.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `srlm status`."""
    add_run_arguments(parser)
    parser.description = (
        "One screen about a run. With --watch it stays until the run ends, on a terminal as a screen of at most its "
        "height, elsewhere with a line for each change; exit status 1 when the run has not succeeded then."
    )
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("-w", "--watch", action="store_true", help="stay and follow")
    shown.add_argument("-o", "--output", choices=("screen", "json"), default="screen", help="json: status as it is")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Print the screen. Returns the exit status; 1 when the run does not exist."""
    return asyncio.run(_show(args))


async def _show(args: argparse.Namespace) -> int:
    console = Console()
    async with cluster_of(args) as (client, namespace):
        found = await read(client, namespace, args.name)
        if args.output == "json":
            print(json.dumps(found.stored_status, indent=2))
        elif not args.watch:
            console.print(screen(found, datetime.now(UTC)))
        else:
            return await _watch(client, found, console)
    return 0


async def _watch(client: Client, found: Run, console: Console) -> int:
    """Until the run ends or is deleted. Returns the exit status."""
    changes = Changes()
    live = Live(console=console, auto_refresh=False, vertical_overflow="crop") if console.is_terminal else None
    with live or contextlib.nullcontext():
        while True:
            now = datetime.now(UTC)
            if live is not None:
                live.update(small_screen(found, now, console.width, console.height), refresh=True)
            else:
                for line in changes.lines(found, now):
                    print(line, flush=True)
            if has_ended(found):
                break
            await asyncio.sleep(LOOK_SECONDS)
            with contextlib.suppress(Unavailable):
                try:
                    found = await read(client, found.namespace, found.name)
                except NoSuchRun:
                    print(f"run {found.namespace}/{found.name} was deleted")
                    return 1
    if live is not None:
        console.print(screen(found, datetime.now(UTC)))
    return 0 if found.status.phase == "Succeeded" else 1


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
    said = " ".join(c.message for c in status.conditions if c.status == "True")
    for iteration in status.iterations:
        parts.append(_iteration(iteration, now, said, running_jobs(status)))
    if status.phase not in ("Succeeded", "Pending"):
        bar = Table.grid(padding=(0, 1))
        bar.add_row(ProgressBar(total=100, completed=status.progress.percent, width=40), f"{status.progress.percent} %")
        parts += [bar, Text(doing(status), style="cyan")]
    if any(iteration.stages for iteration in status.iterations):
        parts.append(results_table(status, title="Figures"))
    parts += [Text(f"warning: {text}", style="yellow") for text in status.preflight.warnings]
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


def _iteration(iteration: IterationStatus, now: datetime, said: str, running: set[str]) -> RenderableType:
    """said: what the conditions tell already. running: names of the Jobs that run."""
    line = stages_line(iteration, now, running)
    failures = [
        Text(f"     {s.name}: attempt {s.attempt}: {s.last_failure.reason}: {s.last_failure.message}", style="red")
        for s in iteration.stages
        if s.last_failure is not None and s.state in ("Retrying", "Failed")
    ]
    missed = [Text(f"     gate: {text}", style="yellow") for text in iteration.gates if text not in said]
    return Group(line, *failures, *missed)
