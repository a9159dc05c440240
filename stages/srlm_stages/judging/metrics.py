"""Measures of a judge against human rankings, each with what it stands on. Pure functions.

Definitions follow Self-Rewarding Language Models (Yuan et al. 2024, section 3.2). Human rank 0 is the best answer.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import sqrt

import numpy as np

from srlm_contract.rows import Judgement

from .agreement import concordance, tau_b

BOOTSTRAP_SAMPLES = 1000
#: Figures of fewer prompts have no interval: they are too few to say anything.
MIN_PROMPTS = 10
#: Half the width of a 95% interval in standard errors.
Z = 1.959963984540054

Share = tuple[float, float]
"""(what counts, of how many) of one prompt; (0, 0) where a measure is not defined. A measure is sum over sum."""


@dataclass(frozen=True)
class Ranked:
    """The answers of one prompt: human ranks, scores, lengths in characters; one entry an answer."""

    ranks: tuple[int, ...]
    scores: tuple[float, ...]
    lengths: tuple[int, ...] = ()
    complete: bool = True
    """Whether every ranked answer of the prompt has a score."""

    def by_length(self) -> Ranked:
        """The same answers scored by 'longer is better'."""
        return replace(self, scores=tuple(float(n) for n in self.lengths))


@dataclass(frozen=True)
class Estimate:
    """A figure with its number of observations and a 95% interval; no interval where the prompts are too few."""

    value: float | None = None
    n: int = 0
    low: float | None = None
    high: float | None = None
    excluded: int = 0
    """Prompts left out because the measure is not defined there."""


NOT_MEASURED = Estimate()


def group_by_prompt(judgements: Iterable[Judgement]) -> tuple[list[Ranked], int]:
    """(prompts with at least one scored, ranked answer; number of answers without a score)."""
    prompts: dict[str, list[Judgement]] = defaultdict(list)
    unscored: Counter[str] = Counter()
    for row in judgements:
        if row.rank is None:
            continue
        if row.score is None:
            unscored[row.prompt_id] += 1
        else:
            prompts[row.prompt_id].append(row)
    groups = [
        Ranked(
            tuple(r.rank for r in rows if r.rank is not None),
            tuple(r.score for r in rows if r.score is not None),
            tuple(len(r.answer) for r in rows),
            complete=prompt not in unscored,
        )
        for prompt, rows in sorted(prompts.items())
    ]
    return groups, unscored.total()


def pairwise(group: Ranked, tie: float = 0.0) -> Share:
    """Pairs with different human rank that the scores order alike, of all such pairs. A score tie counts `tie`."""
    concordant, discordant, tied = concordance(group.scores, group.ranks)
    return concordant + tie * tied, concordant + discordant + tied


def five_best(group: Ranked, perfect: float) -> Share:
    """Answers of human rank 0, of those scored `perfect` or more."""
    ranks = [r for r, s in zip(group.ranks, group.scores, strict=True) if s >= perfect]
    return sum(r == 0 for r in ranks), len(ranks)


def exact_match(group: Ranked) -> Share:
    """Whether the whole ranking is reproduced without ties; not defined unless all human ranks differ and every
    answer has a score."""
    if not group.complete or len(group.ranks) < 2 or len(set(group.ranks)) < len(group.ranks):
        return 0, 0
    return concordance(group.scores, group.ranks)[1:] == (0, 0), 1


def spearman(scores: Sequence[float], ranks: Sequence[int]) -> float | None:
    """Spearman's rho between score and human order, ties at mean rank; None when either is constant."""
    x, y = _mean_ranks(scores), _mean_ranks([-r for r in ranks])
    mean = (len(x) + 1) / 2
    covariance = sum((a - mean) * (b - mean) for a, b in zip(x, y, strict=True))
    spread = sqrt(sum((a - mean) ** 2 for a in x) * sum((b - mean) ** 2 for b in y))
    return covariance / spread if spread else None


def _mean_ranks(values: Sequence[float]) -> list[float]:
    return [sum(w < v for w in values) + (sum(w == v for w in values) + 1) / 2 for v in values]


def length_correlations(judgements: Iterable[Judgement]) -> list[float | None]:
    """Spearman's rho of score and length in characters for each prompt; None where either is constant."""
    prompts: dict[str, list[Judgement]] = defaultdict(list)
    for row in judgements:
        prompts[row.prompt_id].append(row)
    return [
        spearman([r.score for r in rows if r.score is not None], [-len(r.answer) for r in rows if r.score is not None])
        for rows in prompts.values()
    ]


def correlation(group: Ranked, measure: Callable[[Sequence[float], Sequence[int]], float | None]) -> Share:
    """`spearman` or `tau_b` of one prompt, where it is defined."""
    value = measure(group.scores, group.ranks)
    return (0, 0) if value is None else (value, 1)


def judge_metrics(groups: Sequence[Ranked], perfect: float, seed: int = 0) -> dict[str, Estimate]:
    """The five measures, each with n and interval; `pairwiseHalfTies` counts a tie as half right.

    n: pairs, answers scored `perfect` (fiveBest), or prompts. Spearman and Kendall are means over prompts. The interval
    is Wilson's for exactMatch, one observation a prompt, and a bootstrap over prompts for the others.
    """
    measures: dict[str, Callable[[Ranked], Share]] = {
        "pairwise": pairwise,
        "pairwiseHalfTies": lambda g: pairwise(g, tie=0.5),
        "fiveBest": lambda g: five_best(g, perfect),
        "spearman": lambda g: correlation(g, spearman),
        "kendall": lambda g: correlation(g, tau_b),
    }
    found = {name: estimate([measure(group) for group in groups], seed) for name, measure in measures.items()}
    exact = [exact_match(group) for group in groups]
    whole = int(sum(n for _, n in exact))
    found["exactMatch"] = replace(share(sum(same for same, _ in exact), whole), excluded=len(exact) - whole)
    return found


def share(part: float, whole: int) -> Estimate:
    """`part` of `whole` independent observations, one a prompt, with Wilson's interval.

    Wilson 1927; Brown, Cai and DasGupta 2001, section 3.1.1. Halves, as ties give, vary less than the proportion
    that it assumes: then it is wider than need be, never narrower.
    """
    if not whole:
        return Estimate()
    p, z2 = part / whole, Z * Z
    if whole < MIN_PROMPTS:
        return Estimate(p, whole)
    centre = (p + z2 / (2 * whole)) / (1 + z2 / whole)
    half = Z / (1 + z2 / whole) * sqrt(p * (1 - p) / whole + z2 / (4 * whole * whole))
    return Estimate(p, whole, max(0.0, centre - half), min(1.0, centre + half))


def estimate(shares: Sequence[Share], seed: int = 0) -> Estimate:
    """Sum over sum, with a 95% percentile bootstrap interval.

    Whole prompts are drawn, since the answers of a prompt belong together.
    """
    table = np.array([(top, n) for top, n in shares if n], dtype=float).reshape(-1, 2)
    low = high = None
    if len(table) >= MIN_PROMPTS:
        source = np.random.default_rng(seed)
        # One sample at a time: with many prompts all of them at once would take much memory.
        sums = [table[source.integers(len(table), size=len(table))].sum(axis=0) for _ in range(BOOTSTRAP_SAMPLES)]
        low, high = (float(q) for q in np.quantile([top / n for top, n in sums], (0.025, 0.975)))
    return Estimate(_ratio(shares), int(sum(n for _, n in shares)), low, high, len(shares) - len(table))


def _ratio(shares: Sequence[Share]) -> float | None:
    below = sum(n for _, n in shares)
    return sum(top for top, _ in shares) / below if below else None
