"""For the benchmarks: what they share can be imported, also by the programs they start, and the table
stands at the end once more."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from pairs import HEAD, TABLE, load


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if TABLE.lines:
        terminalreporter.section(f"ratios of two things run in turn ({load()})")
        terminalreporter.write_line(HEAD)
        for line in TABLE.lines:
            terminalreporter.write_line(line)
