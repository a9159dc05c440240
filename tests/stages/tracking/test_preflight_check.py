"""What preflight says of trackers that cannot be told."""

from __future__ import annotations

import threading

import pytest

from srlm_stages.checks import trackers
from srlm_stages.checks.trackers import unreachable
from srlm_stages.tracking.tracker import Refused


class Made:
    name, pause = "tracking.made", 0.0

    def __init__(self, problem: Refused | threading.Event | None) -> None:
        self._problem = problem

    def check(self) -> None:
        if isinstance(self._problem, Refused):
            raise self._problem
        if self._problem is not None:
            self._problem.wait(30)

    def send(self, *_: object) -> None: ...
    def describe(self, *_: object) -> None: ...
    def close(self) -> None: ...


def test_each_that_will_not_do_is_named_and_none_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "PATIENCE_SECONDS", 0.1)
    release = threading.Event()
    try:
        assert list(unreachable([Made(None), Made(Refused("no such project.")), Made(release)])) == [
            "tracking.made: no such project. The run goes on without it",
            "tracking.made: does not answer within 0 s. The run goes on without it",
        ]
    finally:
        release.set()
    assert list(unreachable([])) == []
