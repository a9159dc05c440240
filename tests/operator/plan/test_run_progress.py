"""Progress for people: one sentence, a share, an ETA only where it means something."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import ANY

from srlm_contract.progress import Progress
from srlm_operator.plan.plan import plan
from srlm_operator.plan.progress import short_time
from support.builders import spec
from support.fake_cluster import FakeCluster, until_node


def line(done: int, total: int, eta: int | None = None) -> Progress:
    return Progress(stage="judge", done=done, total=total, unit="verdicts", tokens_per_second=100.4, eta_seconds=eta)


def starting(total: int) -> Progress:
    return Progress(stage="judge", done=0, total=total, unit="verdicts", activity="starting vLLM")


def shown(world: FakeCluster, *lines: Progress | None) -> tuple[str, int | None, int, int]:
    """Message, ETA, percent and finished shards with these lines in the pods' logs."""
    name = world.active()[0]
    known = {pod.name: text for pod, text in zip(world.pods[name], lines, strict=False) if text}
    observed = replace(world.observed(), progress=known)
    status = plan(world.run(), observed, world.now, world.settings).status
    assert status is not None
    p = status.progress
    return p.message, p.eta_seconds, p.percent, p.shards_done


def test_shards_add_up() -> None:
    world = FakeCluster(spec=spec(judging={"shards": 2}, generation={"shards": 1}))
    world.start_pods(until_node(world, "1/judge"))
    message, eta, percent, _ = shown(world, line(1000, 4000, 30), line(3000, 4000, 10))
    assert message == "judge of M2: 4,000/8,000 verdicts, 201 tok/s"
    assert eta == 30
    _, _, more, _ = shown(world, line(4000, 4000, 0), line(3000, 4000, 10))
    assert more >= percent


def test_a_shard_that_has_said_nothing_counts_as_long_as_the_others_and_not_begun() -> None:
    world = FakeCluster(spec=spec(judging={"shards": 2}, generation={"shards": 1}))
    world.start_pods(until_node(world, "1/judge"))
    message, eta, percent, _ = shown(world, line(96, 96, 0), None)
    assert message == "judge of M2: 96/~192 verdicts, 100 tok/s"
    assert eta is None
    assert percent == shown(world, line(48, 96, 9), line(48, 96, 9))[2]


def test_no_eta_while_a_shard_has_not_begun() -> None:
    world = FakeCluster(spec=spec(judging={"shards": 2}, generation={"shards": 1}))
    world.start_pods(until_node(world, "1/judge"))
    assert shown(world, line(1000, 4000, 30), None)[1] is None
    assert shown(world, line(1000, 4000, 30), starting(4000))[1] is None


def test_a_shard_that_is_done_takes_no_part_in_eta_and_speed() -> None:
    world = FakeCluster(spec=spec(judging={"shards": 2}, generation={"shards": 1}))
    world.start_pods(until_node(world, "1/judge"))
    message, eta, _, _ = shown(world, line(96, 96), line(24, 96, 12))
    assert (message, eta) == ("judge of M2: 120/192 verdicts, 100 tok/s", 12)
    assert shown(world, line(96, 96), line(96, 96))[1] is None, "what comes after the last row takes time, too"


def test_finished_shards_are_counted_over_attempts() -> None:
    world = FakeCluster(spec=spec(generation={"shards": 4}))
    name = until_node(world, "1/generate")
    world.start_pods(name)
    world.jobs[name] = replace(world.jobs[name], completed=(0, 2))
    assert shown(world)[3] == 2
    assert shown(world, None, line(5, 10, 7))[0] == "generate of M2: 25/~40 verdicts, 100 tok/s"


def test_shards_of_a_later_attempt_are_told_by_their_own_numbers() -> None:
    world = FakeCluster(spec=spec(generation={"shards": 4}))
    name = until_node(world, "1/generate")
    world.start_pods(name)
    world.pods[name] = world.pods[name][:2]
    world.jobs[name] = replace(world.jobs[name], shard_indexes=(1, 3), completions=2)
    first, second = world.status.iterations
    stages = tuple(
        s.model_copy(update={"finished_shards": "0,2"}) if s.name == "generate" else s for s in second.stages
    )
    world.status = world.status.model_copy(update={"iterations": (first, second.model_copy(update={"stages": stages}))})
    assert shown(world, line(10, 10), line(2, 10, 8)) == ("generate of M2: 32/~40 verdicts, 100 tok/s", 8, ANY, 2)


def test_a_stage_that_prepares_says_what_it_does() -> None:
    world = FakeCluster()
    name = until_node(world, "1/judge")
    assert shown(world)[0] == "judge of M2: its pods start and read their inputs"
    world.start_pods(name)
    assert shown(world)[0] == "judge of M2: its pods start and read their inputs"
    world.pods[name] = [replace(pod, phase="Succeeded") for pod in world.pods[name]]
    assert shown(world)[0] == "judge of M2: its pods start and read their inputs", "no write until the Job has ended"
    world.start_pods(name)
    assert shown(world, starting(96))[0] == "judge of M2: 0/96 verdicts, starting vLLM"
    assert shown(world, starting(0))[0] == "judge of M2: starting vLLM"


def test_a_log_that_cannot_be_read_is_no_start() -> None:
    world = FakeCluster()
    name = until_node(world, "1/train")
    world.start_pods(name)
    unread = replace(world.observed(), unread={world.pods[name][0].name})
    found = plan(world.run(), unread, world.now, world.settings).status
    assert found is not None
    assert found.progress.message == "train of M2: runs (no log)"


def test_progress_as_people_read_it() -> None:
    assert [short_time(seconds) for seconds in (40, 1260, 7500, 273_600)] == ["40s", "21m", "2h05m", "3d04h"]
    world = FakeCluster()
    until_node(world, "1/train")
    assert world.status.progress.text == f"{world.status.progress.percent}%"
