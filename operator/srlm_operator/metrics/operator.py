"""Prometheus metrics of the operator: what it did, what stages used, and how its own machinery is.

Counters and histograms count what *this process* wrote to a run's status, each change once: they begin at 0 with
every start, and what an earlier process wrote is not counted again. A change whose write was answered by nobody
(the operator died, the connection broke) may be missing; none is counted twice. Labels have bounded sets of values;
only the gauges of `run_metrics` name runs, and only so many of them as the settings say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import version

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from srlm_contract.reasons import FAILURES, STALLED, WAITING
from srlm_contract.stages import STAGES
from srlm_contract.status import Failure, IterationMetrics, RunStatus, StageStatus
from srlm_operator.cluster.index import Key
from srlm_operator.names import LABEL_STAGE
from srlm_operator.times import parse
from srlm_operator.values import CreateJob, Plan, Run

from .runs import OTHER, RunMetrics

#: Values of the label `reason` of failed attempts; anything else a stage may say is `Other`.
REASONS = frozenset({*FAILURES, *STALLED, *WAITING})
_MINUTES = (5, 15, 60, 300, 900, 3600, 4 * 3600, 12 * 3600, 24 * 3600, 72 * 3600)
_RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
_GROWTH = (0.5, 0.8, 1, 1.2, 1.5, 2, 3, 5)
_RECONCILE = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1, 2.5, 5, 10)

disable_created_metrics()  # type: ignore[no-untyped-call]  # prometheus_client leaves it without annotations


class Metrics:
    """Everything the operator measures, in a registry of its own.

    runs: how many runs have gauges of their own at most.
    """

    def __init__(self, runs: int = 200) -> None:
        r = self.registry = CollectorRegistry()
        self.runs = RunMetrics(runs)
        r.register(self.runs)
        ProcessCollector(registry=r)
        Gauge("srlm_build_info", "Always 1; the label says which version runs.", ["version"], registry=r).labels(
            version("self-rewarding-operator")
        ).set(1)

        self._duration = Histogram(
            "srlm_stage_duration_seconds", "Time from a stage's first start to its commit.", ["stage"],
            registry=r, buckets=_MINUTES,
        )  # fmt: skip
        self._reused = _by_stage(r, "srlm_stages_reused_total", "Stages whose artifact existed already.")
        self._gpu = _by_stage(r, "srlm_gpu_seconds_total", "GPU-seconds of ended attempts.")
        self._tokens = _by_stage(r, "srlm_tokens_total", "Tokens generated or trained on by committed stages.")
        self._shards = _by_stage(r, "srlm_shards_done_total", "Shards of committed stages.")
        self._storage = _by_stage(
            r,
            "srlm_storage_request_errors_total",
            "Requests of stage pods that the object store failed or refused, those that a retry mended included.",
        )
        self._jobs = _by_stage(r, "srlm_jobs_created_total", "Jobs created.")
        self._deleted = Counter("srlm_jobs_deleted_total", "Jobs deleted before their time.", registry=r)
        self._failures = Counter(
            "srlm_attempt_failures_total", "Failed attempts of stages by cause.", ["stage", "reason"], registry=r
        )
        for stage in STAGES:
            for reason in (*FAILURES, OTHER):
                self._failures.labels(stage, reason)  # shows 0: `increase` does not count a series' first value
        self._retries = Counter(
            "srlm_stage_retries_total", "Attempts begun after a failed one, by what it failed of.",
            ["stage", "reason"], registry=r,
        )  # fmt: skip
        self._pairs = Counter("srlm_preference_pairs_total", "Preference pairs (or positives) made.", registry=r)
        self._parse_rate = Histogram(
            "srlm_judge_parse_ratio", "Share of a model's verdicts with a readable score, once for each model.",
            registry=r, buckets=_RATIOS,
        )  # fmt: skip
        self._agreement = Histogram(
            "srlm_judge_agreement_ratio",
            "Share of human-ordered pairs that a model's judging orders alike, once for each model.",
            registry=r, buckets=_RATIOS,
        )  # fmt: skip
        self._growth = Histogram(
            "srlm_answer_length_growth_ratio", "Mean answer length relative to the model before, once for each model.",
            registry=r, buckets=_GROWTH,
        )  # fmt: skip

        self._reconcile = Histogram(
            "srlm_reconcile_duration_seconds", "Time of one reconcile.", registry=r, buckets=_RECONCILE
        )
        self._reconcile_errors = Counter(
            "srlm_reconcile_errors_total", "Reconciles that failed and are tried again.", ["reason"], registry=r
        )
        self._writes = Counter(
            "srlm_api_writes_total", "Writes sent to the Kubernetes API.", ["verb", "resource"], registry=r
        )
        self._api_errors = Counter(
            "srlm_api_errors_total", "Requests that the Kubernetes API failed or refused (404 is none).",
            ["verb", "reason"], registry=r,
        )  # fmt: skip
        self.leader = Gauge("srlm_leader", "1 while this process leads, 0 on standby.", registry=r)
        self._queue = Gauge("srlm_reconcile_queue_length", "Runs that wait to be reconciled.", registry=r)
        self._active = Gauge("srlm_reconciles_in_progress", "Runs that are being reconciled.", registry=r)
        self._silent = Gauge(
            "srlm_watch_silent", "1 while liveness fails because watches are silent or have ended.", registry=r
        )

    def watch_machinery(
        self,
        *,
        queued: Callable[[], int],
        active: Callable[[], int],
        problem: Callable[[], str],
        watches: Callable[[], Mapping[str, float]],
    ) -> None:
        """What is asked for when metrics are: the queue, liveness, and by resource when its watch showed life."""
        self._queue.set_function(queued)
        self._active.set_function(active)
        self._silent.set_function(lambda: 1 if problem() else 0)
        self.registry.register(_Watches(watches))

    def reconciled(self, seconds: float) -> None:
        self._reconcile.observe(seconds)

    def reconcile_failed(self, problem: Exception) -> None:
        self._reconcile_errors.labels(type(problem).__name__).inc()

    def api_write(self, verb: str, resource: str) -> None:
        self._writes.labels(verb, resource).inc()

    def api_error(self, verb: str, reason: str) -> None:
        self._api_errors.labels(verb, reason).inc()

    def forget(self, key: Key) -> None:
        """The run is gone, and its gauges with it."""
        self.runs.forget(key)

    def job_created(self, action: CreateJob) -> None:
        self._jobs.labels(action.manifest["metadata"]["labels"][LABEL_STAGE]).inc()

    def job_deleted(self) -> None:
        self._deleted.inc()

    def observe_plan(self, run: Run, plan: Plan) -> None:
        """Count what a plan changed in status, once that is written."""
        status = plan.status or run.status
        self.runs.note(run, status)
        before = {_identity(n, s): s for n, s in _stages(run.status)}
        for number, stage in _stages(status):
            old = before.get(_identity(number, stage))
            self._stage(old, stage)
            ended = stage.state == "Succeeded" and (old is None or old.state != "Succeeded")
            if ended and stage.stage == "evaluate" and not stage.reused:
                self._model(status.iterations[number].metrics)

    def _stage(self, old: StageStatus | None, new: StageStatus) -> None:
        _add(self._gpu, new.stage, new.gpu_seconds - (old.gpu_seconds if old else 0))
        _add(self._storage, new.stage, new.storage_errors - (old.storage_errors if old else 0))
        failure = new.last_failure
        if failure is not None and (old is None or old.last_failure != failure):
            self._failures.labels(new.stage, _reason(failure)).inc()
        if failure is not None and old is not None and new.attempt > old.attempt:
            self._retries.labels(new.stage, _reason(failure)).inc()
        if new.state != "Succeeded" or (old is not None and old.state == "Succeeded"):
            return
        if new.reused:
            self._reused.labels(new.stage).inc()
            return
        began, ended = parse(new.started_at), parse(new.finished_at)
        if began is not None and ended is not None:
            self._duration.labels(new.stage).observe((ended - began).total_seconds())
        _add(self._tokens, new.stage, new.statistics.get("tokens", 0))
        self._shards.labels(new.stage).inc(new.shards)
        if new.stage == "pairs":
            self._pairs.inc(max(0.0, new.statistics.get("pairs", 0)))

    def _model(self, metrics: IterationMetrics) -> None:
        """Figures of a model that has just been evaluated."""
        for histogram, *values in (
            (self._parse_rate, metrics.parse_rate, metrics.heldout_parse_rate),
            (self._agreement, metrics.judge_accuracy),
            (self._growth, metrics.length_growth, metrics.candidate_length_growth),
        ):
            known = [value for value in values if value is not None]
            if known:
                histogram.observe(known[0])

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The exposition in the format that an Accept header asks for, and its content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type


class _Watches(Collector):
    """A timestamp for every watch of this process; a standby has none."""

    def __init__(self, seen: Callable[[], Mapping[str, float]]) -> None:
        self._seen = seen

    def collect(self) -> list[GaugeMetricFamily]:
        family = GaugeMetricFamily(
            "srlm_watch_last_seen_timestamp_seconds",
            "When the watch of a resource last showed life: an event, or an answer to its request.",
            labels=["resource"],
        )
        for resource, moment in self._seen().items():
            family.add_metric([resource], moment)
        return [family]


def _by_stage(registry: CollectorRegistry, name: str, text: str) -> Counter:
    """A counter by stage that shows 0 before the first increment, so that `increase` sees that too."""
    counter = Counter(name, text, ["stage"], registry=registry)
    for stage in STAGES:
        counter.labels(stage)
    return counter


def _reason(failure: Failure) -> str:
    return failure.reason if failure.reason in REASONS else OTHER


def _add(counter: Counter, stage: str, amount: float) -> None:
    """Figures can shrink when status is shortened; counters cannot."""
    if amount > 0:
        counter.labels(stage).inc(amount)


def _stages(status: RunStatus) -> list[tuple[int, StageStatus]]:
    found = [(n, stage) for n, iteration in enumerate(status.iterations) for stage in iteration.stages]
    beside = (status.preflight_stage, status.report_stage, status.cleanup_stage)
    return found + [(0, stage) for stage in beside if stage is not None]


def _identity(number: int, stage: StageStatus) -> tuple[int, str, str]:
    return (number, stage.name, stage.key)
