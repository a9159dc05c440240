"""Gauges about runs: how many there are by phase, and the figures of each, made from status when they are asked for.

The gauges that name a run are bounded: stalled runs have them first, then the youngest unfinished ones, then the
youngest finished ones, up to a number that the settings say. They go when the run does. Their labels are
`run_namespace` and `run`: Prometheus itself adds a label `namespace`, that of the operator's pod.
"""

from __future__ import annotations

import time
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import get_args

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from srlm_contract.figures import FIGURES, Figure
from srlm_contract.reasons import STALLED
from srlm_contract.spec.policy import BudgetSpec
from srlm_contract.status import ProgressStatus, RunPhase, RunStatus
from srlm_operator.cluster.index import Key
from srlm_operator.times import parse
from srlm_operator.values import Run

PHASES: tuple[str, ...] = get_args(RunPhase)
OTHER = "Other"
"""Stands for any reason that is not one of ours."""
_LABELS = ["run_namespace", "run"]


@dataclass
class _Known:
    """A run as last seen."""

    uid: str
    status: RunStatus
    iterations: int
    budget: BudgetSpec
    moved_at: float
    """Unix time at which progress moved while this process looked; 0 if it did not."""

    @property
    def last_progress(self) -> float:
        """Unix time of the last sign of progress, in seconds; 0 when there was none."""
        return max([self.moved_at, *_moments(self.status)])


_Figure = Callable[[_Known], float | None]


def _youngest(figure: Figure) -> _Figure:
    """The figure of the youngest model that has it."""

    def find(known: _Known) -> float | None:
        values = (figure.value(iteration.metrics) for iteration in reversed(known.status.iterations))
        return next((value for value in values if value is not None), None)

    return find


def _running_shards(known: _Known) -> ProgressStatus | None:
    return known.status.progress if known.status.progress.shards_total else None


#: Name, help and figure of every gauge about one run; a figure of None is left out.
GAUGES: tuple[tuple[str, str, _Figure], ...] = (
    ("srlm_run_progress_ratio", "Finished share of the run's stages.", lambda k: k.status.progress.percent / 100),
    (
        "srlm_run_last_progress_timestamp_seconds",
        "When the run last got on: a stage began or ended, a shard was committed, a stage's progress moved.",
        lambda k: k.last_progress or None,
    ),
    ("srlm_run_iteration", "0 while the bootstrap runs; t while model M(t+1) is made.", lambda k: k.status.iteration),
    ("srlm_run_iterations", "Iterations that the run's spec asks for.", lambda k: k.iterations),
    (
        "srlm_run_shards", "Shards of the running stage.",
        lambda k: p.shards_total if (p := _running_shards(k)) else None,
    ),
    (
        "srlm_run_shards_done", "Committed shards of the running stage.",
        lambda k: p.shards_done if (p := _running_shards(k)) else None,
    ),
    ("srlm_run_gpu_seconds", "GPU-seconds that the run has spent.", lambda k: k.status.gpu_seconds),
    ("srlm_run_gpu_seconds_limit", "spec.budget.gpuSeconds, if set.", lambda k: k.budget.gpu_seconds),
    ("srlm_run_tokens", "Tokens that the run has spent.", lambda k: k.status.tokens),
    ("srlm_run_tokens_limit", "spec.budget.tokens, if set.", lambda k: k.budget.tokens),
    *(
        (figure.gauge, f"{figure.help}, of the run's youngest model that has the figure.", _youngest(figure))
        for figure in FIGURES
        if figure.gauge
    ),
)  # fmt: skip


class RunMetrics(Collector):
    """What is known of all runs. `most`: how many of them have gauges of their own."""

    def __init__(self, most: int, clock: Callable[[], float] = time.time) -> None:
        self._most, self._clock = most, clock
        self._runs: dict[Key, _Known] = {}

    def note(self, run: Run, status: RunStatus) -> None:
        """A run as it is from now on."""
        key = (run.namespace, run.name)
        old = self._runs.get(key)
        same = old is not None and old.uid == run.uid
        moved_at = old.moved_at if same and old is not None else 0.0
        if same and old is not None and old.status.progress != status.progress:
            moved_at = self._clock()
        iterations, budget = (run.spec.iterations, run.spec.budget) if run.spec else (0, BudgetSpec())
        self._runs[key] = _Known(run.uid, status, iterations, budget, moved_at)

    def forget(self, key: Key) -> None:
        self._runs.pop(key, None)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        runs = list(self._runs.items())
        phases: Tally[str] = Tally(known.status.phase for _, known in runs)
        yield _family("srlm_runs", "Runs by phase.", ["phase"], (([p], phases[p]) for p in PHASES))
        reasons = Tally(reason for _, known in runs if (reason := _stalled(known.status)))
        yield _family(
            "srlm_runs_stalled", "Stalled runs by reason.", ["reason"],
            (([reason], reasons[reason]) for reason in (*STALLED, OTHER)),
        )  # fmt: skip
        listed = sorted(runs, key=_rank)[: self._most]
        yield _family(
            "srlm_runs_without_series", "Runs beyond the number that have gauges of their own.", [],
            [([], len(runs) - len(listed))],
        )  # fmt: skip
        yield _family(
            "srlm_run_phase", "1 for the phase a run is in.", [*_LABELS, "phase"],
            (([*key, known.status.phase], 1) for key, known in listed),
        )  # fmt: skip
        yield _family(
            "srlm_run_stalled", "1 for a run that waits for a person.", [*_LABELS, "reason"],
            (([*key, reason], 1) for key, known in listed if (reason := _stalled(known.status))),
        )  # fmt: skip
        for name, text, figure in GAUGES:
            values = ((key, figure(known)) for key, known in listed)
            yield _family(name, text, _LABELS, (([*key], value) for key, value in values if value is not None))


def _family(name: str, text: str, labels: list[str], rows: Iterable[tuple[list[str], float]]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, figure in rows:
        family.add_metric(values, figure)
    return family


def _stalled(status: RunStatus) -> str:
    """The reason of `Stalled=True`, or nothing."""
    found = (c.reason for c in status.conditions if c.type == "Stalled" and c.status == "True")
    return next((reason if reason in STALLED else OTHER for reason in found), "")


def _rank(entry: tuple[Key, _Known]) -> tuple[bool, bool, float, Key]:
    """Unfinished runs first, of those the stalled ones, then the youngest."""
    key, known = entry
    began = parse(known.status.started_at)
    # A run that has not begun is younger than all that have.
    age = -began.timestamp() if began is not None else float("-inf")
    return (known.status.phase == "Succeeded", not _stalled(known.status), age, key)


def _moments(status: RunStatus) -> Iterator[float]:
    """Unix times of everything in status that is progress."""
    stages = [stage for iteration in status.iterations for stage in iteration.stages]
    beside = (status.preflight_stage, status.report_stage, status.cleanup_stage)
    for stage in [*stages, *(stage for stage in beside if stage is not None)]:
        for text in (stage.attempt_started_at, stage.finished_at):
            if (moment := parse(text)) is not None:
                yield moment.timestamp()
