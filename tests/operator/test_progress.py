"""Progress for people: one sentence, a share, an ETA only where it means something."""

from __future__ import annotations

from dataclasses import replace

from builders import spec
from fake_cluster import FakeCluster
from test_plan_failures import until_node

from srlm_contract.progress import Progress
from srlm_operator.plan import plan


def line(done: int, total: int, eta: int | None = None) -> Progress:
    return Progress(stage="judge", done=done, total=total, unit="verdicts", tokens_per_second=100.4, eta_seconds=eta)


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
    world = FakeCluster(spec=spec(judging={"shards": 2}))
    world.start_pods(until_node(world, "1/judge"))
    message, eta, percent, _ = shown(world, line(1000, 4000, 30), line(3000, 4000, 10))
    assert message == "judge of M2: 4,000/8,000 verdicts, 201 tok/s"
    assert eta == 30
    _, _, more, _ = shown(world, line(4000, 4000, 0), line(3000, 4000, 10))
    assert more >= percent


def test_no_eta_while_a_shard_has_not_begun() -> None:
    world = FakeCluster(spec=spec(judging={"shards": 2}))
    world.start_pods(until_node(world, "1/judge"))
    assert shown(world, line(1000, 4000, 30), None)[1] is None


def test_finished_shards_are_counted_over_attempts() -> None:
    world = FakeCluster(spec=spec(generation={"shards": 4}))
    name = until_node(world, "1/generate")
    world.start_pods(name)
    world.jobs[name] = replace(world.jobs[name], completed=(0, 2))
    assert shown(world)[3] == 2


def test_a_stage_that_says_nothing_yet() -> None:
    world = FakeCluster()
    world.start_pods(until_node(world, "1/train"))
    assert shown(world)[0] == "train of M2: starting"
