"""With `logFormat: json` whoever collects the operator's log finds JSON in every line, of what ends it too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

BROKEN = """
import threading, warnings, srlm_cli.operator as command
from srlm_operator.process import Operator
async def run(self, stop):
    warnings.warn("an old way")
    thread = threading.Thread(target=lambda: 1 / 0, name="lease")
    thread.start()
    thread.join()
    raise RuntimeError("out of order")
Operator.run = run
Operator.__init__ = lambda self, settings, context: None
import srlm_cli, sys
sys.exit(srlm_cli.main(["operator"]))
"""


def said(*command: str, **environ: str) -> tuple[int, list[dict[str, Any]]]:
    done = subprocess.run(
        [sys.executable, *command], env=os.environ | environ, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == ""
    return done.returncode, [json.loads(line) for line in done.stderr.splitlines()]


@pytest.mark.parametrize("environ", [{"KUBECONFIG": "/nowhere"}, {"SRLM_WORKERS": "many"}])
def test_what_ends_the_operator_is_one_line_of_json(environ: dict[str, str]) -> None:
    code, lines = said("-m", "srlm_cli", "operator", SRLM_LOG_FORMAT="json", **environ)
    (line,) = lines
    assert (code, line["level"]) == (1, "critical")
    assert next(iter(environ.values())) in line["message"] or "kubeconfig" in line["message"].lower()
    assert "exception" not in line


def test_warnings_threads_and_errors_of_ours_are_json() -> None:
    code, lines = said("-c", BROKEN, SRLM_LOG_FORMAT="json")
    assert code == 1
    warning, thread, error = lines
    assert "an old way" in warning["message"]
    assert thread["message"] == "thread lease ended: division by zero"
    assert "ZeroDivisionError" in thread["exception"]
    assert (error["message"], error["level"]) == ("out of order", "critical")
    assert "RuntimeError" in error["exception"]


def test_text_stays_text() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "srlm_cli", "operator"],
        env=os.environ | {"SRLM_WORKERS": "many"}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "error: SRLM_WORKERS='many' is no int\n")
