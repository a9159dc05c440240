"""Gates: what must hold for a run to go on, and the figures of an iteration that they look at. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from srlm_contract.figures import iteration_figures
from srlm_contract.spec.policy import GatesSpec
from srlm_contract.status import IterationMetrics, StageStatus
from srlm_operator.names import CONTINUE_ANNOTATION
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


def before_training(gates: GatesSpec, metrics: IterationMetrics) -> tuple[str, ...]:
    """Gates on the preference data, looked at once the pairs of an iteration are there."""
    missed: list[str] = []
    if metrics.pairs is not None and metrics.pairs < gates.min_pairs:
        missed.append(f"{metrics.pairs} pairs, gates.minPairs is {gates.min_pairs}")
    if metrics.parse_rate is not None and metrics.parse_rate < gates.min_parse_rate:
        missed.append(f"parse rate {metrics.parse_rate:.2f}, gates.minParseRate is {gates.min_parse_rate}")
    limit = gates.max_tie_rate
    if limit is not None and metrics.tie_rate is not None and metrics.tie_rate > limit:
        missed.append(f"tie rate {metrics.tie_rate:.2f}, gates.maxTieRate is {limit}")
    return (*missed, *_length(gates, metrics))


def before_next(gates: GatesSpec, metrics: IterationMetrics, *, first: bool = False) -> tuple[str, ...]:
    """Gates on the new model, looked at once it is evaluated. What could not be measured is missed too.

    first: M1, which has no model before it to win against.
    """
    missed = _least("judge accuracy", metrics.judge_accuracy, "minJudgeAccuracy", gates.min_judge_accuracy)
    if not first:
        missed += _least("win rate", metrics.win_rate, "minWinRate", gates.min_win_rate)
    return (*missed, *_length(gates, metrics))


def _least(what: str, value: float | None, field: str, least: float | None) -> tuple[str, ...]:
    if least is None or (value is not None and value >= least):
        return ()
    found = "could not be measured" if value is None else f"{value:.2f}"
    return (f"{what} {found}, gates.{field} is {least}",)


def _length(gates: GatesSpec, metrics: IterationMetrics) -> tuple[str, ...]:
    # Without an evaluation, or before it, the candidates tell.
    growth = metrics.length_growth if metrics.length_growth is not None else metrics.candidate_length_growth
    if growth is None or growth <= gates.max_length_growth:
        return ()
    return (f"mean length grew {growth:.2f} times, gates.maxLengthGrowth is {gates.max_length_growth}",)


def may_stop(gates: GatesSpec, *, first: bool) -> bool:
    """Whether `before_next` could find something for which the run stops, before anything is measured."""
    if gates.on_failure == "Continue":
        return False
    # Nothing came before M1 that its answers could be longer than.
    return not first or gates.min_judge_accuracy is not None


def stops(gates: GatesSpec, model: str, annotations: Mapping[str, str]) -> str:
    """Reason for which missed gates stop the run: `GateFailed`, `Held`, or nothing."""
    if gates.on_failure == "Continue":
        return ""
    if gates.on_failure == "Stop":
        return "GateFailed"
    return "" if is_released(model, annotations) else "Held"


def released(annotations: Mapping[str, str]) -> list[str]:
    """Models whose missed gates a person has accepted, or `all`, as the annotation names them."""
    return annotations.get(CONTINUE_ANNOTATION, "").replace(",", " ").split()


def is_released(model: str, annotations: Mapping[str, str]) -> bool:
    """Whether a person has accepted what this model missed."""
    return bool({model, "all"} & set(released(annotations)))
