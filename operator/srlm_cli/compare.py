"""`srlm compare A B ...`: runs side by side."""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import sys
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from srlm_cli.comparison import Comparison, rows
from srlm_cli.output import add_output_argument
from srlm_cli.results import PHASE_STYLES
from srlm_cli.runs import add_cluster_arguments, cluster_of, read
from srlm_contract.figures import NOTHING
from srlm_contract.text import visible
from srlm_operator.values import Run


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `srlm compare`."""
    parser.description = (
        "Runs side by side, a column a run: settings that differ, the figures of each model, and how many of its "
        "artifacts another of the runs has too, which were made once."
    )
    parser.add_argument("names", nargs="+", metavar="NAME", help="name of a run, or NAMESPACE/NAME")
    add_cluster_arguments(parser)
    add_output_argument(parser, "table", "csv", "json")
    parser.set_defaults(func=lambda args: asyncio.run(_run(args)))


async def _run(args: argparse.Namespace) -> int:
    async with cluster_of(args) as (client, namespace):
        found = []
        for text in dict.fromkeys(args.names):
            before, _, name = text.rpartition("/")
            found.append(await read(client, before or namespace, name))
    comparison = Comparison(tuple(found))
    match args.output:
        case "json":
            print(json.dumps(comparison.wire(), indent=2))
        case "csv":
            _print_csv(comparison)
        case _:
            _print_table(comparison, Console())
    return 0


def _print_csv(found: Comparison) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(("part", "row", *found.names))
    for part, name, values in rows(found):
        writer.writerow((part, name, *(_cell(value) for value in values)))


def _print_table(found: Comparison, console: Console) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("")
    for name in found.names:
        table.add_column(Text(name), justify="right", overflow="fold")
    table.add_row("state", *(_state(run) for run in found.runs))
    for setting in found.settings:
        table.add_row(Text(setting.path, style="cyan"), *(Text(shown(value)) for value in setting.values))
    for model in found.models:
        table.add_row("")
        table.add_row(Text(model, style="bold"))
        for label, *cells in found.figures(model):
            table.add_row(label, *cells)
        if any(one.model == model for one in found.shared):
            table.add_row("shared artifacts", *found.shared_counts(model))
    console.print(table)
    if not found.settings and len(found.runs) > 1:
        console.print("The settings are the same.")
    lines = list(found.shared_lines())
    if lines:
        console.print("\nShared artifacts", style="bold")
        for model, stages, runs in lines:
            console.print(Text(f"{model}  {stages}: {runs}"))


def _state(run: Run) -> Text:
    status = run.status
    ended = status.phase == "Succeeded"
    return Text(
        status.phase if ended else f"{status.phase} {status.progress.percent}%",
        style=PHASE_STYLES.get(status.phase, ""),
    )


def shown(value: Any) -> str:
    """A setting as people write it in YAML; nothing in it stays invisible."""
    return NOTHING if value is None else visible(str(_cell(value)))


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | bool) else value
