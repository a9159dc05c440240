"""Progress lines of a stage: speed and time left are those of all the work so far, and of nothing else."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

from srlm_contract.progress import Progress, parse_progress
from srlm_stages.judge import PartialProgress
from srlm_stages.runtime.progress import ProgressReporter


class Watched:
    """A reporter with a clock of the test's own."""

    def __init__(self) -> None:
        self.now = 0.0
        self.out = io.StringIO()
        self.reporter = ProgressReporter("judge", self.out, lambda: self.now)

    def at(self, seconds: float, done: int, total: int = 96, tokens: int = 0) -> Progress | None:
        """The last line after a report at this time."""
        self.now = seconds
        self.reporter.update(done, total, unit="verdicts", tokens=tokens)
        return self.last()

    def last(self) -> Progress | None:
        return parse_progress(self.out.getvalue().splitlines())


def test_the_speed_is_that_of_the_whole_work_not_of_its_last_moments() -> None:
    watched = Watched()
    watched.at(0, 0)
    watched.at(97, 10, tokens=400)
    last = watched.at(100, 96, tokens=9_000)
    assert last is not None
    assert last.tokens_per_second == 90


def test_what_went_before_the_work_counts_for_neither_speed_nor_time_left() -> None:
    watched = Watched()
    watched.reporter.begin(96, "verdicts", "starting vLLM")
    first = watched.last()
    assert first is not None
    assert (first.done, first.total, first.activity, first.eta_seconds) == (0, 96, "starting vLLM", None)
    watched.at(60, 0)
    half = watched.at(70, 48, tokens=500)
    assert half is not None
    assert (half.eta_seconds, half.tokens_per_second, half.activity) == (10, 50, "")


def test_a_resumed_training_counts_its_own_steps_only() -> None:
    watched = Watched()
    watched.at(0, 40, total=100, tokens=10_000)
    later = watched.at(30, 70, total=100, tokens=10_300)
    assert later is not None
    assert (later.eta_seconds, later.tokens_per_second) == (30, 10)


def test_the_first_of_many_texts_tells_no_time_left() -> None:
    watched = Watched()
    watched.at(0, 0, total=88)
    early, later = watched.at(37, 1, total=88), watched.at(40, 44, total=88)
    assert early is not None
    assert later is not None
    assert (early.eta_seconds, later.eta_seconds) == (None, 40)


def test_no_time_left_is_claimed_before_the_first_row_and_after_the_last() -> None:
    watched = Watched()
    first, last = watched.at(0, 0), watched.at(50, 96)
    assert first is not None
    assert last is not None
    assert (first.eta_seconds, last.eta_seconds) == (None, None)


def test_the_parts_of_judging_count_as_one() -> None:
    watched = Watched()
    ctx: Any = SimpleNamespace(progress=watched.reporter)
    progress = PartialProgress(ctx, 90, 10, 0)
    watched.now = 10
    scored = progress.part(0)
    watched.now = 100
    scored(90, 900)
    scoring = watched.last()
    assert scoring is not None
    assert (scoring.done, scoring.total, scoring.eta_seconds) == (90, 100, 10)
    freely = progress.part(1)
    watched.now = 110
    freely(10, 100)
    assert progress.part(2) is not None
    done = watched.last()
    assert done is not None
    assert (done.done, done.total, done.tokens_per_second) == (100, 100, 10)
