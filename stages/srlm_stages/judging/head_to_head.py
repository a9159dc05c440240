"""One model against another: who wins, how surely, and what position and length have to do with it. Pure functions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, sqrt

import numpy as np

from srlm_contract.rows import Choice, Compared, Comparison

from .metrics import MIN_PROMPTS, Estimate, Z, estimate, share

POINTS: Mapping[str, float] = {"win": 1.0, "tie": 0.5, "loss": 0.0}
"""What an outcome counts; one that cannot be read counts nothing, neither for nor against."""
#: Prompts of at most this many characters are short.
SHORT_PROMPT = 100
#: Largest coefficient of a regression that is told; beyond it the data say no more than "always".
MAX_COEFFICIENT = 15.0


def outcome(first: Choice | None, second: Choice | None) -> Compared:
    """Win, tie, loss or unreadable of a comparison in both orders; the model is A first, then B."""
    if first is None or second is None:
        return "unreadable"
    if first == "A" and second == "B":
        return "win"
    return "loss" if first == "B" and second == "A" else "tie"


@dataclass(frozen=True)
class HeadToHead:
    """How a model did against another; rates are over readable comparisons, one a prompt."""

    wins: int
    ties: int
    losses: int
    unreadable: int

    @property
    def compared(self) -> int:
        """Readable comparisons."""
        return self.wins + self.ties + self.losses

    @property
    def win_rate(self) -> float | None:
        """Wins plus half the ties over all readable comparisons."""
        return self.rate.value

    @property
    def rate(self) -> Estimate:
        """The win rate with its interval."""
        return share(self.wins + self.ties / 2, self.compared)

    @property
    def flips(self) -> Estimate:
        """Share of comparisons in which the judge named the other answer once the order was swapped: what it said came
        from position, and counts as a tie."""
        return share(self.ties, self.compared)


def head_to_head(comparisons: Iterable[Comparison]) -> HeadToHead:
    """Counts the outcomes."""
    outcomes = [c.outcome for c in comparisons]
    return HeadToHead(*(outcomes.count(kind) for kind in ("win", "tie", "loss", "unreadable")))


def length_controlled(comparisons: Iterable[Comparison]) -> Estimate:
    """Win rate if both answers were equally long.

    The logistic regression of AlpacaEval 2 (Dubois, Galambosi, Liang and Hashimoto 2024, arXiv 2404.04475, section 3):
    logit P(win) = theta + phi tanh(d / sd(d)) with d the difference of the answers' lengths in characters; the rate
    is sigmoid(theta). Left out is its term for the difficulty of an instruction, which takes many models to
    estimate, and its penalty: where the data do not tell theta apart from phi there is no figure. Ties count half.
    The interval is that of theta by the Fisher information, which ties make wider than need be.

    n: readable comparisons with known lengths. No value for fewer than MIN_PROMPTS of them.
    """
    rows = [
        (POINTS[c.outcome], c.characters - c.opponent_characters)
        for c in comparisons
        if c.outcome in POINTS and c.characters is not None and c.opponent_characters is not None
    ]
    if len(rows) < MIN_PROMPTS:
        return Estimate(None, len(rows))
    points, differences = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    spread = float(differences.std(ddof=1))
    fitted = (
        _logistic(np.stack([np.ones(len(rows)), np.tanh(differences / spread)], axis=1), points) if spread else None
    )
    if fitted is None:
        return Estimate(None, len(rows))
    theta, error = fitted
    return Estimate(_sigmoid(theta), len(rows), _sigmoid(theta - Z * error), _sigmoid(theta + Z * error))


def _logistic(features: np.ndarray, targets: np.ndarray) -> tuple[float, float] | None:
    """(first coefficient of the likeliest logistic regression, its standard error); None where there is none."""
    weights = np.zeros(features.shape[1])
    for _ in range(100):
        chance = 1 / (1 + np.exp(-features @ weights))
        information = features.T @ (features * (chance * (1 - chance))[:, None])
        if np.linalg.cond(information) > 1e10:
            return None
        step = np.linalg.solve(information, features.T @ (targets - chance))
        weights = weights + step
        if np.abs(weights).max() > MAX_COEFFICIENT:
            return None
        if np.abs(step).max() < 1e-9:
            error = sqrt(float(np.linalg.inv(information)[0, 0]))
            return (float(weights[0]), error) if isfinite(error) else None
    return None


def _sigmoid(x: float) -> float:
    return float(1 / (1 + np.exp(-x)))


def self_preference(comparisons: Iterable[Comparison]) -> Estimate:
    """How much oftener a model prefers its own answer than the fixed judge does: its win rate by its own choices, less
    that by the judge's, over the prompts where both can be read; -1 to 1, 0 for no preference.

    Judges are known to recognise and favour their own texts (Panickssery, Bowman and Feng 2024, arXiv 2404.13076).
    """
    pairs = ((POINTS.get(c.own or ""), POINTS.get(c.outcome)) for c in comparisons)
    return estimate([(own - judged, 1) for own, judged in pairs if own is not None and judged is not None])


KINDS: Mapping[str, Callable[[str], bool]] = {
    f"prompts of at most {SHORT_PROMPT} characters": lambda prompt: len(prompt) <= SHORT_PROMPT,
    "longer prompts": lambda prompt: len(prompt) > SHORT_PROMPT,
    "prompts that end with a question mark": lambda prompt: prompt.rstrip().endswith(("?", "？", "؟")),
    "other prompts": lambda prompt: not prompt.rstrip().endswith(("?", "？", "؟")),
}
"""Kinds of prompts that can be told from any text: two by length, two by form; each prompt is of one of either."""


def by_kind(comparisons: Sequence[Comparison]) -> dict[str, HeadToHead]:
    """Outcomes by kind of prompt; kinds without a prompt are left out."""
    kinds: dict[str, list[Comparison]] = defaultdict(list)
    for name, fits in KINDS.items():
        for comparison in comparisons:
            if fits(comparison.prompt):
                kinds[name].append(comparison)
    return {name: head_to_head(rows) for name, rows in kinds.items()}
