"""When a watch counts as silent, on a clock of the test's own."""

from __future__ import annotations

import pytest
from yarl import URL

from srlm_operator.cluster.watch_life import WatchLife
from srlm_operator.errors import ConfigurationError
from srlm_operator.settings import Settings, from_environment
from srlm_operator.watches import kopf_settings


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_nothing_is_silent_before_watching_begins(clock: Clock) -> None:
    life = WatchLife(["jobs"], [], clock)
    clock.now += 10_000
    assert life.ages() == {}
    assert life.problem(1) == ""


def test_one_silent_watch_of_three_is_named(clock: Clock) -> None:
    life = WatchLife(["runs", "jobs", "pods"], [], clock)
    life.begin()
    for _ in range(4):
        clock.now += 50
        life.seen("runs", "team")
        life.seen("pods", "")
    assert life.ages() == {"runs": 0, "jobs": 200, "pods": 0}
    assert life.problem(200) == ""
    assert life.problem(199) == "no sign of life from the watch of jobs (200 s); the limit is 199 s"
    life.seen("jobs", "another")
    assert life.problem(199) == ""


def test_every_namespace_has_its_own_watch(clock: Clock) -> None:
    life = WatchLife(["jobs"], ["a", "b"], clock)
    life.begin()
    clock.now += 60
    life.seen("jobs", "a")
    life.seen("jobs", "elsewhere")
    assert life.ages() == {"jobs": 60}, "that of the quietest"
    life.seen("jobs", "b")
    assert life.ages() == {"jobs": 0}


def test_running_once_every_watch_is_answered(clock: Clock) -> None:
    life = WatchLife(["jobs", "pods"], ["a", "b"], clock)
    assert not life.running, "nothing has begun"
    life.begin(left_out=["b"])
    root = "http://host/api/v1/namespaces/a/"
    life.answered(URL(f"{root}jobs?watch=true"))
    life.answered(URL(f"{root}pods"))
    life.seen("pods", "a")
    assert not life.running, "a listing is no watch"
    life.answered(URL(f"{root}pods?watch=true"))
    assert life.running
    life.begin()
    assert not life.running, "those of another start say nothing"


@pytest.mark.parametrize(
    ("address", "alive"),
    [
        ("https://h/apis/batch/v1/jobs?watch=true&labelSelector=x", True),
        ("https://h/prefix/apis/batch/v1/jobs?watch=true", True),
        ("https://h/apis/batch/v1/jobs", False),
        ("https://h/api/v1/pods?watch=true", False),
        ("https://h/apis/batch/v1/namespaces/team/jobs?watch=true", False),
    ],
)
def test_only_answers_to_watches_count(clock: Clock, address: str, alive: bool) -> None:
    life = WatchLife(["jobs"], [], clock)
    life.begin()
    clock.now += 60
    life.answered(URL(address))
    assert life.ages() == {"jobs": 0 if alive else 60}


def test_a_namespaced_watch_answers_for_its_namespace_only(clock: Clock) -> None:
    life = WatchLife(["jobs"], ["a", "b"], clock)
    life.begin()
    clock.now += 60
    life.answered(URL("https://h/apis/batch/v1/namespaces/a/jobs?watch=true"))
    assert life.ages() == {"jobs": 60}
    life.answered(URL("https://h/apis/batch/v1/namespaces/b/jobs?watch=true"))
    assert life.ages() == {"jobs": 0}


def test_a_watch_that_begins_with_a_listing_is_told(clock: Clock) -> None:
    life, told = WatchLife(["jobs", "pods"], [], clock), []
    life.on_new_watch = lambda: told.append(clock.now)
    life.begin()
    for _ in range(2):
        life.answered(URL("https://h/apis/batch/v1/jobs"))
        assert len(told) == 0, "the watch itself is not there yet"
    life.answered(URL("https://h/apis/batch/v1/jobs?watch=true&resourceVersion=5"))
    assert len(told) == 1
    life.answered(URL("https://h/apis/batch/v1/jobs?watch=true&resourceVersion=9"))
    assert len(told) == 1, "it went on where it was"


@pytest.mark.parametrize("limit", [30, 600, 3600])
def test_watches_are_renewed_well_within_the_limit(limit: float) -> None:
    watching = kopf_settings(Settings(watch_silence_seconds=limit)).watching
    assert watching.server_timeout is not None
    assert watching.server_timeout <= limit / 4, "a server that sends bookmarks ends the watch"
    assert watching.inactivity_timeout <= limit / 4, "one that sends nothing is left"
    assert watching.server_timeout >= 1


@pytest.mark.parametrize(("variable", "value"), [("SRLM_WATCH_SILENCE_SECONDS", "0.5"), ("SRLM_METRICS_RUNS", "-1")])
def test_limits_that_cannot_work_are_refused_by_name(variable: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{variable}={value} must be at least"):
        from_environment({variable: value})
