"""`srlm validate -f run.yaml`: checks manifests offline; exit 0, or 1 with problems as `path: message`."""

from __future__ import annotations

import argparse
import sys
from itertools import groupby
from typing import Any

from srlm_operator.crd.validate import Problem, Report, validate_files, validate_text


def add_parser(subparsers: Any) -> None:
    """Add the command to `srlm`."""
    parser = subparsers.add_parser(
        "validate",
        help="check run manifests without a cluster",
        description="Checks SelfRewardingRun manifests by the schema and rules that the API server applies."
        " Exit status 0, or 1 with every problem as `path: message`.",
    )
    add_arguments(parser)
    parser.set_defaults(func=run)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "-f",
        "--filename",
        action="append",
        required=True,
        metavar="FILE",
        help="YAML or JSON file, a folder of such files, or - for standard input; may be repeated",
    )


def run(args: argparse.Namespace) -> int:
    """Print problems to standard output, notes to standard error. Returns the exit status."""
    report = _report(args.filename)
    for note in report.notes:
        print(f"note: {note}", file=sys.stderr)
    for (file, name), problems in groupby(report.problems, key=lambda problem: (problem.file, problem.run)):
        _print_group(file, name, list(problems))
    if report.problems:
        return 1
    print(f"{report.runs} run{'s' if report.runs > 1 else ''} valid")
    return 0


def _report(names: list[str]) -> Report:
    files = [name for name in names if name != "-"]
    if files == names:
        return validate_files(names)
    report = validate_text(sys.stdin.read(), "-")
    if not files:
        return report
    others = validate_files(files)
    return Report(report.problems + others.problems, report.notes + others.notes, report.runs + others.runs)


def _print_group(file: str, name: str, problems: list[Problem]) -> None:
    if name:
        print(f"# {file}: {name}")
    for problem in problems:
        print(problem)
