"""A subcommand whose packages are not installed says which extra brings them."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("missing", "arguments", "extra"),
    [
        ("kopf", ["operator"], "operator"),
        ("rich", ["status", "run"], "cli"),
        ("cel_expr_python", ["validate", "-f", "crds/samples/minimal.yaml"], "cli"),
        ("psutil", ["local", "up"], "local"),
        ("jinja2", ["ui"], "cli"),
    ],
)
def test_what_to_install(missing: str, arguments: list[str], extra: str) -> None:
    program = f"import sys; sys.modules[{missing!r}] = None; from srlm_cli import main; sys.exit(main({arguments!r}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: srlm {arguments[0]} needs {missing}")
    assert f"pip install 'self-rewarding-operator[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr
