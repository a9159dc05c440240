"""`srlm local`: the one-machine cluster."""

from __future__ import annotations

from typing import Any

from srlm_local import cli


def add_parser(subparsers: Any) -> None:
    """Add the command; the one-machine cluster brings its own arguments."""
    parser = subparsers.add_parser("local", help="one-machine cluster")
    cli.add_arguments(parser)
    parser.set_defaults(func=cli.main)
