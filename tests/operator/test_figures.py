"""Figures of a model from the statistics of its stages."""

from __future__ import annotations

from typing import Any

from srlm_contract.status import StageStatus
from srlm_operator.figures import iteration_metrics


def done(name: str, stage: str = "", **statistics: float) -> StageStatus:
    values: dict[str, Any] = {"name": name, "stage": stage or name, "state": "Succeeded", "statistics": statistics}
    return StageStatus(**values)


BASELINE = done("judge-ranked", "judge", verdicts=100, parsed=20, judged=10, meanScore=1.0)
HELD_OUT = done("judge-heldout", "judge", verdicts=50, parsed=45, judged=20, meanScore=3.0)


def test_m1_is_not_credited_with_the_judging_of_the_model_before_it() -> None:
    metrics = iteration_metrics([done("sft-ift", "sft", loss=9), BASELINE, done("sft", loss=2), HELD_OUT], [])
    assert (metrics.parse_rate, metrics.mean_score, metrics.judged, metrics.loss) == (0.9, 3.0, 20, 2.0)
    early = iteration_metrics([BASELINE], [])
    assert (early.parse_rate, early.mean_score) == (None, None)


def test_later_models_show_the_judging_of_the_candidates_over_all_rounds() -> None:
    first = done("judge", verdicts=10, parsed=10, judged=10, meanScore=2.0)
    second = done("judge-r2", "judge", verdicts=30, parsed=20, judged=30, meanScore=4.0)
    metrics = iteration_metrics([first, second, HELD_OUT], [])
    assert (metrics.parse_rate, metrics.mean_score, metrics.judged) == (0.75, 3.5, 40)


def test_answers_of_the_same_kind_are_compared_for_growth() -> None:
    before = [done("generate", candidates=4, meanLength=50.0), done("evaluate", meanLength=100.0)]
    now = [done("generate", candidates=4, meanLength=80.0)]
    assert iteration_metrics(now, before).length_growth == 1.6
    assert iteration_metrics([*now, done("evaluate", meanLength=120.0)], before).length_growth == 1.2
