"""When a report is made, what its Job is told, and that it neither delays nor fails anything."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from srlm_contract.spec.run import RunSpec
from srlm_contract.spec.tracking import TrackingSpec
from srlm_contract.status import Failure, PreflightStatus, RunStatus
from srlm_contract.tasks import MAX_TASK_BYTES, ArtifactRef, ReportParams
from srlm_operator.jobs.job import Work, render
from srlm_operator.names import REPORT_ANNOTATION
from srlm_operator.plan.report_task import report_params, shortened
from srlm_operator.plan.world import REPORT
from srlm_operator.values import Refusal
from support.builders import START, manifest_spec, run, settings, spec
from support.fake_cluster import FakeCluster, attempts, until_node
from support.stage_script import PINS, Ending, error

URI = "s3://bucket/prefix/runs/team/run/report.html"
SHORT: dict[str, Any] = {"iterations": 1, "evaluation": {"enabled": False}}


def asked(world: FakeCluster, token: str) -> None:
    world.annotations = {REPORT_ANNOTATION: token}


def reports(world: FakeCluster) -> int:
    return attempts(world, REPORT)


def quiet(world: FakeCluster) -> bool:
    """Whether nothing is written any more, however late it is."""
    writes = world.writes
    for _ in range(3):
        world.advance(100_000)
        world.reconcile()
    return world.writes == writes


def test_a_finished_run_is_ready_at_once_and_reported_once() -> None:
    world = FakeCluster(spec=spec(**SHORT))
    name = until_node(world, REPORT)
    assert (world.condition("Ready"), world.status.phase) == ("Succeeded", "Succeeded")
    assert world.status.report.uri == ""
    world.start_pods(name)
    world.finish(name)
    world.reconcile()
    assert (world.status.report.uri, world.status.report.message) == (URI, "")
    assert world.status.report.made_at == world.status.report_stage.finished_at
    world.settle()
    assert (reports(world), quiet(world)) == (1, True)
    params = world.stages.reports[0].params
    assert isinstance(params, ReportParams)
    assert params.pins == PINS
    assert params.status["phase"] == "Succeeded"
    assert [m["name"] for m in params.status["models"]] == ["M1", "M2"]


def test_each_end_has_its_report() -> None:
    world = FakeCluster(spec=spec(iterations=1))
    world.settle()
    first = world.status.report.end
    for iterations, count in ((2, 2), (1, 3)):
        world.edit(iterations=iterations)
        world.settle()
        assert (reports(world), quiet(world)) == (count, True)
    assert world.status.report.end == first


def test_trackers_hear_of_every_iteration_when_it_is_over() -> None:
    world = FakeCluster(spec=spec(iterations=2, tracking={"tensorboard": {}}))
    world.settle()
    told = [r.params.status.get("iteration", 0) for r in world.stages.reports if isinstance(r.params, ReportParams)]
    assert (told, world.status.phase, quiet(world)) == ([1, 2, 2], "Succeeded", True)
    world.edit(tracking=TrackingSpec.parse({"tensorboard": {}, "mlflow": {"uri": "https://mlflow.example"}}))
    world.settle()
    assert (reports(world), quiet(world)) == (4, True), "a tracker that is added later hears of it, too"


def test_a_person_asks_whenever_they_like() -> None:
    world = FakeCluster()
    training = until_node(world, "1/train")
    world.start_pods(training)
    asked(world, "one")
    world.reconcile()
    assert (world.status.report.token, world.status.phase) == ("one", "Running")
    report = next(name for name in world.active() if world.node_of(name) == REPORT)
    world.start_pods(report)
    world.finish(report)
    world.reconcile()
    assert world.stages.reports[0].params.status["stage"] == "train"
    assert (training in world.active(), world.status.report.uri) == (True, URI)
    world.reconcile()
    assert reports(world) == 1
    world.settle()
    assert (reports(world), world.status.report.token) == (2, "one")
    asked(world, "two")
    world.settle()
    assert (reports(world), world.status.report.token, quiet(world)) == (3, "two", True)
    world.annotations = {}
    world.settle()
    assert (reports(world), quiet(world)) == (3, True)
    assert world.annotations == {}


def test_a_newer_request_replaces_a_report_that_is_being_made() -> None:
    world = FakeCluster(spec=spec(**SHORT))
    old = until_node(world, REPORT)
    asked(world, "later")
    world.reconcile()
    assert old not in world.jobs
    new = world.active()[0]
    assert (world.node_of(new), new != old) == (REPORT, True)
    world.settle()
    assert (len(world.stages.reports), quiet(world)) == (1, True)


def test_before_preflight_a_report_is_possible_too() -> None:
    world = FakeCluster()
    until_node(world, "0/preflight")
    asked(world, "early")
    world.reconcile()
    name = next(name for name in world.active() if world.node_of(name) == REPORT)
    params = world.tasks[name].params
    assert isinstance(params, ReportParams)
    assert (params.pins, params.spec.iterations) == (None, 2)


@pytest.mark.parametrize("policy", ["Stop", "Hold"])
def test_a_gate_that_stops_the_run_is_reported_once(policy: str) -> None:
    world = FakeCluster(spec=spec(gates={"minPairs": 700, "onFailure": policy}))
    world.settle()
    assert world.status.phase == ("Held" if policy == "Hold" else "Failed")
    assert (reports(world), quiet(world)) == (1, True)
    assert world.stages.reports[0].params.status["iterations"][1]["gates"] == ["600 pairs, gates.minPairs is 700"]
    world.edit(gates=world.spec.gates.model_copy(update={"on_failure": "Continue"}))
    world.settle()
    assert (world.status.phase, reports(world)) == ("Succeeded", 2)


def test_held_at_every_gate_is_reported_at_every_gate() -> None:
    world = FakeCluster(spec=spec(gates={"minPairs": 700, "onFailure": "Hold"}))
    world.settle()
    world.annotations = {"selfrewarding.dev/continue": "M2"}
    world.settle()
    assert (world.status.phase, reports(world), quiet(world)) == ("Held", 2, True)


def test_rechecks_of_what_a_person_must_mend_come_to_the_same_end() -> None:
    world = FakeCluster()
    world.stages.fail("pairs", *[error(65, "TemplateNotUsable", f"try {n}") for n in range(4)])
    name = until_node(world, "1/pairs")
    world.finish(name)
    world.reconcile()
    assert (world.status.phase, world.condition("Stalled")) == ("Failed", "TemplateNotUsable")
    for _ in range(3):
        world.settle()
        world.advance(3601)
    assert attempts(world, "1/pairs") >= 3
    assert reports(world) == 1


@pytest.mark.parametrize(("code", "reason"), [(77, "StorageNotPermitted"), (77, "StorageNotFound")])
def test_without_storage_no_report_is_tried(code: int, reason: str) -> None:
    world = FakeCluster()
    world.stages.fail("pairs", error(code, reason))
    name = until_node(world, "1/pairs")
    world.finish(name)
    world.reconcile()
    assert (world.status.phase, reports(world), world.status.report.end) == ("Failed", 0, "")
    world.settle()
    assert (world.status.phase, reports(world)) == ("Failed", 0)


def test_a_run_that_never_began_has_nothing_to_report() -> None:
    world = FakeCluster()
    world.stages.fail("preflight", error(65, "InvalidSeedData"))
    world.settle()
    assert (world.status.phase, reports(world)) == ("Failed", 0)


def test_a_report_that_fails_leaves_the_run_succeeded() -> None:
    world = FakeCluster(spec=spec(**SHORT))
    world.stages.fail("report", *[Ending(1, "no plot for you")] * 3)
    world.settle()
    assert (reports(world), world.status.phase, world.condition("Ready")) == (3, "Succeeded", "Succeeded")
    assert "no plot for you" in world.status.report.message
    assert world.status.report_stage.state == "Failed"
    assert {"Crashed", "AttemptsExhausted"} <= set(world.events)
    assert quiet(world)
    asked(world, "again")
    world.settle()
    assert (world.status.report.uri, world.status.report.message) == (URI, "")


@pytest.mark.parametrize(("code", "reason"), [(65, "InputDamaged"), (77, "NotPermitted"), (64, "InvalidTask")])
def test_a_report_is_not_checked_again_and_repairs_nothing(code: int, reason: str) -> None:
    world = FakeCluster(spec=spec(**SHORT))
    until_node(world, REPORT)
    model = world.status.models[-1]
    artifact = ArtifactRef(stage="train", key=model.key, content_digest=model.content_digest)
    world.stages.fail("report", error(code, reason, "it is so", artifact if code == 65 else None))
    world.settle()
    assert (reports(world), world.status.report_stage.state) == (1, "Failed")
    assert "it is so" in world.status.report.message
    assert (world.record("1/train").repair, world.status.phase, quiet(world)) == (False, "Succeeded", True)


def test_a_report_waits_out_the_store_without_the_run() -> None:
    world = FakeCluster(spec=spec(**SHORT))
    world.stages.fail("report", error(75, "StorageUnavailable", "no answer"))
    name = until_node(world, REPORT)
    world.finish(name)
    world.reconcile()
    assert (world.status.report_stage.state, world.condition("Ready")) == ("Retrying", "Succeeded")
    assert "no answer" in world.status.report.message
    world.settle()
    assert (world.status.report.uri, world.status.report.message, reports(world)) == (URI, "", 2)


def test_what_a_report_waits_for_is_told_beside_the_conditions() -> None:
    world = FakeCluster(spec=spec(**SHORT))
    name = until_node(world, REPORT)
    world.pods[name] = [replace(p, unschedulable="0/3 nodes are available") for p in world.pods[name]]
    world.reconcile()
    assert world.status.report.message.startswith("Unschedulable: report: pod")
    assert [(c.type, c.status) for c in world.status.conditions] == [("Ready", "True")]


def test_a_refused_report_job_is_tried_again_without_a_word_on_conditions() -> None:
    probe = FakeCluster(spec=spec(**SHORT))
    name = until_node(probe, REPORT)
    world = FakeCluster(spec=spec(**SHORT))
    world.refuse[name] = Refusal("QuotaExceeded", "exceeded quota: jobs", START)
    for _ in range(60):
        if world.status.phase == "Succeeded":
            break
        world.step()
    world.refuse[name] = Refusal("QuotaExceeded", "exceeded quota: jobs", world.now)
    world.reconcile()
    assert (reports(world), world.status.report.message) == (0, "QuotaExceeded: report: exceeded quota: jobs")
    assert world.condition("Ready") == "Succeeded"
    world.refuse.clear()
    world.settle()
    assert (reports(world), world.status.report.message) == (1, "")


def test_suspension_stops_a_report_and_resuming_makes_it() -> None:
    world = FakeCluster(spec=spec(**SHORT))
    until_node(world, REPORT)
    world.edit(suspend=True)
    world.settle()
    asked(world, "while suspended")
    world.settle()
    assert (world.active(), len(world.stages.reports), quiet(world)) == ([], 0, True)
    world.edit(suspend=False)
    world.settle()
    assert (len(world.stages.reports), world.status.report.token) == (1, "while suspended")


def test_deletion_stops_a_report() -> None:
    world = FakeCluster(spec=spec(**SHORT, storage={"uri": "s3://bucket/prefix", "retention": "DeleteAll"}))
    name = until_node(world, REPORT)
    world.deleted_at = world.now
    world.reconcile()
    assert name not in world.jobs
    assert world.node_of(world.active()[0]) == "0/cleanup"
    world.settle()
    assert world.gone


def test_an_operator_that_dies_after_creating_the_job_adopts_it() -> None:
    world = FakeCluster(spec=spec(**SHORT))
    world.finish(until_node(world, "1/train"))
    world.reconcile(crash_after=1)
    assert (reports(world), world.status.report.end) == (1, "")
    world.settle()
    assert (reports(world), len(world.stages.reports), world.status.report.uri) == (1, 1, URI)


def test_budget_that_is_spent_stops_no_report() -> None:
    world = FakeCluster(spec=spec(budget={"tokens": 1}))
    world.settle()
    assert (world.condition("Stalled"), reports(world)) == ("BudgetExceeded", 1)
    assert (world.status.report.uri, quiet(world)) == (URI, True)


def longest() -> RunStatus:
    """More than a status ever holds: fifty iterations with all their details."""
    world = FakeCluster(spec=spec(iterations=1))
    world.settle()
    status = world.status
    stages = tuple(
        stage.model_copy(update={"statistics": {f"some{i}": 1234 + 1 / 3 for i in range(40)}})
        for stage in status.iterations[1].stages
    )
    failure = Failure(reason="Crashed", message="m" * 1000, at=status.started_at or "")
    stages = (stages[0].model_copy(update={"last_failure": failure}), *stages[1:])
    notes = tuple(status.conditions[0].model_copy(update={"type": kind, "message": "m" * 4096}) for kind in "abc")
    return status.model_copy(
        update={
            "models": tuple(status.models[0].model_copy(update={"name": f"M{t + 1}"}) for t in range(51)),
            "iterations": tuple(
                status.iterations[1].model_copy(update={"name": f"M{t + 1}", "stages": stages}) for t in range(51)
            ),
            "conditions": notes,
        }
    )


def task_bytes(spec_: RunSpec, status: RunStatus) -> int:
    work = Work(0, "report", "report", "k" * 24, report_params(spec_, status.preflight, status))
    job = render(run(status, spec_=spec_), spec_, work, 1, (), settings()).manifest
    env = job["spec"]["template"]["spec"]["containers"][0]["env"]
    return len(next(item["value"] for item in env if item["name"] == "SRLM_TASK").encode())


def test_the_longest_status_and_long_specs_fit_into_the_task() -> None:
    status = longest()
    assert task_bytes(spec(), status) < MAX_TASK_BYTES
    for kilobytes in (20, 40, 60, 75):
        text = "ü" * (kilobytes * 512)
        long = RunSpec.parse(manifest_spec(stages={"judge": {"engine": {"args": {"hf_overrides": text}}}}))
        assert kilobytes * 1024 < task_bytes(long, status) < MAX_TASK_BYTES


def test_pod_templates_stay_out_of_the_task() -> None:
    patch = {"metadata": {"annotations": {"note": "x" * 80_000}}}
    patched = RunSpec.parse(manifest_spec(podTemplate=patch, stages={"train": {"podTemplate": patch}}))
    params = report_params(patched, PreflightStatus(), RunStatus())
    assert "podTemplate" not in json.dumps(params.wire(defaults=False))


def test_what_is_cut_first() -> None:
    status = longest()
    whole = shortened(status, 10**9)
    assert "pins" not in whole["preflight"]
    assert "reportStage" not in whole
    sizes = [len(json.dumps(shortened(status, room))) for room in (60_000, 40_000, 20_000, 5_000, 0)]
    assert sizes == sorted(sizes, reverse=True)
    some = shortened(status, 40_000)
    assert len(json.dumps(some, separators=(",", ":"))) <= 40_000
    assert len(some["models"]) == len(some["iterations"]) == 51
    assert some["iterations"][50]["metrics"] == whole["iterations"][50]["metrics"]
