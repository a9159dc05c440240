"""`srlm plan -f run.yaml`: what a run would do, without a cluster."""

from __future__ import annotations

import argparse
import io
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from ruamel.yaml import YAML

from srlm_cli.estimate import UNKNOWN, PlannedStage, planned_stages
from srlm_cli.output import add_output_argument
from srlm_contract.graph import model_name
from srlm_contract.sizing import ANSWERING_FLOPS, TRAINING_FLOPS, in_gib, parameters_in_name, training_disk_bytes
from srlm_contract.spec.run import RunSpec
from srlm_contract.stages import TRAINERS
from srlm_operator.crd.definition import KIND
from srlm_operator.crd.validate import validate_text
from srlm_operator.crd.yaml12 import load_documents
from srlm_operator.errors import ConfigurationError
from srlm_operator.settings import from_environment


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `srlm plan`."""
    parser.description = (
        "Shows stages, Jobs, pods, GPUs, at most how many tokens would be generated and how many GPU-hours"
        " that takes, and the disk and S3 space of the models; with `-o json` for programs. With `-o yaml` the Jobs"
        " themselves; keys and digests that only a preflight can know are shown as `unknown`."
    )
    parser.add_argument("-f", "--filename", required=True, metavar="FILE", help="manifest, or - for standard input")
    add_output_argument(parser, "table", "json", "yaml")
    parser.add_argument(
        "--default-storage",
        metavar="URI",
        help="what a run uses that names no storage, as the operator's setting: s3://bucket/{namespace}",
    )
    parser.add_argument(
        "--parameters",
        metavar="N",
        type=_parameters,
        help="size of the base model, such as 8B, for GPU-hours and space; else what its name says",
    )
    parser.set_defaults(func=run)


def _parameters(text: str) -> float:
    """8B, 135M or a plain number."""
    number = float(text) if text.replace(".", "", 1).isdigit() else parameters_in_name(text)
    if not number:
        raise argparse.ArgumentTypeError(f"{text!r} is no size of a model such as 8B or 135M")
    return number


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
    plans = []
    for body in documents:
        if body["kind"] != KIND:
            continue  # a ConfigMap or Secret beside its run
        metadata = body["metadata"]
        spec = RunSpec.parse(body["spec"])
        stages = planned_stages(metadata.get("namespace", "default"), metadata["name"], spec, settings)
        parameters = args.parameters or parameters_in_name(spec.base_model.uri)
        if args.output == "yaml":
            _print_yaml(stages)
        elif args.output == "json":
            plans.append({"name": metadata["name"], **_wire(stages, spec, parameters)})
        else:
            _print_table(metadata["name"], stages, spec, parameters)
            for line in _assumptions(stages, spec, parameters):
                print(line)
            _print_storage(stages[0])
    if args.output == "json":
        print(json.dumps(plans, indent=2))
    return 0


def _wire(stages: list[PlannedStage], spec: RunSpec, parameters: float | None) -> dict[str, Any]:
    """For programs; see operator/README.md."""
    storage = _storage(stages[0])
    space = _space(stages, spec, parameters) if parameters else None
    return {
        "namespace": stages[0].manifest["metadata"]["namespace"],
        "storage": None if storage == UNKNOWN else storage,
        "parameters": parameters,
        "jobs": [
            {
                "model": None if stage.stage == "report" else model_name(stage.iteration),
                "name": stage.name,
                "stage": stage.stage,
                "image": _image(stage),
                "job": stage.job.partition("/")[2] or stage.name,
                "pods": stage.pods,
                "gpus": stage.gpus,
                "tokens": stage.tokens,
                "gpuSeconds": stage.gpu_seconds(parameters, spec) if parameters else None,
            }
            for stage in stages
        ],
        "space": space and {
            "modelBytes": space.model, "modelsBytes": space.models, "trainPodBytes": space.train_pod,
        },
    }  # fmt: skip


def _print_yaml(stages: list[PlannedStage]) -> None:
    yaml = YAML()
    yaml.default_flow_style = False
    out = io.StringIO()
    yaml.dump_all([dict(stage.manifest) for stage in stages if not stage.job], out)
    print(out.getvalue(), end="")


def _print_table(name: str, stages: list[PlannedStage], spec: RunSpec, parameters: float | None) -> None:
    jobs = [stage for stage in stages if not stage.job]
    table = Table(title=f"{name}: {len(jobs)} Jobs", title_justify="left")
    for column in ("model", "stage", "image"):
        table.add_column(column)
    for column in ("pods", "GPUs", "tokens, at most", "GPU-hours, at most"):
        table.add_column(column, justify="right")
    last = ""
    for stage in stages:
        made = "" if stage.stage == "report" else model_name(stage.iteration)
        if made != last and last:
            table.add_section()
        seconds = stage.gpu_seconds(parameters, spec) if parameters else None
        table.add_row(
            made if made != last else "",
            stage.name,
            _image(stage).rpartition("/")[2],
            "same" if stage.job else str(stage.pods),
            f"{stage.gpus:g}" if stage.gpus else "–",
            "?" if stage.tokens is None else f"{stage.tokens:,}" if stage.tokens else "–",
            "–" if not stage.gpus else "?" if seconds is None else _hours(seconds),
        )
        last = made
    table.add_section()
    most = max(stage.gpus for stage in stages)
    pods, tokens = sum(s.pods for s in jobs), sum(s.tokens or 0 for s in stages)
    unknown = " + ?" if any(s.tokens is None for s in stages) else ""
    known = sum(s.gpu_seconds(parameters, spec) or 0 for s in stages) if parameters else 0
    hours = "–" if not most else f"{_hours(known)}{unknown}" if parameters else "?"
    table.add_row("all", "", "", str(pods), f"{most:g} at once", f"{tokens:,}{unknown}", hours)
    console = Console()
    console.print(table)
    if len(jobs) < len(stages):
        console.print("same: in the pods of an earlier stage, which have the model already")
    if unknown:
        console.print("?: as many as the seed data have ranked answers, or training has checkpoints")


def _hours(seconds: float) -> str:
    hours = seconds / 3600
    return f"{hours:,.1f}" if hours >= 0.1 else "< 0.1"


def _assumptions(stages: list[PlannedStage], spec: RunSpec, parameters: float | None) -> list[str]:
    """What the hours stand on, and the space that models take."""
    if not parameters:
        return [f"GPU-hours and space: the name {spec.base_model.uri} tells no size; give it with --parameters 8B"]
    space = _space(stages, spec, parameters)
    lines = [
        f"S3: {in_gib(space.model)} a model, {in_gib(space.models)} for {space.number}; disk: "
        f"{in_gib(space.train_pod)} a train pod, {in_gib(space.model)} an inference pod ({parameters / 1e9:g} billion "
        f"parameters, saveDtype {spec.training.save_dtype})"
    ]
    if any(stage.gpus for stage in stages):
        lines.append(
            "GPU-hours: of an H100 or H200 that does "
            f"{TRAINING_FLOPS / 1e12:g} TFLOP/s in training and {ANSWERING_FLOPS / 1e12:g} in answering, every row and "
            "answer as long as its limit; starts of engines and reading of prompts not counted"
        )
    return lines


@dataclass(frozen=True)
class Space:
    """Bytes that models take."""

    number: int
    """Models that the run makes, those it tries out included."""
    model: float
    models: float
    train_pod: float


def _space(stages: list[PlannedStage], spec: RunSpec, parameters: float) -> Space:
    saved = 4 if spec.training.save_dtype == "Float32" else 2
    number = sum(stage.stage in TRAINERS for stage in stages)
    disk = training_disk_bytes(parameters, saved, checkpoints=spec.training.checkpoint_every_steps > 0)
    return Space(number, saved * parameters, saved * parameters * number, disk)


def _container(stage: PlannedStage) -> dict[str, Any]:
    found: dict[str, Any] = stage.manifest["spec"]["template"]["spec"]["containers"][0]
    return found


def _image(stage: PlannedStage) -> str:
    return str(_container(stage)["image"])


def _storage(stage: PlannedStage) -> str:
    """Where artifacts would go; UNKNOWN where only the operator's settings tell."""
    task = json.loads(next(item["value"] for item in _container(stage)["env"] if item["name"] == "SRLM_TASK"))
    return str(task["storage"]["uri"])


def _print_storage(stage: PlannedStage) -> None:
    uri = _storage(stage)
    if uri == UNKNOWN:
        print("storage: the operator's default, not known here (--default-storage); without one the run waits")
    else:
        print(f"storage: {uri}")
