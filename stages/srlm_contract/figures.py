"""Figures of an iteration from the statistics of its stages, and how status, terminal, report and gauges show them.

A new figure is a statistic of the stage that measures it, a field of `status.IterationMetrics` with what it means,
and in this file its row in `GROUPS` and its line in `iteration_figures` or `_measured`. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from .docs import field_docs
from .progress import whole_seconds
from .stages import BASELINES, TRAINERS
from .status import IterationMetrics

#: What stands where there is no figure.
NOTHING = "–"
_PARTS = re.compile(r"dropped.*|.*Sum|winRateM\d+")
ValueT = TypeVar("ValueT")
_DURATION, _INTERVAL = "duration", "interval"
#: What stands where a figure has no interval.
TOO_FEW = "too few"


@dataclass(frozen=True)
class Figure:
    """A figure of an iteration as people see it."""

    name: str
    """Field of IterationMetrics, where its meaning and unit stand."""
    label: str
    form: str
    """Format of the number, or `duration`, or `interval`."""
    gauge: str = ""
    """Name of the gauge that shows it for each run."""
    special: tuple[float, str] | None = None
    """A value that is no number, and the word for it."""
    of: str = ""
    """Field of the figure that this is the lower end of an interval of; the upper end is in the field `<of>_high`."""

    def value(self, metrics: IterationMetrics) -> float | None:
        found: float | None = getattr(metrics, self.name)
        return found

    def show(self, metrics: IterationMetrics) -> str:
        """The cell of a table."""
        value = self.value(metrics)
        if self.form == _INTERVAL:
            return self._interval(metrics, value)
        if value is None:
            return NOTHING
        if self.special is not None and value == self.special[0]:
            return self.special[1]
        return whole_seconds(value) if self.form == _DURATION else format(value, self.form)

    def _interval(self, metrics: IterationMetrics, low: float | None) -> str:
        if getattr(metrics, self.of) is None:
            return NOTHING
        high = getattr(metrics, f"{self.of}_high")
        return TOO_FEW if low is None or high is None else f"{low:.0%} to {high:.0%}".replace("-", "−")

    @property
    def help(self) -> str:
        """What it means, without the full stop."""
        return field_docs(IterationMetrics)[self.name].removesuffix(".")


def _interval(of: str, label: str) -> Figure:
    """The row of a figure's 95% interval."""
    return Figure(f"{of}_low", f"… {label}, 95%", _INTERVAL, of=of)


@dataclass(frozen=True)
class Group:
    """Figures that stand on the same texts: who wrote them, to which prompts, who judged them."""

    title: str
    basis: str
    """What they stand on, in one sentence; empty where the title says it."""
    figures: tuple[Figure, ...]


#: In the order of the tables. Terminal and report show all of them, where at least one model has a value.
GROUPS = (
    Group(
        "Candidates on the way to it",
        "Answers of the model before to new prompts, scored by that model or judging.external. M1 has none.",
        (
            Figure("prompts", "new prompts", ",d"),
            Figure("rounds", "rounds of prompts", "d"),
            Figure("candidates", "candidates", ",d"),
            Figure("judged", "… with a score", ",d"),
            Figure("mean_score", "candidates' mean score (0–5)", ".2f"),
            Figure("mean_length", "candidates' length (characters)", ",.0f"),
            Figure(
                "candidate_length_growth", "candidates' length growth", ".2f",
                gauge="srlm_run_candidate_length_growth_ratio",
            ),
            Figure("parse_rate", "parse rate", ".1%", gauge="srlm_run_judge_parse_ratio"),
            Figure("free_parse_rate", "… unconstrained sample", ".1%"),
            Figure("score_length", "score follows length (Spearman)", ".2f"),
            Figure("shadow_agreement", "shadow scorer agrees", ".1%"),
            Figure("tie_rate", "tie rate", ".1%", gauge="srlm_run_tie_ratio"),
            Figure("pairs", "pairs", ",d", gauge="srlm_run_pairs"),
        ),
    ),
    Group(
        "Its judging of held-out answers",
        "The same answers for all models, written and ranked by people, scored by each model or judging.external.",
        (
            Figure("heldout_judged", "held-out answers scored", ",d"),
            Figure("heldout_parse_rate", "held-out parse rate", ".1%"),
            Figure("heldout_score", "held-out mean score (0–5)", ".2f"),
            Figure("judge_accuracy", "judge agrees with people", ".1%", gauge="srlm_run_judge_agreement_ratio"),
            _interval("judge_accuracy", "agreement"),
            Figure("judge_accuracy_pairs", "… pairs of answers", ",d"),
            Figure("length_only_accuracy", "… “longer wins” agrees", ".1%"),
        ),
    ),
    Group(
        "Its answers to validation prompts",
        "An answer of each model itself to each of the same human prompts. Win rates are against"
        " evaluation.winRate.opponent, those of M0 and SFT against M1.",
        (
            Figure("answers", "validation answers", ",d"),
            Figure("answer_length", "answer length (characters)", ",.0f"),
            Figure("length_growth", "answer length growth", ".2f", gauge="srlm_run_length_growth_ratio"),
            Figure("win_rate", "win rate", ".1%", gauge="srlm_run_win_ratio"),
            _interval("win_rate", "win rate"),
            Figure("compared", "… comparisons read", ",d"),
            Figure("order_flips", "… flipped with the order", ".1%"),
            Figure("length_controlled", "win rate at equal lengths", ".1%"),
            _interval("length_controlled", "at equal lengths"),
            Figure("self_preference", "preference for itself", "+.1%"),
            _interval("self_preference", "preference"),
            Figure("win_rate_people", "win rate against people", ".1%"),
            _interval("win_rate_people", "against people"),
            Figure("self_preference_people", "preference for itself over people", "+.1%"),
            _interval("self_preference_people", "over people"),
        ),
    ),
    Group(
        "Its training",
        "",
        (
            Figure("chosen_step", "checkpoint chosen (step)", ",d", special=(-1, "last")),
            Figure("loss", "training loss", ".4f"),
            Figure("reward_accuracy", "DPO reward accuracy", ".1%"),
            Figure("reward_margin", "DPO reward margin", ".4f"),
        ),
    ),
    Group(
        "Cost of its iteration",
        "",
        (
            Figure("tokens", "tokens", ",d"),
            Figure("gpu_seconds", "GPU-seconds", ",.0f"),
            Figure("seconds", "time", _DURATION),
        ),
    ),
)  # fmt: skip
FIGURES = tuple(figure for group in GROUPS for figure in group.figures)

Rows = list[tuple[str, ...]]


def figure_groups(models: Sequence[IterationMetrics]) -> list[tuple[Group, Rows]]:
    """By group: label and a cell a model for every figure that a model has; what no model has is left out."""
    found = []
    for group in GROUPS:
        rows = [(figure.label, *(figure.show(metrics) for metrics in models)) for figure in group.figures]
        rows = [row for row in rows if any(cell != NOTHING for cell in row[1:])]
        if rows:
            found.append((group, rows))
    return found


Statistics = Mapping[str, float]
#: Most causes of dropped rows that status holds.
MAX_CAUSES = 32


class Stage(Protocol):
    """A stage as status records it, or as a manifest tells of it."""

    @property
    def stage(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def statistics(self) -> Statistics: ...


def iteration_figures(stages: Sequence[Stage], previous: Sequence[Stage]) -> IterationMetrics:
    """Metrics of one iteration but for its time.

    stages, previous: those of this iteration and of the one before. Rounds are summed; rates are ratios of
    sums, not means of rates. `judge-ranked`, the work of the model before M1, has no part in any of them.
    """
    done = [s for s in stages if s.state == "Succeeded"]
    asked = _of(done, "judge", but=("judge-heldout", "judge-ranked"))
    heldout = [s.statistics for s in done if s.name == "judge-heldout"]
    generated, evaluated = _of(done, "generate"), _of(done, "evaluate", but=tuple(BASELINES))
    candidates = _sum(generated, "candidates")
    pairs = _of(done, "pairs")[-1:]
    trained = _trained(done)[-1:]
    tokens = _sum([s.statistics for s in done], "tokens")
    return IterationMetrics(
        prompts=_whole(_sum(_of(done, "prompts"), "prompts")),
        candidates=_whole(candidates),
        judged=_whole(_sum(asked, "judged")),
        parse_rate=_ratio(_sum(asked, "parsed"), _sum(asked, "verdicts")),
        free_parse_rate=_ratio(_sum(asked, "freeParsed"), _sum(asked, "freeVerdicts")),
        tie_rate=_last(pairs, "tieRate"),
        pairs=_whole(_last(pairs, "pairs")),
        rounds=rounds if (rounds := len(_of(done, "pairs"))) > 1 else None,
        dropped=dropped(done),
        chosen_step=_whole(_last(_of(done, "choose"), "chosenStep")),
        mean_score=_mean(asked, "meanScore", "judged"),
        score_length=_ratio(_sum(asked, "lengthCorrelationSum"), _sum(asked, "lengthCorrelationPrompts")),
        mean_length=_mean(generated, "meanLength", "candidates"),
        candidate_length_growth=_growth("generate", done, previous),
        length_growth=_growth("evaluate", done, previous),
        shadow_agreement=_ratio(_sum(asked, "shadowSame"), _sum(asked, "shadowRows")),
        loss=_last(trained, "loss"),
        reward_accuracy=_last(trained, "rewardAccuracy"),
        reward_margin=_last(trained, "rewardMargin"),
        tokens=_whole(tokens),
    ).model_copy(update=_measured(evaluated, heldout))


def baseline_figures(stage: Stage) -> IterationMetrics:
    """Metrics of a model that is measured beside M1, from its evaluation, which judges the held-out answers too."""
    row = stage.statistics
    figures = IterationMetrics(tokens=_whole(_sum([row], "tokens")))
    return figures.model_copy(update=_measured([row], [row]))


def _measured(evaluated: Sequence[Statistics], heldout: Sequence[Statistics]) -> dict[str, float | None]:
    """What an evaluation says of a model, and its judging of the held-out answers."""
    return {
        "heldout_judged": _whole(_sum(heldout, "judged")),
        "heldout_parse_rate": _ratio(_sum(heldout, "parsed"), _sum(heldout, "verdicts")),
        "heldout_score": _mean(heldout, "meanScore", "judged"),
        "answers": _whole(_last(evaluated, "answers")),
        "answer_length": _last(evaluated, "meanLength"),
        "judge_accuracy": _last(evaluated, "judgeAccuracy"),
        "judge_accuracy_pairs": _whole(_last(evaluated, "judgeAccuracyPairs")),
        "judge_accuracy_low": _last(evaluated, "judgeAccuracyLow"),
        "judge_accuracy_high": _last(evaluated, "judgeAccuracyHigh"),
        "length_only_accuracy": _last(evaluated, "lengthOnlyAccuracy"),
        "spearman": _last(evaluated, "spearman"),
        "kendall": _last(evaluated, "kendall"),
        "exact_match": _last(evaluated, "exactMatch"),
        "five_best": _last(evaluated, "fiveBest"),
        "win_rate": _last(evaluated, "winRate"),
        "win_rate_low": _last(evaluated, "winRateLow"),
        "win_rate_high": _last(evaluated, "winRateHigh"),
        "compared": _whole(_total(evaluated[-1:], "wins", "ties", "losses")),
        "order_flips": _last(evaluated, "orderFlips"),
        "length_controlled": _last(evaluated, "lengthControlledWinRate"),
        "length_controlled_low": _last(evaluated, "lengthControlledWinRateLow"),
        "length_controlled_high": _last(evaluated, "lengthControlledWinRateHigh"),
        "self_preference": _last(evaluated, "selfPreference"),
        "self_preference_low": _last(evaluated, "selfPreferenceLow"),
        "self_preference_high": _last(evaluated, "selfPreferenceHigh"),
        "win_rate_people": _last(evaluated, "winRatePeople"),
        "win_rate_people_low": _last(evaluated, "winRatePeopleLow"),
        "win_rate_people_high": _last(evaluated, "winRatePeopleHigh"),
        "self_preference_people": _last(evaluated, "selfPreferencePeople"),
        "self_preference_people_low": _last(evaluated, "selfPreferencePeopleLow"),
        "self_preference_people_high": _last(evaluated, "selfPreferencePeopleHigh"),
    }


def dropped(stages: Sequence[Stage]) -> dict[str, int]:
    """Rows dropped by stage and cause; of several rounds the prompts add up, and the last pairs cover all."""
    found: dict[str, int] = {}

    def count(name: str, value: float) -> None:
        if value:
            found[name] = found.get(name, 0) + int(value)

    for stage, rows in (
        ("data", _of(stages, "data")),
        ("prompts", _of(stages, "prompts")),
        ("pairs", _of(stages, "pairs")[-1:]),
    ):
        for row in rows:
            for name, value in row.items():
                if name.startswith("dropped"):
                    count(stage + name.removeprefix("dropped"), value)
            count(f"{stage}Ties", row.get("ties", 0))
    for row in _trained(stages)[-1:]:
        count("trainTooLong", row.get("rowsDropped", 0))
    return dict(list(found.items())[:MAX_CAUSES])


def _growth(stage: str, stages: Sequence[Stage], previous: Sequence[Stage]) -> float | None:
    """Mean length in characters of what that stage wrote, relative to what it wrote in the iteration before."""
    now, before = (_last(_of(some, stage, but=tuple(BASELINES)), "meanLength") for some in (stages, previous))
    return _round(now / before) if now is not None and before else None


def _of(stages: Sequence[Stage], stage: str, but: Sequence[str] = ()) -> list[Statistics]:
    return [s.statistics for s in stages if s.stage == stage and s.name not in but and s.state == "Succeeded"]


def _trained(stages: Sequence[Stage]) -> list[Statistics]:
    return [row for stage in TRAINERS for row in _of(stages, stage)]


def _sum(rows: Sequence[Statistics], name: str) -> float | None:
    values = [row[name] for row in rows if name in row]
    return sum(values) if values else None


def _total(rows: Sequence[Statistics], *names: str) -> float | None:
    """Sum of several statistics that come together."""
    sums = [_sum(rows, name) for name in names]
    return sum(value for value in sums if value is not None) if any(value is not None for value in sums) else None


def _mean(rows: Sequence[Statistics], name: str, weight: str) -> float | None:
    """Mean over all rows of means over `weight` things each."""
    values = [row[name] * row.get(weight, 0) for row in rows if name in row]
    return _ratio(sum(values), _sum(rows, weight)) if values else None


def _last(rows: Sequence[Statistics], name: str) -> float | None:
    return next((_round(row[name]) for row in reversed(rows) if name in row), None)


def _ratio(part: float | None, whole: float | None) -> float | None:
    return _round(part / whole) if part is not None and whole else None


def _round(value: float) -> float:
    """Six digits: status holds the figures of all iterations and has a limit, the operator's `MAX_STATUS_BYTES`."""
    return float(f"{value:.6g}")


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


#: Statistics that figures are made of, beside those of dropped rows.
READ = frozenset({
    "answers", "candidates", "chosenStep", "exactMatch", "fiveBest", "freeParsed", "freeVerdicts", "judgeAccuracy",
    "judgeAccuracyHigh", "judgeAccuracyLow", "judgeAccuracyPairs", "judged", "kendall", "lengthControlledWinRate",
    "lengthControlledWinRateHigh", "lengthControlledWinRateLow", "lengthCorrelationPrompts", "lengthCorrelationSum",
    "lengthOnlyAccuracy", "loss", "losses", "meanLength", "meanScore", "orderFlips", "pairs", "parsed", "prompts",
    "rewardAccuracy", "rewardMargin", "rowsDropped", "selfPreference", "selfPreferenceHigh", "selfPreferenceLow",
    "selfPreferencePeople", "selfPreferencePeopleHigh", "selfPreferencePeopleLow", "shadowRows", "shadowSame",
    "spearman", "tieRate", "ties", "tokens", "verdicts", "winRate", "winRateHigh", "winRateLow", "winRatePeople",
    "winRatePeopleHigh", "winRatePeopleLow", "wins",
})  # fmt: skip


def for_status(statistics: Mapping[str, ValueT]) -> dict[str, ValueT]:
    """What status holds of a stage: its manifest has all."""
    return {name: value for name, value in statistics.items() if name in READ or name.startswith("dropped")}


def by_need(statistics: Mapping[str, ValueT]) -> dict[str, ValueT]:
    """The statistics of a stage, with those last that are parts of others or many (one a cause of dropped rows, one an
    opponent): where there is room for some only, these go first, in whatever order they came."""
    return dict(sorted(statistics.items(), key=lambda item: _PARTS.fullmatch(item[0]) is not None))
