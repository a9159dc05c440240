"""Figures of an iteration from the statistics of its stages, and how status, terminal, report and gauges show them.

A new figure is a statistic of the stage that measures it, a field of `status.IterationMetrics` with what it means,
and in this file its row in `FIGURES` and its line in `iteration_figures`. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from .progress import whole_seconds
from .stages import TRAINERS
from .status import IterationMetrics

#: What stands where there is no figure.
NOTHING = "–"
_DURATION = "duration"


@dataclass(frozen=True)
class Figure:
    """A figure of an iteration as people see it."""

    name: str
    """Field of IterationMetrics, where its meaning and unit stand."""
    label: str
    form: str
    """Format of the number, or `duration`."""
    count: str = ""
    """Field with the number of observations behind it."""
    gauge: str = ""
    """Name of the gauge that shows it for each run."""
    special: tuple[float, str] | None = None
    """A value that is no number, and the word for it."""

    def value(self, metrics: IterationMetrics) -> float | None:
        found: float | None = getattr(metrics, self.name)
        return found

    def show(self, metrics: IterationMetrics) -> str:
        """The cell of a table."""
        value = self.value(metrics)
        if value is None:
            return NOTHING
        if self.special is not None and value == self.special[0]:
            return self.special[1]
        text = whole_seconds(value) if self.form == _DURATION else format(value, self.form)
        return f"{text} (n={getattr(metrics, self.count) or 0})" if self.count else text

    @property
    def help(self) -> str:
        """What it means, without the full stop."""
        return (IterationMetrics.model_fields[self.name].description or "").removesuffix(".")


#: In the order of the tables. Terminal and report show all of them, where at least one model has a value.
FIGURES = (
    Figure("prompts", "prompts", ",d"),
    Figure("rounds", "rounds of prompts", "d"),
    Figure("candidates", "candidates", ",d"),
    Figure("pairs", "pairs", ",d", gauge="srlm_run_pairs"),
    Figure("parse_rate", "parse rate", ".1%", gauge="srlm_run_judge_parse_ratio"),
    Figure("free_parse_rate", "parse rate, unconstrained sample", ".1%"),
    Figure("tie_rate", "tie rate", ".1%", gauge="srlm_run_tie_ratio"),
    Figure("mean_score", "mean score (0–5)", ".2f"),
    Figure("mean_length", "mean length (characters)", ",.0f"),
    Figure("length_growth", "length growth", ".2f", gauge="srlm_run_length_growth_ratio"),
    Figure(
        "judge_accuracy", "judge agrees with people", ".1%",
        count="judge_accuracy_pairs", gauge="srlm_run_judge_agreement_ratio",
    ),
    Figure("length_only_accuracy", "… “longer wins” agrees", ".1%"),
    Figure("shadow_agreement", "shadow scorer agrees", ".1%"),
    Figure("win_rate", "win rate", ".1%", gauge="srlm_run_win_ratio"),
    Figure("chosen_step", "checkpoint chosen (step)", ",d", special=(-1, "last")),
    Figure("loss", "training loss", ".4f"),
    Figure("reward_accuracy", "DPO reward accuracy", ".1%"),
    Figure("reward_margin", "DPO reward margin", ".4f"),
    Figure("tokens", "tokens", ",d"),
    Figure("gpu_seconds", "GPU-seconds", ",.0f"),
    Figure("seconds", "time", _DURATION),
)  # fmt: skip


def figure_rows(models: Sequence[IterationMetrics]) -> list[tuple[str, ...]]:
    """Label and a cell a model for every figure that a model has."""
    rows = [(figure.label, *(figure.show(metrics) for metrics in models)) for figure in FIGURES]
    return [row for row in rows if any(cell != NOTHING for cell in row[1:])]


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
    sums, not means of rates. Judging is that of the candidates; M1 has none, so its judging of the held-out answers
    stands there (`judge-ranked` is the work of the model before M1).
    """
    done = [s for s in stages if s.state == "Succeeded"]
    asked = _of(done, "judge", but=("judge-heldout", "judge-ranked")) or _of(done, "judge", but=("judge-ranked",))
    verdicts, parsed = _sum(asked, "verdicts"), _sum(asked, "parsed")
    free, free_parsed = _sum(asked, "freeVerdicts"), _sum(asked, "freeParsed")
    judged = _sum(asked, "judged")
    generated, evaluated = _of(done, "generate"), _of(done, "evaluate")
    candidates = _sum(generated, "candidates")
    pairs = _of(done, "pairs")[-1:]
    trained = _trained(done)[-1:]
    tokens = _sum([s.statistics for s in done], "tokens")
    return IterationMetrics(
        prompts=_whole(_sum(_of(done, "prompts"), "prompts")),
        candidates=_whole(candidates),
        judged=_whole(judged),
        parse_rate=_ratio(parsed, verdicts),
        free_parse_rate=_ratio(free_parsed, free),
        tie_rate=_last(pairs, "tieRate"),
        pairs=_whole(_last(pairs, "pairs")),
        rounds=rounds if (rounds := len(_of(done, "pairs"))) > 1 else None,
        dropped=dropped(done),
        chosen_step=_whole(_last(_of(done, "choose"), "chosenStep")),
        mean_score=_ratio(_weighted(asked, "meanScore", "judged"), judged),
        mean_length=mean_length(done),
        length_growth=length_growth(done, previous),
        judge_accuracy=_last(evaluated, "judgeAccuracy"),
        judge_accuracy_pairs=_whole(_last(evaluated, "judgeAccuracyPairs")),
        judge_accuracy_low=_last(evaluated, "judgeAccuracyLow"),
        judge_accuracy_high=_last(evaluated, "judgeAccuracyHigh"),
        length_only_accuracy=_last(evaluated, "lengthOnlyAccuracy"),
        spearman=_last(evaluated, "spearman"),
        kendall=_last(evaluated, "kendall"),
        exact_match=_last(evaluated, "exactMatch"),
        five_best=_last(evaluated, "fiveBest"),
        shadow_agreement=_ratio(_sum(asked, "shadowSame"), _sum(asked, "shadowRows")),
        win_rate=_last(evaluated, "winRate"),
        loss=_last(trained, "loss"),
        reward_accuracy=_last(trained, "rewardAccuracy"),
        reward_margin=_last(trained, "rewardMargin"),
        tokens=_whole(tokens),
    )


def mean_length(stages: Sequence[Stage]) -> float | None:
    """Mean length in characters of the candidates; of the evaluated answers where none were generated."""
    generated = _of(stages, "generate")
    lengths = _ratio(_weighted(generated, "meanLength", "candidates"), _sum(generated, "candidates"))
    return lengths if lengths is not None else _last(_of(stages, "evaluate"), "meanLength")


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


def length_growth(stages: Sequence[Stage], previous: Sequence[Stage]) -> float | None:
    """Mean answer length relative to the model before: on the evaluation prompts, else over the candidates."""
    for stage in ("evaluate", "generate"):
        now, before = _last(_of(stages, stage), "meanLength"), _last(_of(previous, stage), "meanLength")
        if now is not None and before:
            return _round(now / before)
    return None


def _of(stages: Sequence[Stage], stage: str, but: Sequence[str] = ()) -> list[Statistics]:
    return [s.statistics for s in stages if s.stage == stage and s.name not in but and s.state == "Succeeded"]


def _trained(stages: Sequence[Stage]) -> list[Statistics]:
    return [row for stage in TRAINERS for row in _of(stages, stage)]


def _sum(rows: Sequence[Statistics], name: str) -> float | None:
    values = [row[name] for row in rows if name in row]
    return sum(values) if values else None


def _weighted(rows: Sequence[Statistics], name: str, weight: str) -> float | None:
    values = [row[name] * row.get(weight, 0) for row in rows if name in row]
    return sum(values) if values else None


def _last(rows: Sequence[Statistics], name: str) -> float | None:
    return next((_round(row[name]) for row in reversed(rows) if name in row), None)


def _ratio(part: float | None, whole: float | None) -> float | None:
    return _round(part / whole) if part is not None and whole else None


def _round(value: float) -> float:
    """Six digits: status holds the figures of all iterations and has a limit, the operator's `MAX_STATUS_BYTES`."""
    return float(f"{value:.6g}")


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)
