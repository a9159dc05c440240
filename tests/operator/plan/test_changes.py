"""Spec edits, suspension, gates, budget and deletion while a run goes on."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

import pytest

from srlm_contract.spec.marks import PreflightIgnores
from srlm_contract.spec.pods import ResourceRequirements
from srlm_contract.spec.run import RunSpec
from srlm_contract.status import RunStatus
from srlm_contract.tasks import CleanupParams
from srlm_operator.names import FINALIZER
from srlm_operator.plan.plan import plan
from srlm_operator.plan.preflight import preflight_key
from srlm_operator.values import Plan, Refusal
from support.builders import spec
from support.fake_cluster import FakeCluster, attempts, until_node
from support.stage_script import Ending, error


def dpo_beta(s: RunSpec, beta: float) -> dict[str, object]:
    return {"training": s.training.model_copy(update={"dpo": s.training.dpo.model_copy(update={"beta": beta})})}


def more_memory(s: RunSpec) -> dict[str, object]:
    train = s.stages.train.model_copy(
        update={"resources": ResourceRequirements(limits={"memory": "80Gi", "nvidia.com/gpu": 8})}
    )
    return {"stages": s.stages.model_copy(update={"train": train})}


def test_changed_key_stops_the_job_and_keeps_what_did_not_change() -> None:
    world = FakeCluster()
    name = until_node(world, "1/train")
    world.start_pods(name)
    world.edit(**dpo_beta(world.spec, 0.3))
    world.reconcile()
    assert name not in world.jobs
    assert world.node_of(world.active()[0]) == "0/preflight"
    world.settle()
    assert world.status.phase == "Succeeded"
    assert world.stages.ran.count("1/judge") == 1
    assert world.record("1/train").counted_failures == 0


def test_unchanged_running_job_goes_on_through_a_spec_change() -> None:
    world = FakeCluster()
    name = until_node(world, "1/generate")
    world.start_pods(name)
    world.edit(**dpo_beta(world.spec, 0.3))
    world.reconcile()
    assert name in world.jobs
    world.settle()
    assert attempts(world, "1/generate") == 1


def test_pod_settings_replace_a_pending_job_at_once_and_spare_a_healthy_one() -> None:
    world = FakeCluster()
    pending = until_node(world, "1/train")
    world.edit(**more_memory(world.spec))
    world.reconcile()
    assert pending not in world.jobs
    replaced = world.active()[0]
    assert (world.node_of(replaced), world.record("1/train").counted_failures) == ("1/train", 0)
    world.start_pods(replaced)
    world.edit(stages=spec().stages)
    world.reconcile()
    assert replaced in world.jobs
    world.settle()
    assert attempts(world, "1/train") == 2


def test_suspend_stops_keeps_and_resumes_without_counting() -> None:
    world = FakeCluster()
    name = until_node(world, "1/train")
    world.start_pods(name)
    world.edit(suspend=True)
    world.reconcile()
    assert world.active() == []
    assert (world.status.phase, world.condition("Suspended")) == ("Suspended", "Suspended")
    assert world.condition("Reconciling") == world.condition("Stalled") == ""
    writes = world.writes
    world.advance(5000)
    world.reconcile()
    assert world.writes == writes
    world.edit(suspend=False)
    world.settle()
    assert world.status.phase == "Succeeded"
    record = world.record("1/train")
    assert (record.attempt, record.counted_failures) == (2, 0)
    assert world.stages.ran.count("1/judge") == 1


def test_job_that_ends_while_suspending_is_not_lost() -> None:
    world = FakeCluster()
    name = until_node(world, "1/train")
    world.finish(name)
    world.edit(suspend=True)
    world.reconcile()
    assert world.record("1/train").state == "Succeeded"


@pytest.mark.parametrize(
    ("gates", "statistics"),
    [
        ({"minPairs": 601}, {}),
        ({"minParseRate": 0.9}, {"judge": {"judged": 5, "verdicts": 10, "parsed": 5}}),
        ({"maxTieRate": 0.05}, {}),
    ],
)
def test_gate_before_training_stops_and_passes_once_lowered(
    gates: dict[str, float], statistics: dict[str, dict[str, float]]
) -> None:
    world = FakeCluster(spec=spec(gates=gates))
    world.stages.statistics = statistics
    world.settle()
    assert (world.condition("Stalled"), world.status.phase) == ("GateFailed", "Failed")
    assert attempts(world, "1/train") == 0
    assert world.status.iterations[1].gates
    world.edit(gates=spec(gates={"minPairs": 1, "minParseRate": 0.1}).gates)
    world.settle()
    assert world.status.phase == "Succeeded"
    assert attempts(world, "0/preflight") == 1  # gates are nothing that preflight checks


def test_gate_after_evaluation_stops_before_the_next_iteration() -> None:
    world = FakeCluster(spec=spec(gates={"minWinRate": 0.6}))
    world.stages.statistics = {"0/evaluate": {"judgeAccuracy": 0.6}}  # M1 has nobody to win against
    world.settle()
    assert world.condition("Stalled") == "GateFailed"
    assert world.status.current_model == "M2"
    assert attempts(world, "2/prompts") == 0


@pytest.mark.parametrize(
    ("gate", "measured", "says"),
    [
        ({"minWinRate": 0.1}, {"judgeAccuracy": 0.6}, "win rate could not be measured, gates.minWinRate is 0.1"),
        ({"minJudgeAccuracy": 0.1}, {"winRate": 0.6}, "judge accuracy could not be measured, gates.minJudgeAccuracy"),
    ],
)
def test_a_gate_on_what_could_not_be_measured_is_missed(
    gate: dict[str, float], measured: dict[str, float], says: str
) -> None:
    """No comparison could be read, or no held-out answer got a score."""
    world = FakeCluster(spec=spec(gates=gate))
    world.stages.statistics = {"1/evaluate": measured}
    world.settle()
    assert world.condition("Stalled") == "GateFailed"
    assert attempts(world, "2/prompts") == 0
    assert any(text.startswith(says) for text in world.status.iterations[1].gates)


def test_hold_is_released_by_annotation() -> None:
    world = FakeCluster(spec=spec(gates={"minPairs": 601, "onFailure": "Hold"}))
    world.settle()
    assert (world.condition("Stalled"), world.status.phase) == ("Held", "Held")
    world.annotations = {"selfrewarding.dev/continue": "M2"}
    world.settle()
    assert world.status.current_model == "M2"
    assert world.condition("Stalled") == "Held"  # M3 is another matter
    world.annotations = {"selfrewarding.dev/continue": "M2, M3"}
    world.settle()
    assert world.status.phase == "Succeeded"


def test_continue_notes_the_gate_and_goes_on() -> None:
    world = FakeCluster(spec=spec(gates={"minPairs": 601, "onFailure": "Continue"}))
    world.settle()
    assert world.status.phase == "Succeeded"
    assert "minPairs" in world.status.iterations[1].gates[0]


def test_budget_stops_and_goes_on_when_raised() -> None:
    world = FakeCluster(spec=spec(budget={"tokens": 5000}))
    world.settle()
    assert world.condition("Stalled") == "BudgetExceeded"
    assert world.active() == []
    world.edit(budget=spec().budget)
    world.settle()
    assert world.status.phase == "Succeeded"


def test_gpu_budget_stops_a_running_job() -> None:
    world = FakeCluster(spec=spec(budget={"gpuSeconds": 100}))
    name = until_node(world, "0/sft-ift")
    world.pods[name] = [replace(p, phase="Running", started_at=world.now, gpus=8) for p in world.pods[name]]
    assert world.reconcile().requeue_after == pytest.approx(12.5, abs=1)
    world.advance(13)
    world.reconcile()
    assert [world.node_of(name) for name in world.active()] == ["0/report"]
    assert world.condition("Stalled") == "BudgetExceeded"
    assert world.status.gpu_seconds == 104


def test_rounds_until_enough_pairs() -> None:
    preferences = {"minYield": {"pairs": 700, "maxRounds": 3}}
    world = FakeCluster(spec=spec(iterations=1, preferences=preferences))
    world.stages.statistics = {"pairs-r2": {"pairs": 1200, "tieRate": 0.1}}
    world.settle()
    assert world.status.phase == "Succeeded"
    nodes = [world.node_of(name) for name in world.created]
    assert "1/pairs-r2" in nodes
    assert "1/pairs-r3" not in nodes
    assert world.status.iterations[1].metrics.pairs == 1200
    assert world.status.iterations[1].metrics.prompts == 2000


def test_deletion_without_retention_needs_no_finalizer() -> None:
    world = FakeCluster()
    until_node(world, "1/train")
    assert world.finalizers == ()
    world.deleted_at = world.now
    writes = world.writes
    world.reconcile()
    assert world.writes == writes


def deleting(retention: str = "DeleteAll") -> FakeCluster:
    storage = {"uri": "s3://bucket/prefix", "retention": retention}
    world = FakeCluster(spec=spec(storage=storage))
    until_node(world, "1/train")
    assert world.finalizers == (FINALIZER,)
    world.deleted_at = world.now
    return world


def test_deletion_cleans_up_then_lets_go() -> None:
    world = deleting()
    world.reconcile()
    assert [world.node_of(name) for name in world.active()] == ["0/cleanup"]
    assert world.condition("Reconciling") == "Deleting"
    for _ in range(3):
        world.reconcile()
    world.finish(world.active()[0])
    world.reconcile()
    assert world.gone
    assert "JobGone" not in world.events, "the operator deleted that Job itself"


@pytest.mark.parametrize("choose", [False, True])
def test_clean_up_is_told_which_models_are_no_results(choose: bool) -> None:
    """The judge before M1; what the early stopping chose from."""
    more: dict[str, Any] = {"training": {"choose": {"enabled": True}}} if choose else {}
    world = FakeCluster(spec=spec(iterations=1, storage={"uri": "s3://b/p", "retention": "DeleteIntermediate"}, **more))
    world.settle()
    world.deleted_at = world.now
    world.reconcile()
    params = world.tasks[world.active()[0]].params
    assert isinstance(params, CleanupParams)
    nodes = ["0/sft-ift", "1/train"] if choose else ["0/sft-ift"]
    assert params.intermediate == tuple(sorted(world.record(node).key for node in nodes))


def test_deletion_gives_up_after_its_deadline() -> None:
    world = deleting()
    world.stages.fail("cleanup", *[error(75, "StorageUnavailable")] * 1000)
    for _ in range(100):
        if world.gone:
            break
        found = world.reconcile()
        for name in world.active():
            world.finish(name)
        if not world.active():
            world.advance(found.requeue_after or 1)
    assert world.gone
    assert (world.now - world.deleted_at).total_seconds() < 700  # type: ignore[operator]  # set by deleting()
    assert "CleanupFailed" in world.events


def test_deletion_in_a_terminating_namespace_lets_go() -> None:
    world = deleting()
    world.refuse = {"x": Refusal("Forbidden", "is being terminated", world.now, terminating=True)}
    world.reconcile()
    assert world.gone
    assert world.events[-1] == "CleanupSkipped"


def test_changing_retention_moves_the_finalizer() -> None:
    world = FakeCluster()
    world.reconcile()
    world.edit(storage=world.spec.storage.model_copy(update={"retention": "DeleteAll"}))
    world.reconcile()
    assert world.finalizers == (FINALIZER,)
    world.edit(storage=world.spec.storage.model_copy(update={"retention": "Retain"}))
    world.reconcile()
    assert world.finalizers == ()


def test_crash_after_every_write_changes_nothing_but_time() -> None:
    calm = FakeCluster(spec=spec(iterations=1))
    calm.settle()
    digests = [(m.name, m.content_digest) for m in calm.status.models]
    for crash_after in range(5):
        world = FakeCluster(spec=spec(iterations=1))
        world.stages.fail("pairs", Ending(1))
        for _ in range(200):
            world.reconcile(crash_after=crash_after)
            if world.status.phase == "Succeeded":
                break
            world.reconcile()
            for name in world.active():
                world.start_pods(name)
                world.finish(name)
            world.advance(15)
        world.settle()
        assert [(m.name, m.content_digest) for m in world.status.models] == digests
        assert len(world.created) == len(set(world.created)) == len(calm.created) + 1


def test_a_preflight_looks_at_sizes_again_only_where_the_memory_of_gpus_is_known() -> None:
    def key(**sections: Any) -> str:
        body = {"baseModel": {"uri": "hf://a/b"}, "seedData": {"uri": "hf://a/c"}, **sections}
        return preflight_key(RunSpec.parse(body), None)

    two = {"nodes": 2}
    assert key() == key(training=two) == key(scheduling={"queueName": "all"})
    known = {"gpuMemory": "80Gi"}
    assert len({key(), key(scheduling=known), key(scheduling=known, training=two)}) == 3
    mig = {"generate": {"resources": {"limits": {"nvidia.com/mig-1g.10gb": 1}}}}
    plain = {"generate": {"resources": {"limits": {"nvidia.com/gpu": 1}}}}
    assert key(stages=plain) == key() != key(stages=mig)


class Grown(RunSpec):
    """The spec of a later version: one field that preflight looks at, and one that it does not."""

    looked_at: int = 0
    ignored: Annotated[int, PreflightIgnores()] = 0


def test_a_new_field_is_looked_at_by_preflight_unless_it_is_marked() -> None:
    body = {"baseModel": {"uri": "hf://a/b"}, "seedData": {"uri": "hf://a/c"}}
    before = preflight_key(RunSpec.parse(body), None)
    assert preflight_key(Grown.parse(body), None) == before
    assert preflight_key(Grown.parse({**body, "ignored": 1}), None) == before
    assert preflight_key(Grown.parse({**body, "lookedAt": 1}), None) != before


def as_an_older_version_named_it(world: FakeCluster, name: str) -> str:
    """The Job, its pods and what status says of it under the name that Jobs had before."""
    old = "srr-run-0123456789-a1"
    world.jobs[old] = replace(world.jobs.pop(name), name=old)
    world.tasks[old] = world.tasks.pop(name)
    world.pods[old] = [replace(pod, name=pod.name.replace(name, old), job=old) for pod in world.pods.pop(name)]
    world.created[world.created.index(name)] = old
    world.status = RunStatus.model_validate_json(world.status.model_dump_json(by_alias=True).replace(name, old))
    return old


@pytest.mark.parametrize("node", ["0/preflight", "1/generate", "1/train"])
@pytest.mark.parametrize("written", [True, False])
def test_a_job_with_the_name_of_an_older_version_goes_on(node: str, written: bool) -> None:
    """written: whether that version had written its start into status before it ended."""
    world = FakeCluster(spec=spec(iterations=1))
    while node not in map(world.node_of, world.active()):
        for name in world.active():
            world.start_pods(name)
            world.finish(name)
        before = world.status
        world.reconcile()
    [name] = world.active()
    if not written:
        world.status = before
    old = as_an_older_version_named_it(world, name)
    world.reconcile()
    assert world.active() == [old]
    world.settle()
    assert (world.status.phase, attempts(world, node)) == ("Succeeded", 1)


@pytest.mark.parametrize("spec_error", ["", "spec.x: unknown"])
def test_a_run_that_somebody_else_carries_out_is_left_alone(spec_error: str) -> None:
    world = FakeCluster()
    theirs = replace(world.run(), others=True, spec_error=spec_error, spec=None if spec_error else world.spec)
    deleted = replace(theirs, deleted_at=world.now, finalizers=(FINALIZER,))
    for found in (theirs, deleted):
        assert plan(found, world.observed(), world.now, world.settings) == Plan()


@pytest.mark.parametrize("state", ["Active", "Suspended", "Complete"])
def test_a_job_that_somebody_else_took_over_is_refused_by_name_and_not_repeated(state: Any) -> None:
    world = FakeCluster()
    name = until_node(world, "1/train")
    manager = "kueue.x-k8s.io/multikueue"
    world.jobs[name] = replace(world.jobs[name], managed_by=manager, state=state)
    world.settle()
    stalled = next(c for c in world.status.conditions if c.type == "Stalled")
    assert stalled.reason == "ManagedElsewhere"
    assert f"Job {name} was taken over by {manager}" in stalled.message
    assert "spec.managedBy" in stalled.message
    assert (name in world.jobs, attempts(world, "1/train")) == (False, 1)
    world.advance(86400 * 7)
    world.settle()
    assert attempts(world, "1/train") == 1
