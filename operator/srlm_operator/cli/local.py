"""`srlm local`: the one-machine cluster."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Add the command; the one-machine cluster brings its own arguments."""
    # By name: the operator lies below the one-machine cluster.
    cli = import_module("srlm_local.cli")
    parser = subparsers.add_parser("local", help="one-machine cluster")
    cli.add_arguments(parser)
    parser.set_defaults(func=cli.main)
