"""Measures of a judge against human rankings, and of one model against another. Pure functions.

Definitions follow Self-Rewarding Language Models (Yuan et al. 2024, section 3.2). Human rank 0 is the best answer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import sqrt

from srlm_contract.rows import Comparison, Judgement

from .agreement import concordance, tau_b

BOOTSTRAP_SAMPLES = 1000


@dataclass(frozen=True)
class Ranked:
    """The answers of one prompt: human ranks, scores, lengths in characters; one entry an answer."""

    ranks: tuple[int, ...]
    scores: tuple[float, ...]
    lengths: tuple[int, ...] = ()

    def by_length(self) -> Ranked:
        """The same answers scored by 'longer is better'."""
        return Ranked(self.ranks, tuple(float(n) for n in self.lengths), self.lengths)


@dataclass(frozen=True)
class Estimate:
    """A figure with its number of observations and a 95% bootstrap interval over prompts."""

    value: float | None
    n: int
    low: float | None = None
    high: float | None = None
    excluded: int = 0
    """Prompts left out because the measure is not defined there."""


def group_by_prompt(judgements: Iterable[Judgement]) -> tuple[list[Ranked], int]:
    """(prompts with at least one scored, ranked answer; number of answers without a score)."""
    prompts: dict[str, list[Judgement]] = defaultdict(list)
    unscored = 0
    for row in judgements:
        if row.rank is None:
            continue
        if row.score is None:
            unscored += 1
        else:
            prompts[row.prompt_id].append(row)
    groups = [
        Ranked(
            tuple(r.rank for r in rows if r.rank is not None),
            tuple(r.score for r in rows if r.score is not None),
            tuple(len(r.answer) for r in rows),
        )
        for _, rows in sorted(prompts.items())
    ]
    return groups, unscored


def pairwise_accuracy(groups: Sequence[Ranked], tie: float = 0.0) -> tuple[float | None, int]:
    """(share of pairs with different human rank that the scores order alike, pairs). A score tie counts `tie`."""
    right, pairs = 0.0, 0
    for group in groups:
        concordant, discordant, tied = concordance(group.scores, group.ranks)
        right += concordant + tie * tied
        pairs += concordant + discordant + tied
    return (right / pairs if pairs else None), pairs


def five_best(groups: Sequence[Ranked], perfect: float) -> tuple[float | None, int]:
    """(of the answers scored `perfect` or more, the share with human rank 0, such answers); None without any."""
    ranks = [r for g in groups for r, s in zip(g.ranks, g.scores, strict=True) if s >= perfect]
    return (sum(r == 0 for r in ranks) / len(ranks) if ranks else None), len(ranks)


def exact_match(groups: Sequence[Ranked]) -> tuple[float | None, int]:
    """(share of prompts whose whole ranking is reproduced without ties, prompts with distinct human ranks)."""
    complete = [g for g in groups if len(g.ranks) > 1 and len(set(g.ranks)) == len(g.ranks)]
    same = sum(concordance(g.scores, g.ranks)[1:] == (0, 0) for g in complete)
    return (same / len(complete) if complete else None), len(complete)


def spearman(scores: Sequence[float], ranks: Sequence[int]) -> float | None:
    """Spearman's rho between score and human order, ties at mean rank; None when either is constant."""
    x, y = _mean_ranks(scores), _mean_ranks([-r for r in ranks])
    mean = (len(x) + 1) / 2
    covariance = sum((a - mean) * (b - mean) for a, b in zip(x, y, strict=True))
    spread = sqrt(sum((a - mean) ** 2 for a in x) * sum((b - mean) ** 2 for b in y))
    return covariance / spread if spread else None


def _mean_ranks(values: Sequence[float]) -> list[float]:
    return [sum(w < v for w in values) + (sum(w == v for w in values) + 1) / 2 for v in values]


def correlation(
    groups: Sequence[Ranked], measure: Callable[[Sequence[float], Sequence[int]], float | None]
) -> tuple[float | None, int]:
    """(mean over prompts where it is defined, such prompts) of `spearman` or `tau_b`."""
    values = [v for g in groups if (v := measure(g.scores, g.ranks)) is not None]
    return (sum(values) / len(values) if values else None), len(values)


def judge_metrics(groups: Sequence[Ranked], perfect: float, seed: int = 0) -> dict[str, Estimate]:
    """The five measures, each with n and interval; `pairwiseHalfTies` counts a tie as half right."""
    measures: dict[str, Callable[[Sequence[Ranked]], tuple[float | None, int]]] = {
        "pairwise": pairwise_accuracy,
        "pairwiseHalfTies": lambda g: pairwise_accuracy(g, tie=0.5),
        "fiveBest": lambda g: five_best(g, perfect),
        "exactMatch": exact_match,
        "spearman": lambda g: correlation(g, spearman),
        "kendall": lambda g: correlation(g, tau_b),
    }
    estimates = {}
    for name, measure in measures.items():
        value, n = measure(groups)
        low, high = bootstrap_interval(groups, lambda g, m=measure: m(g)[0], seed)  # type: ignore[misc]
        excluded = len(groups) - n if name in ("spearman", "kendall", "exactMatch") else 0
        estimates[name] = Estimate(value, n, low, high, excluded)
    return estimates


def bootstrap_interval(
    groups: Sequence[Ranked], measure: Callable[[Sequence[Ranked]], float | None], seed: int = 0
) -> tuple[float | None, float | None]:
    """95% percentile interval of `measure`; whole prompts are drawn, since answers of a prompt belong together."""
    import random

    random_source = random.Random(seed)  # noqa: S311 - statistics, not secrets
    values = []
    for _ in range(BOOTSTRAP_SAMPLES if len(groups) > 1 else 0):
        value = measure(random_source.choices(groups, k=len(groups)))
        if value is not None:
            values.append(value)
    if not values:
        return None, None
    values.sort()
    return values[int(0.025 * (len(values) - 1))], values[round(0.975 * (len(values) - 1))]


def outcome(first: str | None, second: str | None) -> str:
    """Win, tie, loss or unreadable of a comparison in both orders; the model is A first, then B."""
    if first is None or second is None:
        return "unreadable"
    if first == "A" and second == "B":
        return "win"
    return "loss" if first == "B" and second == "A" else "tie"


@dataclass(frozen=True)
class HeadToHead:
    """How a model did against another; rates are over readable comparisons."""

    wins: int
    ties: int
    losses: int
    unreadable: int

    @property
    def win_rate(self) -> float | None:
        """Wins plus half the ties over all readable comparisons."""
        n = self.wins + self.ties + self.losses
        return (self.wins + self.ties / 2) / n if n else None


def head_to_head(comparisons: Iterable[Comparison]) -> HeadToHead:
    """Counts the outcomes."""
    outcomes = [c.outcome for c in comparisons]
    return HeadToHead(*(outcomes.count(kind) for kind in ("win", "tie", "loss", "unreadable")))
