"""The option `-o` of commands that print for people and for programs."""

from __future__ import annotations

import argparse


def add_output_argument(parser: argparse.ArgumentParser, *choices: str) -> None:
    """choices: the default first."""
    parser.add_argument(
        "-o", "--output", choices=choices, default=choices[0], help="how to print it (default: %(default)s)"
    )
