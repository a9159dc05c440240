"""Figures of an iteration from the statistics of its stages: what status, demo and report show. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from .status import IterationMetrics

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
    trained = [*_of(done, "sft"), *_of(done, "train")][-1:]
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
    for row in [*_of(stages, "sft"), *_of(stages, "train")][-1:]:
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
    """Six digits: status holds the figures of all iterations in 64 KiB."""
    return float(f"{value:.6g}")


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)
