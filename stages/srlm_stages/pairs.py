"""Judged candidates → preference pairs (best against worst), or positives (answers good enough to imitate)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from srlm_contract.errors import BadInput
from srlm_contract.jsonl import write_rows
from srlm_contract.rows import Judgement
from srlm_contract.tasks import PairsParams

from .context import StageContext
from .judging.preference import positives, preference_pairs
from .runtime.rows import read_all
from .runtime.statistics import Statistics

CAUSES = {
    "droppedUnjudged": "answers without a usable score",
    "droppedTruncated": "answers cut by the length limit (raise generation.sampling.maxTokens)",
    "droppedEmpty": "empty answers",
    "droppedTooFewAnswers": "prompts with fewer than two usable answers",
    "ties": "prompts whose best and worst score are equal",
    "droppedMargin": "prompts within preferences.minMargin",
    "droppedBandsOverlap": "prompts whose score bands overlap under the length penalty",
    "droppedEqualText": "prompts whose answers are the same text",
    "droppedScore": "answers below preferences.positives.minScore",
}


def run(ctx: StageContext) -> Statistics:
    """Writes pairs.jsonl or positives.jsonl from all rounds of judgements."""
    params = ctx.params(PairsParams)
    if params.strategy == "PreferencePairs":
        pairs, counts = preference_pairs(
            _judgements(ctx),
            min_margin=params.min_margin,
            length_penalty=params.length_penalty,
            truncated=params.truncated,
        )
        rows = write_rows(ctx.output / "pairs.jsonl", pairs)
    else:
        found, counts = positives(_judgements(ctx), min_score=params.min_score, truncated=params.truncated)
        rows = write_rows(ctx.output / "positives.jsonl", found)
    if not rows and not params.may_be_empty:
        raise BadInput("NoPairs", no_pairs_message(params.strategy, counts))
    if not rows:
        ctx.warn(f"{no_pairs_message(params.strategy, counts)}; another round of prompts follows")
    ctx.progress.update(counts["rows"], counts["rows"], unit="judgements")
    statistics: Statistics = {name: counts[name] for name in ("rows", "prompts", "pairs")}
    statistics |= {name: counts[name] for name in CAUSES if counts[name] or name == "ties"}
    if params.strategy == "PreferencePairs":
        statistics["comparable"] = counts["comparable"]
        if counts["comparable"]:
            statistics["tieRate"] = counts["ties"] / counts["comparable"]
    if params.strategy == "PreferencePairs" and rows:
        statistics["chosenTokens"] = sum(p.chosen_tokens for p in pairs) / rows
        statistics["rejectedTokens"] = sum(p.rejected_tokens for p in pairs) / rows
        statistics["margin"] = sum(p.chosen_score - p.rejected_score for p in pairs) / rows
    return statistics


def no_pairs_message(strategy: str, counts: Counter[str]) -> str:
    """What was there and why nothing of it is left."""
    what = "preference pair" if strategy == "PreferencePairs" else "positive example"
    causes = "; ".join(f"{counts[name]} {text}" for name, text in CAUSES.items() if counts[name])
    return (
        f"no {what} is left of {counts['prompts']} prompts with {counts['rows']} answers: {causes or 'none were given'}"
    )


def _judgements(ctx: StageContext) -> Iterator[Judgement]:
    """Rows of all rounds, in order. The same prompt in two rounds is one prompt with more answers."""
    for name in ctx.names("judgements"):
        yield from read_all(ctx.input(name), "judgements", Judgement)
