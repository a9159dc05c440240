"""`srlm demo`: a whole run on this machine."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Add the command; the one-machine cluster brings it."""
    # By name: the operator lies below the one-machine cluster.
    demo = import_module("srlm_local.demo")
    parser = subparsers.add_parser("demo", help="a whole run on this machine")
    demo.add_arguments(parser)
    parser.set_defaults(func=demo.main)
