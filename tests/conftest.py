"""For all tests: a skip whose reason is not in allowed_skips.txt fails the session."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

import pytest

# Some machines and images forbid Python to keep what it compiled. The tests start hundreds of Python processes, and
# each would compile torch, transformers or the Kubernetes client anew: that is half of the time such a start takes.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

ALLOWED = Path(__file__).with_name("allowed_skips.txt")


def allowed_reasons() -> list[str]:
    """What the reason of a permitted skip begins with, one entry a line of allowed_skips.txt."""
    lines = ALLOWED.read_text(encoding="utf-8").splitlines()
    return [line.split(" # ")[0].strip() for line in lines if line.strip() and not line.startswith("#")]


def skip_reason(report: pytest.TestReport | pytest.CollectReport) -> str | None:
    """The reason of a skip; None for anything else, an expected failure included."""
    if not report.skipped or hasattr(report, "wasxfail"):
        return None
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")


class SkipGuard:
    """Collects skips that nobody allowed and fails the session at its end."""

    def __init__(self) -> None:
        self.allowed = allowed_reasons()
        self.refused: list[str] = []

    def _look(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        reason = skip_reason(report)
        if reason is not None and not any(reason.startswith(allowed) for allowed in self.allowed):
            self.refused.append(f"{report.nodeid}: {reason}")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._look(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._look(report)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.refused and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.refused:
            terminalreporter.section("skips that tests/allowed_skips.txt does not allow", red=True)
            for line in self.refused:
                terminalreporter.line(line)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Workers of `-n auto`: one more than there are cores, as tests that talk to processes and servers also wait."""
    return (os.cpu_count() or 1) + 1


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """What was imported and collected stays until the end: the garbage collector need not walk over it in each test."""
    gc.collect()
    gc.freeze()


def pytest_configure(config: pytest.Config) -> None:
    if config.pluginmanager.hasplugin("hypothesispytest"):  # not in the environment of tests/gpu
        from hypothesis import settings

        # The same examples each time, and no limit on how long one may take: that a machine is busy is no fault.
        settings.load_profile("ci")
    if not hasattr(config, "workerinput"):  # with xdist all reports reach the controlling process
        config.pluginmanager.register(SkipGuard(), "skip-guard")
