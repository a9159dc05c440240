"""Prometheus metrics. Labels have a bounded set of values: never a run's or a Job's name."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric

from srlm_contract.status import IterationMetrics, RunStatus, StageStatus

from .times import parse
from .values import CreateJob, DeleteJob, Plan, Run
from .world import Key

_MINUTES = (5, 15, 60, 300, 900, 3600, 4 * 3600, 12 * 3600, 24 * 3600, 72 * 3600)
_RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
PHASES = ("Pending", "Running", "Suspended", "Held", "Succeeded", "Failed")


class Metrics:
    """Everything the operator counts, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        self._reconcile = Histogram(
            "srlm_reconcile_duration_seconds",
            "Time of one reconcile.",
            registry=r,
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1, 2.5, 5, 10),
        )
        self._jobs = Counter("srlm_jobs_created_total", "Jobs created.", ["stage"], registry=r)
        self._deleted = Counter("srlm_jobs_deleted_total", "Jobs deleted by the operator.", registry=r)
        self._failures = Counter(
            "srlm_attempt_failures_total", "Failed attempts by cause.", ["stage", "reason"], registry=r
        )
        self._duration = Histogram(
            "srlm_stage_duration_seconds", "First start to commit.", ["stage"], registry=r, buckets=_MINUTES
        )
        self._reused = Counter("srlm_stages_reused_total", "Stages whose artifact existed.", ["stage"], registry=r)
        self._gpu = Counter("srlm_gpu_seconds_total", "GPU-seconds of ended attempts.", ["stage"], registry=r)
        self._tokens = Counter("srlm_tokens_total", "Tokens of committed stages.", ["stage"], registry=r)
        self._pairs = Counter("srlm_preference_pairs_total", "Preference pairs made.", registry=r)
        self._shards = Counter("srlm_shards_done_total", "Shards committed.", ["stage"], registry=r)
        self._storage = Counter(
            "srlm_storage_errors_total", "Attempts that ended for the object store.", ["reason"], registry=r
        )
        self._parse_rate = Histogram(
            "srlm_judge_parse_rate", "Parse rate of a model's verdicts.", registry=r, buckets=_RATIOS
        )
        self._agreement = Histogram(
            "srlm_judge_accuracy", "Judge agreement with humans, per model.", registry=r, buckets=_RATIOS
        )
        self._growth = Histogram(
            "srlm_length_growth", "Answer length relative to the model before.", registry=r,
            buckets=(0.5, 0.8, 1, 1.2, 1.5, 2, 3, 5),
        )  # fmt: skip
        self.api_writes = Counter("srlm_api_writes_total", "Writes to the API.", ["verb", "resource"], registry=r)
        self.last_event = Gauge("srlm_watch_last_event_timestamp_seconds", "Time of the last event.", registry=r)
        self.watch_silent = Gauge("srlm_watch_silent", "1 when events are known to be missing.", registry=r)
        self.leader = Gauge("srlm_leader", "1 while this process leads.", registry=r)
        self._statuses: dict[Key, RunStatus] = {}
        r.register(_Runs(self._statuses))

    def reconciled(self, seconds: float) -> None:
        self._reconcile.observe(seconds)

    def forget(self, key: Key) -> None:
        self._statuses.pop(key, None)

    def observe_plan(self, run: Run, plan: Plan) -> None:
        """Count what an applied plan changed."""
        for action in plan.actions:
            if isinstance(action, CreateJob):
                self._jobs.labels(action.manifest["metadata"]["labels"]["selfrewarding.dev/stage"]).inc()
            elif isinstance(action, DeleteJob):
                self._deleted.inc()
        if plan.status is None:
            return
        self._statuses[(run.namespace, run.name)] = plan.status
        before = {_identity(n, s): s for n, s in _stages(run.status)}
        for number, stage in _stages(plan.status):
            old = before.get(_identity(number, stage))
            self._stage(old, stage)
            ended = stage.state == "Succeeded" and (old is None or old.state != "Succeeded")
            if ended and stage.stage == "evaluate" and not stage.reused:
                self._model(plan.status.iterations[number].metrics)

    def _stage(self, old: StageStatus | None, new: StageStatus) -> None:
        spent = new.gpu_seconds - (old.gpu_seconds if old else 0)
        if spent > 0:
            self._gpu.labels(new.stage).inc(spent)
        failure = new.last_failure
        if failure is not None and (old is None or old.last_failure != failure):
            self._failures.labels(new.stage, failure.reason).inc()
            if failure.exit_code in (75, 77):
                self._storage.labels(failure.reason).inc()
        if new.state != "Succeeded" or (old is not None and old.state == "Succeeded"):
            return
        if new.reused:
            self._reused.labels(new.stage).inc()
            return
        began, ended = parse(new.started_at), parse(new.finished_at)
        if began is not None and ended is not None:
            self._duration.labels(new.stage).observe((ended - began).total_seconds())
        self._tokens.labels(new.stage).inc(max(0.0, new.statistics.get("tokens", 0)))
        self._shards.labels(new.stage).inc(new.shards)
        if new.stage == "pairs":
            self._pairs.inc(max(0.0, new.statistics.get("pairs", 0)))

    def _model(self, metrics: IterationMetrics) -> None:
        """Figures of a model that has just been evaluated."""
        for histogram, value in (
            (self._parse_rate, metrics.parse_rate),
            (self._agreement, metrics.judge_accuracy),
            (self._growth, metrics.length_growth),
        ):
            if value is not None:
                histogram.observe(value)

    def render(self) -> bytes:
        """The exposition text."""
        return generate_latest(self.registry)


class _Runs:
    """Runs by phase, and those that are stalled, counted when asked."""

    def __init__(self, statuses: dict[Key, RunStatus]) -> None:
        self._statuses = statuses

    def collect(self) -> Iterable[Metric]:
        phases: Tally[str] = Tally(status.phase for status in self._statuses.values())
        family = GaugeMetricFamily("srlm_runs", "Runs by phase.", labels=["phase"])
        for phase in PHASES:
            family.add_metric([phase], phases.get(phase, 0))
        yield family
        stalled = Tally(
            condition.reason
            for status in self._statuses.values()
            for condition in status.conditions
            if condition.type == "Stalled"
        )
        family = GaugeMetricFamily("srlm_runs_stalled", "Stalled runs by reason.", labels=["reason"])
        for reason, count in stalled.items():
            family.add_metric([reason], count)
        yield family


def _stages(status: RunStatus) -> list[tuple[int, StageStatus]]:
    found = [(n, stage) for n, iteration in enumerate(status.iterations) for stage in iteration.stages]
    return found + ([(0, status.preflight_stage)] if status.preflight_stage else [])


def _identity(number: int, stage: StageStatus) -> tuple[int, str, str]:
    return (number, stage.name, stage.key)
