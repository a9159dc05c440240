"""Figures of an iteration as status shows them, with the time it took. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from srlm_contract.figures import iteration_figures
from srlm_contract.status import IterationMetrics, StageStatus
from srlm_operator.times import parse


def iteration_metrics(stages: Sequence[StageStatus], previous: Sequence[StageStatus]) -> IterationMetrics:
    """Metrics of one iteration from its records and those of the iteration before."""
    times = {
        "seconds": _seconds([s for s in stages if s.state == "Succeeded"]),
        "gpu_seconds": sum(s.gpu_seconds for s in stages) or None,
    }
    return iteration_figures(stages, previous).model_copy(update=times)


def _seconds(stages: Sequence[StageStatus]) -> float | None:
    """From the first start to the last end: reused stages took no time."""
    ran = [s for s in stages if s.started_at and s.finished_at]
    starts = [t for s in ran if (t := parse(s.started_at)) is not None]
    ends = [t for s in ran if (t := parse(s.finished_at)) is not None]
    return (max(ends) - min(starts)).total_seconds() if starts and ends else None
