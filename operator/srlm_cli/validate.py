"""`srlm validate -f run.yaml`: checks manifests offline; exit 0, or 1 with problems as `path: message`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from functools import partial
from itertools import groupby
from typing import Any, get_args

from srlm_contract.spec.run import RunSpec
from srlm_operator.crd.validate import Further, Problem, Report, validate_files, validate_text
from srlm_operator.errors import InvalidPodTemplate
from srlm_operator.settings import PodSecurity, Settings

from .estimate import planned_stages
from .output import add_output_argument


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `srlm validate`."""
    parser.set_defaults(func=run)
    parser.description = (
        "Checks SelfRewardingRun manifests by the schema and rules that the API server applies, and by what"
        " the operator asks of stage pods. Exit status 0, or 1 with every problem as `path: message`."
    )
    parser.add_argument(
        "-f",
        "--filename",
        action="append",
        required=True,
        metavar="FILE",
        help="YAML or JSON file, a folder of such files, or - for standard input; may be repeated",
    )
    parser.add_argument(
        "--pod-security",
        choices=get_args(PodSecurity),
        default="Restricted",
        help="level that the operator lets podTemplate patches go down to (default: %(default)s)",
    )
    add_output_argument(parser, "text", "json")


def run(args: argparse.Namespace) -> int:
    """Print problems to standard output, notes to standard error. Returns the exit status."""
    report = _report(args.filename, partial(_refused, Settings(pod_security=args.pod_security)))
    if args.output == "json":
        print(json.dumps({
            "runs": report.runs,
            "problems": [asdict(problem) for problem in report.problems],
            "notes": list(report.notes),
        }, indent=2))  # fmt: skip
        return 1 if report.problems else 0
    for note in report.notes:
        print(f"note: {note}", file=sys.stderr)
    for (file, name), problems in groupby(report.problems, key=lambda problem: (problem.file, problem.run)):
        _print_group(file, name, list(problems))
    if report.problems:
        return 1
    print(f"{report.runs} run{'s' if report.runs > 1 else ''} valid")
    return 0


def _refused(settings: Settings, document: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """What the operator would stall the run for as soon as it makes a Job."""
    try:
        planned_stages("namespace", "name", RunSpec.parse(document["spec"]), settings)
    except InvalidPodTemplate as problem:
        yield "spec", str(problem)


def _report(names: list[str], further: Further) -> Report:
    files = [name for name in names if name != "-"]
    if files == names:
        return validate_files(names, further)
    report = validate_text(sys.stdin.read(), "-", further)
    if not files:
        return report
    others = validate_files(files, further)
    return Report(report.problems + others.problems, report.notes + others.notes, report.runs + others.runs)


def _print_group(file: str, name: str, problems: list[Problem]) -> None:
    if name:
        print(f"# {file}: {name}")
    for problem in problems:
        print(problem)
