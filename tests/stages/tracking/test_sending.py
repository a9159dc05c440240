"""Nothing waits for a tracker: one that is down, hangs or refuses costs a warning and a bounded end."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence

import pytest

from srlm_stages.tracking import sending
from srlm_stages.tracking.sending import Sending
from srlm_stages.tracking.tracker import Refused, Row, Series, State, TrackerError

CURVE = Series("M2/train", "key-1")


class Made:
    """A tracker that does as `fails` says before it takes what it is sent."""

    name, pause = "tracking.made", 0.01

    def __init__(self, *fails: Exception | threading.Event) -> None:
        self.fails, self.told, self.closed = list(fails), "", False
        self.rows: list[float] = []
        self.tried = threading.Event()

    def check(self) -> None:
        raise AssertionError

    def send(self, series: Series, rows: Sequence[Row]) -> None:
        self.tried.set()
        if self.fails:
            problem = self.fails.pop(0)
            if isinstance(problem, Exception):
                raise problem
            problem.wait(30)
        self.rows += [row["step"] for row in rows]

    def describe(self, settings: Mapping[str, str], state: State) -> None:
        self.told = state

    def close(self) -> None:
        self.closed = True


def row(step: int) -> Row:
    return {"step": float(step)}


def test_all_arrives_in_order_by_the_end() -> None:
    said: list[str] = []
    trackers = [Made(), Made()]
    to = Sending(trackers, said.append, {})
    for step in range(5):
        to.add(CURVE, row(step))
    to.describe({}, "Succeeded")
    assert (to.close(), said) == ([], [])
    assert [(t.rows, t.told, t.closed) for t in trackers] == [([0, 1, 2, 3, 4], "Succeeded", True)] * 2


def test_what_a_tracker_missed_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "FIRST_PAUSE", 0.01)
    said: list[str] = []
    tracker = Made(TrackerError("down"), ValueError("a client's own"))
    to = Sending([tracker], said.append, {})
    to.add(CURVE, row(1))
    assert tracker.tried.wait(10)
    to.add(CURVE, row(2))
    while tracker.fails:
        time.sleep(0.005)
    assert to.close() == []
    assert tracker.rows == [1, 2]
    assert said == ["warning: tracking.made has not got everything: down; the stage goes on"], "once, however often"


def test_one_that_stays_down_is_a_warning_without_the_secret() -> None:
    said: list[str] = []
    tracker = Made(*[TrackerError("Bearer secret-token is not welcome")] * 99)
    to = Sending([tracker], said.append, {"MLFLOW_TRACKING_TOKEN": "secret-token"})
    to.add(CURVE, row(1))
    (warning,) = to.close()
    assert warning == "tracking.made has not got everything: Bearer [MLFLOW_TRACKING_TOKEN] is not welcome"
    assert said == [f"warning: {warning}; the stage goes on"]
    assert len(tracker.fails) >= 97, "the end is one try, not many"


def test_one_that_refuses_is_not_asked_again() -> None:
    tracker = Made(Refused("no such project"))
    to = Sending([tracker], lambda line: None, {})
    to.add(CURVE, row(1))
    assert tracker.tried.wait(10)
    to.add(CURVE, row(2))
    assert to.close() == ["tracking.made has not got everything: no such project"]
    assert (tracker.rows, tracker.closed) == ([], True)


def test_one_that_hangs_holds_up_neither_the_stage_nor_another_tracker() -> None:
    release = threading.Event()
    hanging, other = Made(release), Made()
    to = Sending([hanging, other], lambda line: None, {})
    began = time.monotonic()
    for step in range(100):
        to.add(CURVE, row(step))
    assert to.close(0.3) == ["tracking.made has not got everything: it has not answered in time"]
    assert time.monotonic() - began < 5
    assert other.rows == list(range(100))
    release.set()
