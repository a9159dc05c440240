"""What a person sees while the demo runs: changes, how long it still takes, and where to look when nothing changes."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rich.console import Console

from srlm_cli.demo.remaining import seconds_left, usual_seconds
from srlm_cli.demo.screen import Screen
from srlm_contract.status import Failure, IterationStatus, ProgressStatus, RunStatus, StageStatus
from srlm_operator.times import stamp

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def stage(name: str, state: str = "Succeeded", seconds: float = 0, ago: float = 0) -> StageStatus:
    """A stage that took `seconds`, or runs since `ago` seconds."""
    ended = stamp(NOW) if state == "Succeeded" else None
    began = stamp(NOW - timedelta(seconds=seconds or ago))
    known = {"name": name, "stage": name.partition("-")[0], "state": state, "finished_at": ended, "started_at": began}
    return StageStatus.model_validate(known)


def status(*stages: StageStatus, message: str = "", eta: int | None = None, percent: int = 5) -> RunStatus:
    return RunStatus(
        iterations=(IterationStatus(name="M1", stages=stages),),
        progress=ProgressStatus(message=message, eta_seconds=eta, percent=percent),
    )


class Shown:
    """A screen without a terminal, and a clock of the test's own."""

    def __init__(self, log: Path | None = Path("/demo/pod/0.log")) -> None:
        self.now = 0.0
        self.out = io.StringIO()
        self.screen = Screen(Console(file=self.out, width=80), 2, lambda: log, lambda: self.now)

    def at(self, seconds: float, shown: RunStatus) -> list[str]:
        """The lines that appear at this time."""
        self.now = seconds
        before = len(self.out.getvalue())
        self.screen.show(shown)
        return self.out.getvalue()[before:].splitlines()


def test_what_does_not_change_is_said_once_then_where_to_look_ever_more_seldom() -> None:
    shown, same = Shown(), status(stage("sft", "Running", ago=5), message="sft of M1: 0/4 steps, starting torchrun")
    lines = [(second, line) for second in range(0, 780, 5) for line in shown.at(second, same)]
    assert [second for second, _ in lines] == [0, 15, 75, 135, 255, 495]
    assert lines[0][1].endswith("M1 sft: Running")
    assert "sft of M1: 0/4 steps, starting torchrun, about" in lines[1][1]
    assert "left in all" in lines[1][1]
    assert "no news for 1m 00s" in lines[2][1]
    assert lines[2][1].endswith("what the pod says: /demo/pod/0.log")
    assert "no news for 8m 00s" in lines[5][1]


def test_news_are_told_and_make_the_silence_begin_anew() -> None:
    shown, running = Shown(), stage("judge", "Running", ago=5)
    shown.at(0, status(running, message="judge of M2: 0/96 verdicts"))
    shown.at(20, status(running, message="judge of M2: 0/96 verdicts"))
    (line,) = shown.at(100, status(running, message="judge of M2: 40/96 verdicts", eta=30))
    assert "judge of M2: 40/96 verdicts, about 30s left in this stage, about" in line
    assert shown.at(150, status(running, message="judge of M2: 40/96 verdicts", eta=20)) == []
    (line,) = shown.at(165, status(running, message="judge of M2: 40/96 verdicts", eta=20))
    assert "no news for 1m 05s" in line


def test_a_stage_that_is_tried_again_says_why() -> None:
    failure = Failure(reason="Crashed", message="[Errno 28] no space", at=stamp(NOW))
    retrying = stage("judge", "Retrying").model_copy(update={"last_failure": failure})
    (line,) = Shown().at(3, status(retrying))
    assert line.endswith("M1 judge: Retrying after Crashed: [Errno 28] no space")


def test_the_first_estimate_is_what_the_run_usually_takes() -> None:
    usual = usual_seconds(2)
    assert seconds_left(RunStatus(), 2, NOW) == sum(usual.values())
    assert usual.keys() >= {"0/sft-ift", "1/judge", "2/evaluate"}
    assert "3/judge" not in usual


def test_a_machine_of_half_the_speed_takes_twice_as_long_for_the_rest() -> None:
    usual = usual_seconds(2)
    first = [name.partition("/")[2] for name in usual if name.startswith("0/")]
    done = status(*(stage(name, seconds=2 * usual[f"0/{name}"]) for name in first))
    rest = sum(seconds for name, seconds in usual.items() if not name.startswith("0/"))
    assert 1.6 * rest < seconds_left(done, 2, NOW) < 2 * rest


def test_a_stage_without_end_lengthens_the_rest_and_never_makes_it_negative() -> None:
    short, long = (seconds_left(status(stage("sft-ift", "Running", ago=seconds)), 2, NOW) for seconds in (40, 4_000))
    assert long > 3 * short > 0


def test_a_job_of_several_stages_may_take_as_long_as_all_of_them() -> None:
    usual = usual_seconds(2)
    whole = usual["0/judge-heldout"] + usual["0/evaluate"]
    lead = stage("judge-heldout", "Running", ago=int(whole) - 5).model_copy(update={"job": "one"})
    link = stage("evaluate", "Pending").model_copy(update={"job": "one"})
    assert seconds_left(status(lead, link), 2, NOW) == sum(usual.values()) - whole + 5


def test_what_another_run_had_made_says_nothing_about_this_machine() -> None:
    reused = stage("sft-ift", seconds=1).model_copy(update={"reused": True})
    usual = usual_seconds(2)
    assert seconds_left(status(reused), 2, NOW) == sum(usual.values()) - usual["0/sft-ift"]


def test_all_that_is_left_is_no_less_than_this_stage() -> None:
    last = status(stage("evaluate", "Running", ago=5), eta=36_000)
    assert seconds_left(last, 2, NOW) == 36_000
