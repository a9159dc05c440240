"""Metrics of runs and of the operator: right figures, names as Prometheus wants them, bounded labels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from srlm_contract.reasons import STALLED
from srlm_contract.spec.policy import BudgetSpec
from srlm_contract.status import Condition, Failure, IterationStatus, RunStatus, StageStatus
from srlm_operator.metrics.operator import REASONS, STAGES, Metrics
from srlm_operator.metrics.runs import OTHER, PHASES, RunMetrics
from srlm_operator.values import Plan, Run
from support.builders import spec
from support.fake_cluster import FakeCluster
from support.stage_script import Ending, error

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def families(metrics: Metrics) -> list[Metric]:
    """What a scrape finds."""
    body, content_type = metrics.render()
    assert content_type.startswith("text/plain")
    return list(text_string_to_metric_families(body.decode()))


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    """One sample; None when there is none."""
    wanted = [s.value for f in families(metrics) for s in f.samples if s.name == name and s.labels == labels]
    assert len(wanted) <= 1
    return wanted[0] if wanted else None


def drive(world: FakeCluster, metrics: Metrics, steps: int = 200) -> None:
    """Reconcile until the run is done and nothing changes any more, as the operator would."""
    world.on_created, world.on_status = metrics.job_created, metrics.observe_plan
    for _ in range(steps):
        run = world.run()
        world.reconcile()
        if run.status == world.status and world.status.phase == "Succeeded":
            break
        for name in world.active()[:1]:
            world.start_pods(name)
            world.finish(name)
        world.advance(15)


def a_run(name: str = "run", *, uid: str = "", **changes: Any) -> Run:
    run = FakeCluster().run()
    return replace(run, name=name, uid=uid or name, **changes)


def test_a_run_is_counted() -> None:
    metrics, world = Metrics(), FakeCluster()
    world.stages.fail("train", Ending(1))
    drive(world, metrics)
    assert world.status.phase == "Succeeded"
    assert value(metrics, "srlm_runs", phase="Succeeded") == 1
    assert value(metrics, "srlm_jobs_created_total", stage="train") == 3
    assert value(metrics, "srlm_attempt_failures_total", stage="train", reason="Crashed") == 1
    assert value(metrics, "srlm_stage_retries_total", stage="train", reason="Crashed") == 1
    assert value(metrics, "srlm_preference_pairs_total") == 1200
    assert value(metrics, "srlm_tokens_total", stage="generate") == 18000
    assert value(metrics, "srlm_shards_done_total", stage="generate") == 4
    assert value(metrics, "srlm_judge_agreement_ratio_count") == 3
    assert value(metrics, "srlm_judge_parse_ratio_sum") == 3
    assert value(metrics, "srlm_stage_duration_seconds_count", stage="train") == 2


def test_figures_of_a_run_are_those_of_its_status() -> None:
    metrics = Metrics()
    world = FakeCluster(spec=spec(budget={"gpuSeconds": 7200, "tokens": 50_000}))
    drive(world, metrics)
    run = {"run_namespace": "team", "run": "run"}
    last = world.status.iterations[-1].metrics
    assert value(metrics, "srlm_run_phase", **run, phase="Succeeded") == 1
    assert value(metrics, "srlm_run_iteration", **run) == value(metrics, "srlm_run_iterations", **run) == 2
    assert value(metrics, "srlm_run_progress_ratio", **run) == 1
    assert value(metrics, "srlm_run_judge_agreement_ratio", **run) == last.judge_accuracy
    assert value(metrics, "srlm_run_judge_parse_ratio", **run) == last.parse_rate
    assert value(metrics, "srlm_run_length_growth_ratio", **run) == last.length_growth
    assert value(metrics, "srlm_run_win_ratio", **run) == last.win_rate
    assert value(metrics, "srlm_run_tokens", **run) == world.status.tokens > 0
    assert value(metrics, "srlm_run_tokens_limit", **run) == 50_000
    assert value(metrics, "srlm_run_gpu_seconds_limit", **run) == 7200
    assert value(metrics, "srlm_run_stalled", **run, reason="Held") is None


def test_a_restart_counts_nothing_twice() -> None:
    world = FakeCluster()
    before, after = Metrics(), Metrics()
    world.stages.fail("judge", error(75, "StorageUnavailable"))
    drive(world, before, 10)
    drive(world, after)
    assert world.status.phase == "Succeeded"
    whole, once = Metrics(), FakeCluster()
    once.stages.fail("judge", error(75, "StorageUnavailable"))
    drive(once, whole)
    counted = [f.name for f in families(whole) if f.type == "counter" and f.name.startswith("srlm_")]
    for name in counted:
        parts = _sum(before, name), _sum(after, name)
        assert sum(parts) == _sum(whole, name), name
    assert _sum(before, "srlm_jobs_created") > 0 < _sum(after, "srlm_jobs_created")
    idle = Metrics()
    drive(world, idle, 5)
    assert all(_sum(idle, name) == 0 for name in counted), "a finished run is no news to a new process"
    assert value(idle, "srlm_runs", phase="Succeeded") == 1


def _sum(metrics: Metrics, family: str) -> float:
    return sum(s.value for f in families(metrics) if f.name == family for s in f.samples)


def test_storage_errors_of_pods_add_up() -> None:
    metrics, world = Metrics(), FakeCluster()
    stage = StageStatus(name="judge", stage="judge", state="Running", key="k", attempt=1, storage_errors=2)
    more = stage.model_copy(update={"storage_errors": 9})
    run = replace(world.run(), status=RunStatus(iterations=(IterationStatus(name="M1", stages=(stage,)),)))
    metrics.observe_plan(run, Plan(status=RunStatus(iterations=(IterationStatus(name="M1", stages=(more,)),))))
    assert value(metrics, "srlm_storage_request_errors_total", stage="judge") == 7


def test_pods_tell_of_storage_errors_whether_they_succeed_or_fail() -> None:
    metrics, world = Metrics(), FakeCluster()
    world.stages.fail("data", Ending(75, '{"stage":"data","storageErrors":5,"error":{"reason":"X","message":"m"}}'))
    world.stages.storage_errors = 1
    drive(world, metrics)
    assert value(metrics, "srlm_storage_request_errors_total", stage="data") == 6
    assert value(metrics, "srlm_storage_request_errors_total", stage="generate") == 4, "two iterations, two shards"


def test_a_deleted_run_takes_its_gauges_along() -> None:
    metrics, world = Metrics(), FakeCluster()
    drive(world, metrics, 3)
    assert value(metrics, "srlm_runs", phase="Running") == 1
    assert "team" in metrics.render()[0].decode()
    metrics.forget(("team", "run"))
    assert value(metrics, "srlm_runs", phase="Running") == 0
    assert "team" not in metrics.render()[0].decode()


def test_only_so_many_runs_have_gauges_of_their_own() -> None:
    metrics = Metrics(runs=3)
    for n in range(10):
        phase = "Succeeded" if n >= 8 else "Running"
        metrics.runs.note(a_run(f"r{n}"), RunStatus(phase=phase, started_at=f"2026-01-0{n + 1}T00:00:00Z"))
    assert value(metrics, "srlm_runs", phase="Running") == 8
    assert value(metrics, "srlm_runs_without_series") == 7
    named = {s.labels["run"] for f in families(metrics) for s in f.samples if "run" in s.labels}
    assert named == {"r7", "r6", "r5"}, "the youngest unfinished ones"
    metrics.forget(("team", "r7"))
    named = {s.labels["run"] for f in families(metrics) for s in f.samples if "run" in s.labels}
    assert named == {"r6", "r5", "r4"}


def test_none_has_if_none_may() -> None:
    metrics = Metrics(runs=0)
    metrics.runs.note(a_run(), RunStatus(phase="Running"))
    assert not any("run" in s.labels for f in families(metrics) for s in f.samples)
    assert value(metrics, "srlm_runs", phase="Running") == 1


def test_progress_is_dated_from_status_and_from_what_is_seen_to_move() -> None:
    now = [5_000_000_000.0]
    runs = RunMetrics(10, clock=lambda: now[0])
    stage = StageStatus(name="judge", stage="judge", state="Running", attempt_started_at="2026-01-01T00:00:00Z")
    status = RunStatus(phase="Running", iterations=(IterationStatus(name="M1", stages=(stage,)),))

    def last() -> list[float]:
        return [
            s.value for f in runs.collect() if f.name == "srlm_run_last_progress_timestamp_seconds" for s in f.samples
        ]

    runs.note(a_run(), RunStatus())
    assert last() == [], "nothing has happened yet"
    runs.note(a_run(), status)
    runs.forget(("team", "run"))
    runs.note(a_run(), status)
    assert last() == [1767225600.0], "after a restart: what status says"
    now[0] += 60
    moved = status.progress.model_copy(update={"message": "judge of M1: 20/100 verdicts"})
    runs.note(a_run(), status.model_copy(update={"progress": moved}))
    assert last() == [now[0]]
    now[0] += 60
    runs.note(a_run(), status.model_copy(update={"progress": moved}))
    assert last() == [now[0] - 60], "looking again is no progress"
    runs.note(a_run(uid="another"), status)
    assert last() == [1767225600.0], "a new run of an old name has its own"


def test_labels_are_bounded() -> None:
    """Whatever a stage image says, the values of labels are ours."""
    metrics = Metrics()
    failure = Failure(reason="x" * 100, message="", at="2026-01-01T00:00:00Z")
    stage = StageStatus(name="judge", stage="judge", state="Retrying", attempt=1, last_failure=failure)
    condition = Condition(type="Stalled", status="True", reason="Surprise", last_transition_time="2026-01-01T00:00:00Z")
    status = RunStatus(iterations=(IterationStatus(name="M1", stages=(stage,)),), conditions=(condition,))
    metrics.observe_plan(a_run(), Plan(status=status))
    assert value(metrics, "srlm_attempt_failures_total", stage="judge", reason=OTHER) == 1
    assert value(metrics, "srlm_runs_stalled", reason=OTHER) == 1
    world = FakeCluster()
    world.stages.fail("train", Ending(1), error(65, "NoPairs"))
    drive(world, metrics)
    bounds = {"stage": {*STAGES}, "reason": {*REASONS, *STALLED, OTHER}, "phase": {*PHASES}}
    free = {"le", "version", "run", "run_namespace"}
    for family in families(metrics):
        for sample in family.samples:
            for label, found in sample.labels.items():
                assert label in free or found in bounds[label], (sample.name, label, found)


UNITS = ("seconds", "bytes", "ratio", "info")
#: Counts of things: their unit is the thing itself.
COUNTS = (
    "tokens", "shards", "pairs", "jobs", "runs", "retries", "failures", "errors", "writes", "reused", "created",
    "deleted", "done", "iteration", "iterations", "length", "progress", "series", "silent", "leader", "phase",
    "stalled", "limit",
)  # fmt: skip


def lint(family: Metric) -> list[str]:
    """What `promtool check metrics` and the naming guide would say."""
    name, problems = family.name, []
    if not family.documentation or not family.documentation.endswith((".", ")")):
        problems.append("HELP is missing or no sentence")
    if family.type == "counter":
        name = name.removesuffix("_total")
        if any(not s.name.endswith("_total") for s in family.samples):
            problems.append("a counter must end in _total")
    elif name.endswith(("_total", "_count", "_sum", "_bucket")):
        problems.append(f"a {family.type} must not end so")
    if family.type in name.split("_"):
        problems.append("the name must not repeat the type")
    if any(part in ("milliseconds", "minutes", "hours", "percent", "kilobytes", "ms") for part in name.split("_")):
        problems.append("not a base unit")
    if not name.endswith((*UNITS, *COUNTS)):
        problems.append("no unit at the end")
    if family.type == "histogram" and not name.endswith(("_seconds", "_ratio")):
        problems.append("a histogram needs a unit")
    labels = {label for sample in family.samples for label in sample.labels}
    if labels & {"namespace", "job", "instance", "pod", "service", "container", "endpoint"}:
        problems.append("a label that Prometheus adds itself")
    return problems


def test_names_follow_prometheus_practice() -> None:
    metrics, world = Metrics(), FakeCluster()
    world.stages.fail("train", Ending(1))
    drive(world, metrics)
    metrics.api_write("post", "jobs")
    metrics.api_error("post", "Conflict")
    metrics.reconcile_failed(ValueError())
    metrics.watch_machinery(queued=lambda: 1, active=lambda: 2, problem=lambda: "", watches=lambda: {"pods": 5.0})
    ours = [family for family in families(metrics) if family.name.startswith("srlm_")]
    assert len(ours) > 40
    found = {family.name: problems for family in ours if (problems := lint(family))}
    assert found == {}
    others = {family.name.split("_")[0] for family in families(metrics)} - {"srlm"}
    assert others == {"process"}


@pytest.mark.parametrize(
    ("name", "kind", "says"),
    [
        ("srlm_things_ms", "gauge", "base unit"),
        ("srlm_things_total", "gauge", "must not end so"),
        ("srlm_speed", "gauge", "no unit"),
        ("srlm_gauge_seconds", "gauge", "repeat the type"),
        ("srlm_share_percent", "gauge", "base unit"),
    ],
)
def test_the_lint_sees_bad_names(name: str, kind: str, says: str) -> None:
    assert any(says in problem for problem in lint(Metric(name, "Help.", kind)))


def test_openmetrics_is_spoken_too() -> None:
    body, content_type = Metrics().render("application/openmetrics-text; version=1.0.0; charset=utf-8")
    assert content_type.startswith("application/openmetrics-text")
    assert "srlm_runs" in {family.name for family in parse_openmetrics(body.decode())}


def test_budget_default_has_no_limit() -> None:
    metrics = Metrics()
    run = a_run()
    assert run.spec is not None
    assert run.spec.budget == BudgetSpec()
    metrics.runs.note(run, RunStatus(phase="Running"))
    assert value(metrics, "srlm_run_gpu_seconds_limit", run_namespace="team", run="run") is None
