"""Pods that are evicted while their Job goes on: counted, told, and soon followed by a fresh attempt."""

from __future__ import annotations

from dataclasses import replace

from support.builders import spec
from support.fake_cluster import FakeCluster, attempts, until_node


def evict(world: FakeCluster, job: str, index: int = 0) -> None:
    """A running pod is evicted; its Job goes on."""
    pods = world.pods[job]
    place = max(n for n, pod in enumerate(pods) if pod.index == index)
    changes = {"phase": "Failed", "disrupted": True, "pod_message": "the node is drained", "finished_at": world.now}
    pods[place] = replace(pods[place], **changes)  # type: ignore[arg-type]  # the fields of a pod


def replacement(world: FakeCluster, job: str) -> None:
    """The Job makes its next pod, and the evicted one goes."""
    old = world.pods[job][-1]
    number = int(old.uid.rpartition("+")[2]) + 1 if "+" in old.uid else 1
    uid = f"{old.uid.partition('+')[0]}+{number}"
    world.pods[job] = [replace(old, name=uid, uid=uid, phase="Running", disrupted=False, finished_at=None)]


def message(world: FakeCluster) -> str:
    return next(c.message for c in world.status.conditions if c.type == "Ready")


def running(node: str = "1/train", **more: object) -> tuple[FakeCluster, str]:
    world = FakeCluster(spec=spec(**more))
    name = until_node(world, node)
    world.start_pods(name)
    world.reconcile()
    world.advance(20)
    return world, name


def test_an_eviction_is_counted_told_and_waited_for() -> None:
    world, name = running()
    evict(world, name)
    before = world.events.count("Disrupted")
    for _ in range(3):
        world.reconcile()
    assert world.events.count("Disrupted") - before == 1
    record = world.record("1/train")
    assert (record.disruptions, record.counted_failures, record.attempt) == (1, 0, 1)
    assert world.condition("Reconciling") == "Retrying"
    again = world.now.replace(microsecond=0).timestamp() + 10
    assert "evicted once" in message(world)
    assert "the node is drained" in message(world)
    assert f"next pod about {world.now.fromtimestamp(again, world.now.tzinfo):%Y-%m-%dT%H:%M:%SZ}" in message(world)
    replacement(world, name)
    world.reconcile()
    assert (world.condition("Reconciling"), message(world)) == ("Progressing", "train of M2 runs")


def test_the_second_eviction_begins_a_fresh_attempt() -> None:
    """The Job itself would wait for longer and longer."""
    world, name = running()
    evict(world, name)
    world.reconcile()
    replacement(world, name)
    world.reconcile()
    world.advance(20)
    evict(world, name)
    world.reconcile()
    assert (attempts(world, "1/train"), name in world.jobs) == (2, False)
    record = world.record("1/train")
    assert (record.state, record.disruptions, record.counted_failures, record.attempt) == ("Running", 2, 0, 2)
    world.settle()
    assert world.status.phase == "Succeeded"
    assert world.record("1/train").disruptions == 2


def test_shards_that_run_are_left_alone() -> None:
    world, name = running("1/generate", generation={"shards": 4})
    evict(world, name, 1)
    evict(world, name, 2)
    world.reconcile()
    assert attempts(world, "1/generate") == 1
    assert world.record("1/generate").disruptions == 2
    evict(world, name, 0)
    evict(world, name, 3)
    world.reconcile()
    assert (attempts(world, "1/generate"), world.record("1/generate").disruptions) == (2, 4)


def test_a_pod_on_its_way_out_may_commit_yet() -> None:
    world, name = running()
    evict(world, name)
    world.reconcile()
    replacement(world, name)
    world.pods[name] = [replace(world.pods[name][0], disrupted=True, deleting=True)]
    world.reconcile()
    assert (world.record("1/train").disruptions, attempts(world, "1/train")) == (2, 1)
    world.finish(name)
    world.settle()
    assert (world.status.phase, attempts(world, "1/train")) == ("Succeeded", 1)


def leave_behind(world: FakeCluster, job: str, index: int = 0) -> None:
    """The node stops to answer: the pod is deleted, and nobody says that it has ended."""
    world.pods[job] = [
        replace(pod, deleting=True, deleted_at=world.now, node="node-7") if pod.index == index else pod
        for pod in world.pods[job]
    ]


def test_a_lost_node_is_named_and_then_left() -> None:
    world, name = running()
    leave_behind(world, name)
    assert world.reconcile().requeue_after == 30
    assert world.condition("Reconciling") == "Progressing", "a kubelet may be a little late"
    world.advance(30)
    found = world.reconcile()
    assert (world.condition("Reconciling"), found.requeue_after) == ("NodeLost", 150)
    assert f"pod {world.pods[name][0].name}" in message(world)
    assert "node node-7" in message(world)
    assert world.events[-1] == "NodeLost"
    world.advance(150)
    world.reconcile()
    record = world.record("1/train")
    assert (record.attempt, record.counted_failures, record.last_failure.reason) == (2, 0, "NodeLost")
    assert name not in world.jobs
    world.settle()
    assert world.status.phase == "Succeeded"


def test_shards_on_other_nodes_end_before_the_lost_one_begins_anew() -> None:
    world, name = running("1/generate", generation={"shards": 2})
    leave_behind(world, name, 1)
    world.advance(1000)
    world.reconcile()
    assert (attempts(world, "1/generate"), world.condition("Reconciling")) == (1, "NodeLost")
    good = world._end(world.pods[name][0], world.stages.run(world.tasks[name], 0))
    world.pods[name] = [good, world.pods[name][1]]
    world.jobs[name] = replace(world.jobs[name], completed=(0,))
    world.reconcile()
    assert attempts(world, "1/generate") == 2
    assert world.missing_of(world.active()[0]) == (1,)
