"""What preflight says of trackers that cannot be told."""

from __future__ import annotations

import threading

import pytest

from srlm_contract.spec.tracking import MlflowSpec
from srlm_stages.checks import trackers
from srlm_stages.checks.trackers import unreachable
from srlm_stages.tracking.mlflow import Mlflow
from srlm_stages.tracking.tracker import Refused
from support.http_server import QuietHandler, serving

from .conftest import Senders


class Made:
    name, pause = "tracking.made", 0.0

    def __init__(self, problem: Exception | threading.Event | None) -> None:
        self._problem = problem

    def check(self) -> None:
        if isinstance(self._problem, Exception):
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
        told = [Made(None), Made(Refused("no such project.")), Made(ValueError("odd")), Made(release)]
        assert list(unreachable(told, {})) == [
            "tracking.made: no such project. The run goes on without it",
            "tracking.made: ValueError: odd. The run goes on without it",
            "tracking.made: does not answer within 0 s. The run goes on without it",
        ]
    finally:
        release.set()
    assert list(unreachable([], {})) == []


def test_what_a_server_repeats_is_cut_when_the_secret_is_out_of_it() -> None:
    answer = Refused("no".ljust(297) + "secret-token " + "html" * 1000)
    (said,) = unreachable([Made(answer)], {"WANDB_API_KEY": "secret-token"})
    assert len(said) < 360
    assert "sec" not in said


def test_a_server_that_is_none_and_a_token_that_no_header_takes_are_warnings(sender: Senders) -> None:
    class Odd(QuietHandler):
        def do_GET(self) -> None:
            self.reply(b"[1, 2]")

    with serving(Odd) as url:
        odd = Mlflow(MlflowSpec(uri=url), sender())
        unsendable = Mlflow(MlflowSpec(uri=url), sender(MLFLOW_TRACKING_TOKEN="pass-w\u00f6rd\nX-Other: 1"))
        first, second = unreachable([odd, unsendable], {})
    assert "tracking.mlflow: TypeError" in first
    assert second.startswith("tracking.mlflow: the Secret for Authorization of http://127.0.0.1:")
    assert "has characters that no header may have" in second
    assert "pass-w" not in first + second
