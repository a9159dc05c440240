"""`srlm list`: runs with their state."""

from __future__ import annotations

import argparse
import asyncio
import json
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from srlm_cli.output import add_output_argument
from srlm_cli.results import PHASE_STYLES, duration
from srlm_cli.runs import add_cluster_arguments, cluster_of, refused
from srlm_operator.cluster.client import RUNS
from srlm_operator.cluster.views import parse_run
from srlm_operator.errors import ConfigurationError, NotFound, Refused
from srlm_operator.times import parse
from srlm_operator.values import Run

#: Characters of a line that is read by a program: more than names and reasons have together.
PIPE_WIDTH = 1000


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `srlm list`."""
    add_cluster_arguments(parser)
    parser.add_argument("-A", "--all-namespaces", action="store_true", help="runs of all namespaces")
    add_output_argument(parser, "table", "json")
    parser.set_defaults(func=lambda args: asyncio.run(_run(args)))


async def _run(args: argparse.Namespace) -> int:
    async with cluster_of(args) as (client, namespace):
        where = None if args.all_namespaces else namespace
        try:
            found = [parse_run(item) for item in (await client.list(RUNS, where)).items]
        except NotFound:
            raise ConfigurationError("the cluster has no SelfRewardingRuns: is the chart installed?") from None
        except Refused as problem:
            raise refused(
                problem, f"you may not list runs in {f'namespace {where}' if where else 'all namespaces'}"
            ) from None
    runs = sorted(found, key=lambda run: (run.namespace, run.name))
    if args.output == "json":
        print(json.dumps([row(run) for run in runs], indent=2))
        return 0
    if not runs:
        print("no runs" + (f" in namespace {where}" if where else ""))
        return 0
    console = Console()
    # What reads a pipe takes words apart: no name is cut for the sake of a width.
    console = console if console.is_terminal else Console(width=PIPE_WIDTH)
    console.print(_table(runs, datetime.now(UTC), namespaces=where is None))
    return 0


def row(run: Run) -> dict[str, Any]:
    """A run in short, for programs. `percent`: share of all stages that are done."""
    status = run.status
    reason = next((c.reason for c in status.conditions if c.status == "True"), "")
    return {
        "namespace": run.namespace,
        "name": run.name,
        "phase": status.phase,
        "reason": reason,
        "model": status.current_model,
        "stage": status.stage,
        "percent": status.progress.percent,
        "etaSeconds": status.progress.eta_seconds,
        "startedAt": status.started_at,
        "finishedAt": status.finished_at,
    }


def _table(runs: list[Run], now: datetime, *, namespaces: bool) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in (*(["NAMESPACE"] if namespaces else []), "NAME", "PHASE", "REASON", "MODEL", "STAGE", "DONE", "TIME"):
        table.add_column(head, justify="right" if head in ("DONE", "TIME") else "left")
    for run in runs:
        found = row(run)
        began, ended = parse(found["startedAt"]), parse(found["finishedAt"])
        table.add_row(
            *([run.namespace] if namespaces else []),
            run.name,
            f"[{PHASE_STYLES.get(run.status.phase, '')}]{run.status.phase}[/]"
            if run.status.phase in PHASE_STYLES
            else run.status.phase,
            found["reason"],
            found["model"] or "–",
            found["stage"] or "–",
            f"{found['percent']}%",
            duration(((ended or now) - began).total_seconds()) if began else "–",
        )
    return table
