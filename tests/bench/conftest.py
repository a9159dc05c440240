"""For the benchmarks: the helpers of other tests can be imported, and the table stands at the end once more."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

for folder in (Path(__file__).parent, *(Path(__file__).parents[1] / name for name in ("operator", "local"))):
    sys.path.insert(0, str(folder))

from pairs import HEAD, TABLE, load  # noqa: E402 - it lies in the first of these folders


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if TABLE.lines:
        terminalreporter.section(f"ratios of two things run in turn ({load()})")
        terminalreporter.write_line(HEAD)
        for line in TABLE.lines:
            terminalreporter.write_line(line)
