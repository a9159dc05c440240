"""For the benchmarks: what they share can be imported, also by the programs they start, and the table
stands at the end once more."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from pairs import HEAD, PAIRS, TABLE, load
from record import keep

#: Of a benchmark that failed nothing is kept, nor of one with fewer pairs than a figure needs.
ENOUGH = 5
_failed: set[str] = set()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.failed:
        _failed.add(Path(report.fspath).stem.removeprefix("test_"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if TABLE.lines:
        terminalreporter.section(f"ratios of two things run in turn ({load()})")
        terminalreporter.write_line(HEAD)
        for line in TABLE.lines:
            terminalreporter.write_line(line)
    if PAIRS >= ENOUGH:
        keep({name: part for name, part in TABLE.found.items() if name not in _failed})
