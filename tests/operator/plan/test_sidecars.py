"""A container beside the stage that runs on: the stage's answer counts, and its Job goes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from support.builders import spec
from support.fake_cluster import FakeCluster, attempts, until_node
from support.stage_script import Ending, error


def hold_up(world: FakeCluster, job: str, index: int = 0) -> None:
    """The stage of a pod ends, and its proxy does not."""
    ended = [
        replace(world._end(pod, world.stages.run(world.tasks[job], pod.index)), phase="Running", beside="istio-proxy")
        if pod.index == index
        else pod
        for pod in world.pods[job]
    ]
    world.pods[job] = ended


def test_the_result_is_taken_and_the_job_ended() -> None:
    world = FakeCluster()
    name = until_node(world, "1/pairs")
    world.start_pods(name)
    hold_up(world, name)
    assert world.reconcile().requeue_after == 30, "sidecars may need a while"
    assert name in world.jobs
    world.advance(30)
    world.reconcile()
    record = world.record("1/pairs")
    assert (record.state, bool(record.content_digest), name in world.jobs) == ("Succeeded", True, False)
    assert world.events.count("SidecarRunning") == 1
    world.settle()
    assert (world.status.phase, attempts(world, "1/pairs")) == ("Succeeded", 1)


@pytest.mark.parametrize(
    ("ending", "reason"), [(Ending(1, "boom"), "Crashed"), (error(77, "StorageNotPermitted"), "StorageNotPermitted")]
)
def test_a_failure_counts_as_if_the_pod_had_ended(ending: Ending, reason: str) -> None:
    world = FakeCluster()
    world.stages.fail("pairs", ending)
    name = until_node(world, "1/pairs")
    world.start_pods(name)
    hold_up(world, name)
    world.advance(30)
    world.reconcile()
    assert (world.record("1/pairs").last_failure.reason, name in world.jobs) == (reason, False)


def test_shards_that_run_are_waited_for() -> None:
    world = FakeCluster(spec=spec(generation={"shards": 2}))
    name = until_node(world, "1/generate")
    world.start_pods(name)
    hold_up(world, name, 0)
    world.advance(1000)
    world.reconcile()
    assert world.record("1/generate").state == "Running"
    hold_up(world, name, 1)
    world.advance(30)
    world.reconcile()
    assert world.record("1/generate").state == "Succeeded"
