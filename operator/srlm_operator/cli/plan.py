"""`srlm plan -f run.yaml`: what a run would do, without a cluster."""

from __future__ import annotations

import argparse
import io
import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from ruamel.yaml import YAML

from srlm_contract.crd import KIND
from srlm_contract.graph import model_name
from srlm_contract.spec import RunSpec
from srlm_contract.validate import validate_text
from srlm_contract.yaml12 import load_documents
from srlm_operator.errors import ConfigurationError
from srlm_operator.estimate import UNKNOWN, PlannedStage, planned_stages
from srlm_operator.settings import from_environment


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "plan",
        help="show what a run would do, without a cluster",
        description="Shows stages, Jobs, pods, GPUs and about how many tokens would be generated. With `-o yaml` the"
        " Jobs themselves; keys and digests that only a preflight can know are shown as `unknown`.",
    )
    parser.add_argument("-f", "--filename", required=True, metavar="FILE", help="manifest, or - for standard input")
    parser.add_argument("-o", "--output", choices=("table", "yaml"), default="table")
    parser.add_argument(
        "--default-storage",
        metavar="URI",
        help="what a run uses that names no storage, as the operator's setting: s3://bucket/{namespace}",
    )
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Print the plan of every run in the file. Returns the exit status; 1 when the manifest is invalid."""
    try:
        text = sys.stdin.read() if args.filename == "-" else Path(args.filename).read_text(encoding="utf-8")
    except OSError as problem:
        raise ConfigurationError(f"{args.filename}: {problem.strerror}") from None
    report = validate_text(text, args.filename)
    if report.problems:
        for found in report.problems:
            print(found, file=sys.stderr)
        return 1
    settings = from_environment().override(storage_uri=args.default_storage)
    documents = [item for document in load_documents(text) for item in document.get("items", [document])]
    for body in documents:
        if body["kind"] != KIND:
            continue  # a ConfigMap or Secret beside its run
        metadata = body["metadata"]
        spec = RunSpec.parse(body["spec"])
        stages = planned_stages(metadata.get("namespace", "default"), metadata["name"], spec, settings)
        if args.output == "yaml":
            _print_yaml(stages)
        else:
            _print_table(metadata["name"], stages)
            _print_storage(stages[0])
    return 0


def _print_yaml(stages: list[PlannedStage]) -> None:
    yaml = YAML()
    yaml.default_flow_style = False
    out = io.StringIO()
    yaml.dump_all([dict(stage.manifest) for stage in stages], out)
    print(out.getvalue(), end="")


def _print_table(name: str, stages: list[PlannedStage]) -> None:
    table = Table(title=f"{name}: {len(stages)} Jobs", title_justify="left")
    for column in ("model", "stage", "image"):
        table.add_column(column)
    for column in ("pods", "GPUs", "tokens, about"):
        table.add_column(column, justify="right")
    last = ""
    for stage in stages:
        made = "" if stage.stage == "report" else model_name(stage.iteration)
        if made != last and last:
            table.add_section()
        container = stage.manifest["spec"]["template"]["spec"]["containers"][0]
        table.add_row(
            made if made != last else "",
            stage.name,
            container["image"].rpartition("/")[2],
            str(stage.pods),
            f"{stage.gpus:g}" if stage.gpus else "–",
            "?" if stage.tokens is None else f"{stage.tokens:,}" if stage.tokens else "–",
        )
        last = made
    table.add_section()
    most = max(stage.gpus for stage in stages)
    pods, tokens = sum(s.pods for s in stages), sum(s.tokens or 0 for s in stages)
    unknown = " + ?" if any(s.tokens is None for s in stages) else ""
    table.add_row("all", "", "", str(pods), f"{most:g} at once", f"{tokens:,}{unknown}")
    console = Console()
    console.print(table)
    if unknown:
        console.print("?: as many as the seed data have ranked answers, or training has checkpoints")


def _print_storage(stage: PlannedStage) -> None:
    """Where artifacts would go; the operator's settings are not known here unless somebody says so."""
    env = stage.manifest["spec"]["template"]["spec"]["containers"][0]["env"]
    task = json.loads(next(item["value"] for item in env if item["name"] == "SRLM_TASK"))
    uri = task["storage"]["uri"]
    if uri == UNKNOWN:
        print("storage: the operator's default, not known here (--default-storage); without one the run waits")
    else:
        print(f"storage: {uri}")
