"""Keeps judge verdicts that agree with human rankings (EFT, Self-Rewarding Language Models section 2.2).

For verdict sample j, take the scores of all answers of a prompt. `AllPairs` keeps the sample's verdicts when no
human-ordered pair is discordant and at least one is concordant; ties of the judge are allowed. `KendallTau` keeps
them when Kendall's tau-b between score and rank is high enough. An unreadable verdict breaks its sample.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import sqrt

from srlm_contract.keys import row_seed
from srlm_contract.rows import Judgement


@dataclass(frozen=True)
class KeptVerdict:
    """A verdict text worth learning, about one answer."""

    judgement: Judgement
    text: str
    score: float
    sample: int


def concordance(scores: Sequence[float], ranks: Sequence[int]) -> tuple[int, int, int]:
    """(concordant, discordant, tied) over all pairs of different human rank; rank 0 is the best."""
    concordant = discordant = tied = 0
    for i in range(len(scores)):
        for j in range(i + 1, len(scores)):
            if ranks[i] == ranks[j]:
                continue
            better = (scores[i] - scores[j]) * (ranks[j] - ranks[i])
            concordant += better > 0
            discordant += better < 0
            tied += better == 0
    return concordant, discordant, tied


def tau_b(scores: Sequence[float], ranks: Sequence[int]) -> float | None:
    """Kendall's tau-b between score and human order (Kendall 1945); None when either is constant."""
    concordant, discordant, score_ties = concordance(scores, ranks)
    rank_ties = sum(
        ranks[i] == ranks[j] and scores[i] != scores[j] for i in range(len(scores)) for j in range(i + 1, len(scores))
    )
    untied = concordant + discordant
    below = sqrt((untied + score_ties) * (untied + rank_ties))
    return (concordant - discordant) / below if below else None


def select_agreeing(
    judgements: Iterable[Judgement], *, agreement: str, min_tau: float
) -> tuple[list[KeptVerdict], Counter[str]]:
    """Verdicts of agreeing samples, and how many samples went each way."""
    prompts: dict[str, list[Judgement]] = defaultdict(list)
    for judgement in judgements:
        prompts[judgement.prompt_id].append(judgement)
    kept: list[KeptVerdict] = []
    counts: Counter[str] = Counter()
    for prompt_id in sorted(prompts):
        rows = sorted(prompts[prompt_id], key=lambda row: row.id)
        ranks = [row.rank for row in rows]
        if None in ranks or len(set(ranks)) < 2:
            counts["promptsWithoutRanks"] += 1
            continue
        for sample in range(min(len(row.verdicts) for row in rows)):
            verdicts = [row.verdicts[sample] for row in rows]
            scores = [v.score for v in verdicts if v.score is not None]
            if len(scores) < len(rows):
                counts["unreadable"] += 1
            elif _agrees(scores, [r for r in ranks if r is not None], agreement, min_tau):
                counts["agreeing"] += 1
                kept += [
                    KeptVerdict(row, v.text, score, sample)
                    for row, v, score in zip(rows, verdicts, scores, strict=True)
                ]
            else:
                counts["disagreeing"] += 1
    return kept, counts


def _agrees(scores: list[float], ranks: list[int], agreement: str, min_tau: float) -> bool:
    if agreement == "KendallTau":
        tau = tau_b(scores, ranks)
        return tau is not None and tau >= min_tau
    concordant, discordant, _ = concordance(scores, ranks)
    return discordant == 0 and concordant > 0


def rebalance(kept: list[KeptVerdict], *, seed: int, max_examples: int) -> list[KeptVerdict]:
    """Cut the most frequent score down to the second most frequent, then to `max_examples`.

    The paper discards part of its most frequent score (4) so that the judge does not learn to always give it.
    The order is a hash of seed and row; the same text about the same answer is kept once.
    """
    unique = {(v.judgement.id, v.text): v for v in reversed(kept)}
    order = sorted(
        unique.values(),
        key=lambda v: row_seed(seed, "select", 0, 1, v.judgement.id, v.sample),
    )
    frequency = Counter(v.score for v in order).most_common(2)
    if len(frequency) == 2:
        common, limit = frequency[0][0], frequency[1][1]
        of_common = [v for v in order if v.score == common][:limit]
        allowed = {id(v) for v in of_common}
        order = [v for v in order if v.score != common or id(v) in allowed]
    return order[:max_examples]
