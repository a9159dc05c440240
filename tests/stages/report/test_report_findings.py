"""Findings of the report: each with its figures, at its threshold and not below."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from srlm_contract.spec.run import RunSpec
from srlm_contract.status import Condition, IterationMetrics, IterationStatus, RunStatus
from srlm_contract.tasks import ReportParams
from srlm_stages.judging.metrics import Estimate, Share
from srlm_stages.report.collect import Collected, Stage, collect
from srlm_stages.report.distributions import Distribution
from srlm_stages.report.figures import Figures, Meeting, ModelFigures, measure
from srlm_stages.report.finding import LEVELS, Finding
from srlm_stages.report.findings import find
from support.report_world import MadeRun, make_run, report_task, spec
from support.stage_world import World

RECIPE = ("Win rates are judged by M1, not by people", "Few comparisons stand behind the win rates")


@pytest.fixture
def found(tmp_path: Path) -> Collected:
    """A run without artifacts."""
    return collected(tmp_path, spec())


def collected(tmp_path: Path, run_spec: RunSpec, status: RunStatus | None = None) -> Collected:
    params = ReportParams(spec=run_spec, status=(status or RunStatus()).wire(defaults=False))
    return collect(World(tmp_path).artifacts(), report_task(params), params)


def model(name: str = "M2", metrics: dict[str, Any] | None = None, **fields: Any) -> ModelFigures:
    return ModelFigures(name, int(name[1:]) - 1, IterationMetrics(**(metrics or {})), **fields)


def about(found: Collected, *models: ModelFigures) -> dict[str, Finding]:
    """Findings by title, without the notes on the recipe."""
    return {f.title: f for f in find(found, Figures(list(models), judge_name="M1")) if f.title not in RECIPE}


def judged(
    value: float, length: float, *, n: int = 200, low: float | None = None, high: float | None = None
) -> dict[str, Any]:
    return {
        "judge": {"pairwise": Estimate(value, n, low, high)},
        "length_only": {"pairwise": Estimate(length, n)},
    }


class TestJudge:
    def test_no_better_than_longer_wins(self, found: Collected) -> None:
        findings = about(found, model(**judged(0.55, 0.6, low=0.5, high=0.6)))
        finding = findings["The judge does no better than “longer wins”: M2"]
        assert finding.level == "warning"
        assert finding.figures == (
            "It orders 55.0% of 200 human-ordered pairs right, 95% interval 50.0% to 60.0%; "
            "taking the longer answer is right in 60.0%."
        )

    def test_worse_than_longer_wins_needs_the_interval(self, found: Collected) -> None:
        findings = about(found, model(**judged(0.55, 0.6, low=0.52, high=0.59)))
        assert findings["The judge does worse than “longer wins”: M2"].level == "warning"

    def test_models_with_the_same_matter_are_told_once(self, found: Collected) -> None:
        models = [model(f"M{i}", **judged(0.5 + i / 100, 0.6, n=100 * i)) for i in (1, 2)]
        finding = about(found, *models)["The judge does no better than “longer wins”: M1, M2"]
        assert finding.figures.splitlines() == [
            "M1: It orders 51.0% of 100 human-ordered pairs right; taking the longer answer is right in 60.0%.",
            "M2: It orders 52.0% of 200 human-ordered pairs right; taking the longer answer is right in 60.0%.",
        ]

    def test_equal_counts_as_no_better(self, found: Collected) -> None:
        assert "The judge does no better than “longer wins”: M2" in about(found, model(**judged(0.6, 0.6)))

    def test_better_within_the_interval_is_a_note(self, found: Collected) -> None:
        findings = about(found, model(**judged(0.65, 0.6, low=0.58, high=0.72)))
        assert findings["The judge is not clearly better than “longer wins”: M2"].level == "note"

    def test_clearly_better_is_nothing(self, found: Collected) -> None:
        assert about(found, model(**judged(0.75, 0.6, low=0.7, high=0.8))) == {}

    def test_worse_than_a_coin(self, found: Collected) -> None:
        title = "The judge is worse than a coin: M2"
        assert title in about(found, model(**judged(0.4, 0.3, low=0.35, high=0.45)))
        assert title not in about(found, model(**judged(0.4, 0.3, low=0.3, high=0.51)))

    def test_few_pairs(self, found: Collected) -> None:
        title = "Few human-ordered pairs stand behind the judge measures"
        few = about(found, model("M1", **judged(0.8, 0.5, n=99)), model("M2", **judged(0.8, 0.5, n=100)))
        assert few[title].figures.startswith("M1 99;")
        assert title not in about(found, model(**judged(0.8, 0.5, n=100)))

    def test_worse_than_the_model_before(self, found: Collected) -> None:
        title = "M2 judges worse than M1"
        before = model("M1", **judged(0.8, 0.5))
        clear = about(found, before, model(**judged(0.74, 0.5, low=0.7, high=0.79)))[title]
        assert "fell from 80.0% to 74.0%" in clear.figures
        assert clear.level == "warning"
        assert about(found, before, model(**judged(0.74, 0.5, low=0.7, high=0.8)))[title].level == "note"
        assert title not in about(found, before, model(**judged(0.76, 0.5)))

    def test_better_marks_with_less_agreement_are_a_warning_of_their_own_weight(self, found: Collected) -> None:
        def scored(name: str, accuracy: float, score: float) -> ModelFigures:
            figures = judged(accuracy, 0.5, low=accuracy - 0.2, high=accuracy + 0.2)
            return model(name, heldout_scores=distribution([(score, 10)] * 4), **figures)

        title = "M2 judges worse than M1"
        finding = about(found, scored("M1", 0.8, 3.0), scored("M2", 0.7, 4.0))[title]
        assert finding.figures.endswith("gives the same held-out answers better marks: 4.00 instead of 3.00.")
        assert finding.level == "warning"
        unchanged = about(found, scored("M1", 0.8, 3.0), scored("M2", 0.7, 3.2))[title]
        assert (unchanged.level, "better marks" in unchanged.figures) == ("note", False)

    def test_worse_than_longer_wins_and_than_a_coin_is_one_fact(self, found: Collected) -> None:
        findings = about(found, model(**judged(0.4, 0.6, low=0.35, high=0.45)))
        assert list(findings) == ["The judge does worse than “longer wins”: M2"]
        [finding] = findings.values()
        assert "in 60.0%. A coin would do better, too" in finding.figures


class TestScores:
    def test_collapse(self, found: Collected) -> None:
        finding = about(found, model(verdicts={"4": 84, "3": 36}))["Scores collapse to 4 on the way to M2"]
        assert finding.level == "warning"
        assert finding.figures.startswith("84 of 120 verdicts about the candidates (70%) are a 4")

    @pytest.mark.parametrize("verdicts", [{"4": 83, "3": 37}, {"4": 15}, {}])
    def test_no_collapse(self, found: Collected, verdicts: dict[str, int]) -> None:
        assert about(found, model(verdicts=verdicts)) == {}

    @pytest.mark.parametrize(("rate", "told"), [(0.89, True), (0.9, False)])
    def test_parse_rate(self, found: Collected, rate: float, told: bool) -> None:
        findings = about(found, model(metrics={"parse_rate": rate}))
        assert ("Many verdicts cannot be read on the way to M2" in findings) is told

    def test_free_parse_rate_counts_with_a_constraint_only(self, tmp_path: Path, found: Collected) -> None:
        forced = collected(tmp_path, spec(judging={"constrain": "ScoreLine"}))
        title = "The judge keeps the format only when forced, on the way to M2"
        assert about(forced, model(metrics={"free_parse_rate": 0.0}))[title].level == "note"
        assert title not in about(forced, model(metrics={"free_parse_rate": 0.5}))
        assert title not in about(found, model(metrics={"free_parse_rate": 0.0}))

    def test_length_decides_the_score(self, found: Collected) -> None:
        title = "Longer answers get higher scores on the way to M2"
        longer: list[Share] = [(0.5, 1)] * 9 + [(1.0, 1), (0, 0)]
        assert "correlate by 0.55 on average over 10 prompts" in about(found, model(correlations=longer))[title].figures
        assert about(found, model(correlations=longer[1:])) == {}, "nine are too few"
        assert about(found, model(correlations=[(0.49, 1)] * 20)) == {}

    @pytest.mark.parametrize(("rate", "told"), [(0.31, True), (0.3, False)])
    def test_ties(self, found: Collected, rate: float, told: bool) -> None:
        findings = about(found, model(metrics={"tie_rate": rate}))
        assert ("The judge cannot tell many answers apart on the way to M2" in findings) is told


class TestLengths:
    @pytest.mark.parametrize(
        ("growth", "title"),
        [
            (1.64, "Answers grew 64% from M1 to M2"),
            (1.25, "Answers grew 25% from M1 to M2"),
            (0.5, "Answers shrank 50% from M1 to M2"),
        ],
    )
    def test_one_iteration(self, found: Collected, growth: float, title: str) -> None:
        before = model("M1", lengths=distribution([(None, 100)]))
        now = model(metrics={"length_growth": growth}, lengths=distribution([(None, int(100 * growth))]))
        finding = about(found, before, now)[title]
        assert finding.figures == (
            f"Mean length of the answers to 1 validation prompts: 100 characters, then {100 * growth:,.0f}."
        )

    @pytest.mark.parametrize("growth", [1.24, 1.0, 0.71])
    def test_little_change(self, found: Collected, growth: float) -> None:
        assert about(found, model("M1"), model(metrics={"length_growth": growth})) == {}

    def test_slow_growth_adds_up(self, found: Collected) -> None:
        models = [
            model(f"M{i + 1}", {"length_growth": 1.2} if i else {}, lengths=distribution([(None, length)]))
            for i, length in enumerate((100, 120, 144))
        ]
        assert list(about(found, *models)) == ["Answers grew 44% from M1 to M3"]


class TestComparisons:
    def test_position_decides(self, found: Collected) -> None:
        met = Meeting(opponent="M1", wins=3, ties=5, losses=2, unreadable=0)
        finding = about(found, model(against={"M1": met}))["The comparison judge goes by position: M2 against M1"]
        assert "In 5 of 10 comparisons M1 says the same letter in both orders" in finding.figures
        assert about(found, model(against={"M1": replace(met, ties=4, wins=4)})) == {}

    def test_a_win_by_length_alone(self, found: Collected) -> None:
        met = Meeting(
            opponent="M1", wins=30, ties=0, losses=20, unreadable=0, length_controlled=Estimate(0.5, 50, 0.4, 0.6)
        )
        finding = about(found, model(against={"M1": met}))["Wins by length: M2 against M1"]
        assert finding.figures == "Win rate 60.0%; if both answers were equally long it would be 50.0%."
        assert about(found, model(against={"M1": replace(met, length_controlled=Estimate(0.51, 50))})) == {}

    def test_preference_for_itself_beyond_chance(self, found: Collected) -> None:
        met = Meeting(opponent="M1", wins=30, ties=0, losses=20, unreadable=0, preference=Estimate(0.2, 50, 0.01, 0.4))
        finding = about(found, model(against={"M1": met}))["Prefers its own answers: M2 against M1"]
        assert "20.0 percentage points higher than those of M1 do (95% interval from 1.0, n=50)" in finding.figures
        assert about(found, model(against={"M1": replace(met, preference=Estimate(0.2, 50, 0.0, 0.4))})) == {}

    def test_few(self, found: Collected) -> None:
        met = [Meeting(opponent=f"M{i}", wins=n, ties=0, losses=0, unreadable=0) for i, n in ((1, 49), (2, 50))]
        figures = Figures([model("M3", against={m.opponent: m for m in met})], judge_name="M1")
        finding = next(f for f in find(found, figures) if f.title == "Few comparisons stand behind the win rates")
        assert finding.figures.startswith("M3 against M1 49;")

    def test_unreadable(self, found: Collected) -> None:
        met = Meeting(opponent="M1", wins=4, ties=0, losses=4, unreadable=1)
        assert "Many comparisons cannot be read: M2 against M1" in about(found, model(against={"M1": met}))
        assert about(found, model(against={"M1": replace(met, wins=5)})) == {}

    def test_losing_is_a_warning_beyond_chance_only(self, found: Collected) -> None:
        few = Meeting(opponent="M1", wins=9, ties=0, losses=11, unreadable=0)
        many = Meeting(opponent="M1", wins=90, ties=20, losses=130, unreadable=0)
        even = Meeting(opponent="M1", wins=10, ties=5, losses=10, unreadable=0)
        unclear = about(found, model(against={"M1": few}))
        assert unclear["Loses head to head, within chance: M2 against M1"].level == "note"
        clear = about(found, model(against={"M1": many}))["Loses head to head: M2 against M1"]
        assert clear.level == "warning"
        assert clear.figures == "Win rate 41.7% (90 wins, 20 ties as half, 130 losses), judged by M1."
        assert about(found, model(against={"M1": even})) == {}


class TestDataAndTraining:
    @pytest.mark.parametrize(("pairs", "told"), [(24, True), (25, False)])
    def test_few_pairs(self, found: Collected, pairs: int, told: bool) -> None:
        findings = about(found, model(metrics={"pairs": pairs, "prompts": 100}))
        assert ("Few prompts give a pair on the way to M2" in findings) is told

    @pytest.mark.parametrize(("cut", "told"), [(21, True), (20, False)])
    def test_truncated_candidates(self, tmp_path: Path, cut: int, told: bool) -> None:
        run = collected(tmp_path, spec())
        record = make_record("generate", {"truncated": float(cut), "candidates": 100.0})
        run = replace(run, stages=(Stage(1, "generate", "generate", record=record),))
        assert ("Many candidates are cut by the length limit: 1/generate" in about(run, model())) is told

    def test_shadow_scorer(self, tmp_path: Path) -> None:
        run = collected(tmp_path, spec())
        for agreement, told in ((0.59, True), (0.6, False)):
            record = make_record("judge", {"shadowAgreement": agreement, "shadowRows": 50.0})
            at = replace(run, stages=(Stage(1, "judge", "judge", record=record),))
            assert ("The two scorers disagree: 1/judge" in about(at, model())) is told

    def test_learnt_by_heart(self, found: Collected) -> None:
        title = "Training pairs are learnt by heart: M2"
        assert title in about(found, model(training={"rewardAccuracy": 1.0, "loss": 0.04}))
        assert title not in about(found, model(training={"rewardAccuracy": 1.0, "loss": 0.2}))
        assert title not in about(found, model(training={"rewardAccuracy": 0.9, "loss": 0.04}))

    @pytest.mark.parametrize(("changed", "told"), [(0.004, True), (0.01, False)])
    def test_hardly_trained(self, found: Collected, changed: float, told: bool) -> None:
        findings = about(found, model(training={"changedWeights": changed}))
        assert ("Training hardly changed the model: M2" in findings) is told

    @pytest.mark.parametrize(("dropped", "told"), [(6, True), (5, False)])
    def test_rows_too_long(self, found: Collected, dropped: int, told: bool) -> None:
        findings = about(found, model(training={"rows": 100.0, "rowsDropped": float(dropped)}))
        assert ("Rows were too long for training: M2" in findings) is told


class TestRun:
    def test_gates_and_conditions_come_first(self, tmp_path: Path) -> None:
        spent = Condition(
            type="Stalled", status="True", reason="BudgetExceeded", message="9 of 8 GPU-seconds. Raise it to go on.",
            last_transition_time="2026-11-20T10:00:00Z",
        )  # fmt: skip
        gates = IterationStatus(name="M2", gates=("tie rate 0.50, gates.maxTieRate is 0.3",))
        run = collected(tmp_path, spec(), RunStatus(conditions=(spent,), iterations=(gates,)))
        findings = find(run, Figures([model(training={"rewardAccuracy": 1.0, "loss": 0.01})], "M1"))
        assert [f.title for f in findings[:2]] == ["The run is stalled: BudgetExceeded", "A gate is missed by M2"]
        assert findings[0].figures == spent.message, "what to do is told once"
        assert [LEVELS.index(f.level) for f in findings] == sorted(LEVELS.index(f.level) for f in findings)

    def test_a_missed_gate_and_what_the_report_says_about_its_figure_is_one_fact(self, tmp_path: Path) -> None:
        gates = IterationStatus(name="M2", gates=("tie rate 0.50, gates.maxTieRate is 0.3",))
        run = collected(tmp_path, spec(), RunStatus(iterations=(gates,)))
        [finding] = about(run, model(metrics={"tie_rate": 0.5})).values()
        assert finding.title == "A gate is missed by M2"
        assert finding.figures.startswith("tie rate 0.50, gates.maxTieRate is 0.3. 50.0% of the prompts have equal")
        assert len(about(run, model("M3", {"tie_rate": 0.5}))) == 2, "of another model it is another fact"

    def test_expected_score_deviates_from_the_paper(self, tmp_path: Path) -> None:
        run = collected(tmp_path, spec(judging={"scorer": "ExpectedScore"}))
        assert "unlike the paper" in about(run)["Scores are read from the digit's probabilities"].figures

    def test_of_a_made_run(self, tmp_path: Path) -> None:
        """The thresholds applied to real artifacts: three quarters of the verdicts are a 4."""
        made: MadeRun = make_run(World(tmp_path), spec())
        params = ReportParams(spec=made.spec, status=made.status.wire(defaults=False), pins=made.pins)
        run = collect(made.world.artifacts(), report_task(params), params)
        titles = {f.title: f.figures for f in find(run, measure(run))}
        assert titles["Scores collapse to 4 on the way to M2, M3"].startswith("M2: 24 of 32 verdicts")
        assert titles["Answers grew 49% from M1 to M3"].endswith("73 characters, then 109.")


class TestDistribution:
    def test_bins_means_and_absent_scores(self) -> None:
        made = distribution([(2.0, 8), (2.3, 9), (None, 100), (5.0, 0)])
        assert made.scores == {2.0: 1, 2.5: 1, 5.0: 1}
        assert (made.rows, made.scored) == (4, 3)
        assert made.mean_score == pytest.approx(3.1)
        assert made.mean_length == pytest.approx(29.25)
        assert sum(made.lengths.values()) == 4


def distribution(rows: list[tuple[float | None, int]]) -> Distribution:
    made = Distribution()
    for score, length in rows:
        made.add(score, length)
    return made


def make_record(stage: str, statistics: dict[str, float]) -> Any:
    from srlm_contract.status import StageStatus

    return StageStatus(name=stage, stage=stage, state="Succeeded", statistics=statistics)
