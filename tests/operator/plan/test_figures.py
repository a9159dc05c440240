"""Figures of a model from the statistics of its stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from srlm_contract.figures import FIGURES, READ, baseline_figures, figure_groups, iteration_figures
from srlm_contract.spec.policy import GatesSpec
from srlm_contract.stages import STAGES
from srlm_contract.status import IterationMetrics, StageStatus
from srlm_operator.plan.gates import before_next, before_training, iteration_metrics


def done(name: str, stage: str = "", **statistics: float) -> StageStatus:
    values: dict[str, Any] = {"name": name, "stage": stage or name, "state": "Succeeded", "statistics": statistics}
    return StageStatus(**values)


BASELINE = done("judge-ranked", "judge", verdicts=100, parsed=20, judged=10, meanScore=1.0)
HELD_OUT = done("judge-heldout", "judge", verdicts=50, parsed=45, judged=20, meanScore=3.0)


class Asked(dict[str, float]):
    """Statistics that are all there; remembers which were asked for."""

    names: ClassVar[set[str]] = set()

    def __contains__(self, name: object) -> bool:
        self.names.add(str(name))
        return True

    def __getitem__(self, name: str) -> float:
        self.names.add(name)
        return 1.0

    def get(self, name: str, default: Any = None) -> Any:
        self.names.add(name)
        return 1.0


@dataclass(frozen=True)
class Told:
    stage: str
    name: str
    state: str = "Succeeded"
    statistics: Mapping[str, float] = field(default_factory=Asked)


def test_status_holds_every_statistic_that_a_figure_is_made_of_and_no_other() -> None:
    stages = [Told(stage, stage) for stage in STAGES] + [Told("judge", "judge-heldout")]
    iteration_figures(stages, stages)
    baseline_figures(Told("evaluate", "evaluate-m0"))
    assert Asked.names == READ


def test_a_figure_stands_on_the_texts_of_one_writer() -> None:
    """M1 has no candidates: neither its judging of people's answers nor its own answers stand in their rows."""
    first = iteration_metrics(
        [done("sft-ift", "sft", loss=9), BASELINE, done("sft", loss=2), HELD_OUT,
         done("evaluate", answers=6, meanLength=60.0)], [],
    )  # fmt: skip
    assert (first.parse_rate, first.mean_score, first.judged, first.mean_length) == (None, None, None, None)
    assert (first.heldout_parse_rate, first.heldout_score, first.heldout_judged) == (0.9, 3.0, 20)
    assert (first.answers, first.answer_length, first.loss) == (6, 60.0, 2.0)
    early = iteration_metrics([BASELINE], [])
    assert (early.heldout_parse_rate, early.heldout_score, early.parse_rate) == (None, None, None)


def test_a_baseline_has_the_figures_of_one_evaluation_and_m1_none_of_them() -> None:
    base = done("evaluate-m0", "evaluate", judged=16, verdicts=32, parsed=8, meanScore=1.5, answers=6, meanLength=90.0,
                judgeAccuracy=0.4, winRate=0.25, wins=1, ties=1, losses=4, tokens=700)  # fmt: skip
    found = baseline_figures(base)
    assert (found.heldout_judged, found.heldout_parse_rate, found.heldout_score) == (16, 0.25, 1.5)
    assert (found.answers, found.answer_length, found.judge_accuracy, found.win_rate) == (6, 90.0, 0.4, 0.25)
    assert (found.compared, found.tokens) == (6, 700)
    own = iteration_metrics([done("evaluate", answers=6, meanLength=60.0), base], [])
    assert (own.answer_length, own.judge_accuracy, own.win_rate, own.tokens) == (60.0, None, None, 700)
    assert (
        iteration_metrics([done("evaluate", meanLength=120.0)], [done("evaluate", meanLength=60.0), base]).length_growth
        == 2
    )


def test_later_models_show_the_judging_of_the_candidates_over_all_rounds() -> None:
    first = done("judge", verdicts=10, parsed=10, judged=10, meanScore=2.0)
    second = done("judge-r2", "judge", verdicts=30, parsed=20, judged=30, meanScore=4.0)
    metrics = iteration_metrics([first, second, HELD_OUT], [])
    assert (metrics.parse_rate, metrics.mean_score, metrics.judged) == (0.75, 3.5, 40)
    assert (metrics.heldout_parse_rate, metrics.heldout_score, metrics.heldout_judged) == (0.9, 3.0, 20)


def test_answers_of_the_same_kind_are_compared_for_growth() -> None:
    before = [done("generate", candidates=4, meanLength=50.0), done("evaluate", meanLength=100.0)]
    now = [done("generate", candidates=4, meanLength=80.0)]
    early = iteration_metrics(now, before)
    assert (early.length_growth, early.candidate_length_growth) == (None, 1.6)
    whole = iteration_metrics([*now, done("evaluate", meanLength=120.0)], before)
    assert (whole.length_growth, whole.candidate_length_growth) == (1.2, 1.6)
    assert before_training(GatesSpec(max_length_growth=1.5, min_pairs=0), early) != (), "the candidates tell first"
    assert before_next(GatesSpec(max_length_growth=1.5), whole) == (), "and then the answers"


def test_judge_measures_and_what_was_chosen() -> None:
    measures = {"judgeAccuracy": 0.6, "judgeAccuracyLow": 0.4, "judgeAccuracyHigh": 0.8, "spearman": 0.3}
    measures |= {"kendall": 0.2, "exactMatch": 0.1, "fiveBest": 0.9}
    judge = done("judge", judged=4, shadowRows=4, shadowSame=3)
    metrics = iteration_metrics([judge, done("choose", chosenStep=40), done("evaluate", **measures)], [])
    assert (metrics.judge_accuracy_low, metrics.judge_accuracy_high, metrics.five_best) == (0.4, 0.8, 0.9)
    assert (metrics.spearman, metrics.kendall, metrics.exact_match) == (0.3, 0.2, 0.1)
    assert (metrics.shadow_agreement, metrics.chosen_step, metrics.rounds) == (0.75, 40, None)


def test_dropped_rows_by_cause() -> None:
    stages = [
        done("prompts", droppedSimilar=3, droppedEmpty=0),
        done("prompts-r2", "prompts", droppedSimilar=2),
        done("pairs", ties=9, droppedEmpty=5),
        done("pairs-r2", "pairs", ties=4, droppedEmpty=1),
        done("train", rowsDropped=2),
    ]
    metrics = iteration_metrics(stages, [])
    assert metrics.dropped == {"promptsSimilar": 5, "pairsEmpty": 1, "pairsTies": 4, "trainTooLong": 2}
    assert metrics.rounds == 2
    many = done("pairs", **{f"droppedCause{i}": 1.0 for i in range(40)})
    assert len(iteration_metrics([many], []).dropped) == 32


def test_rows_of_the_table_appear_where_something_was_measured() -> None:
    plain = IterationMetrics(pairs=1234, loss=0.5)
    rich = IterationMetrics(
        rounds=2, shadow_agreement=0.5, chosen_step=-1, judge_accuracy=2 / 3, judge_accuracy_pairs=24, seconds=185.0
    )
    assert [(group.title, rows) for group, rows in figure_groups([plain, rich])] == [
        ("Candidates on the way to it", [
            ("rounds of prompts", "–", "2"), ("shadow scorer agrees", "–", "50.0%"), ("pairs", "1,234", "–"),
        ]),
        ("Its judging of held-out answers", [
            ("judge agrees with people", "–", "66.7%"), ("… agreement, 95%", "–", "too few"),
            ("… pairs of answers", "–", "24"),
        ]),
        ("Its training", [("checkpoint chosen (step)", "–", "last"), ("training loss", "0.5000", "–")]),
        ("Cost of its iteration", [("time", "–", "3m 05s")]),
    ]  # fmt: skip
    assert figure_groups([]) == []


def test_rates_have_their_interval_below_them_or_are_too_few() -> None:
    few = IterationMetrics(win_rate=0.6, compared=5)
    enough = IterationMetrics(
        win_rate=0.6, win_rate_low=0.386, win_rate_high=0.781, compared=20, order_flips=0.1, self_preference=-0.2,
        self_preference_low=-0.412, self_preference_high=0.02,
    )  # fmt: skip
    assert {label: cells for _, rows in figure_groups([few, enough]) for label, *cells in rows} == {
        "win rate": ["60.0%", "60.0%"],
        "… win rate, 95%": ["too few", "39% to 78%"],
        "… comparisons read": ["5", "20"],
        "… flipped with the order": ["–", "10.0%"],
        "preference for itself": ["–", "-20.0%"],
        "… preference, 95%": ["–", "−41% to 2%"],
    }


def test_figures_of_the_comparisons_and_of_length() -> None:
    evaluated = done(
        "evaluate", winRate=0.6, winRateLow=0.4, winRateHigh=0.8, wins=10, ties=4, losses=6, unreadable=3,
        orderFlips=0.2, lengthControlledWinRate=0.5, selfPreference=0.1,
    )  # fmt: skip
    rounds = [
        done("judge", judged=4, lengthCorrelationSum=3.0, lengthCorrelationPrompts=4),
        done("judge-r2", "judge", judged=4, lengthCorrelationSum=-1.0, lengthCorrelationPrompts=4),
    ]
    metrics = iteration_metrics([*rounds, evaluated], [])
    assert (metrics.win_rate_low, metrics.win_rate_high, metrics.compared) == (0.4, 0.8, 20)
    assert (metrics.order_flips, metrics.length_controlled, metrics.self_preference) == (0.2, 0.5, 0.1)
    assert metrics.score_length == 0.25, "over the prompts of all rounds"


def test_every_figure_is_a_number_of_status_once_with_one_label_and_says_what_it_means() -> None:
    for figure in FIGURES:
        assert figure.help, figure
        assert figure.show(IterationMetrics(**{figure.name: 40} | ({figure.of: 40} if figure.of else {}))) != "–"
    for values in ([f.name for f in FIGURES], [f.label for f in FIGURES], [f.gauge for f in FIGURES if f.gauge]):
        assert len(set(values)) == len(values)
