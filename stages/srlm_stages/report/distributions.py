"""Distributions of scores and lengths, added row by row into fixed bins."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import log2

#: Score bins a point: 0, 0.5 .. 5.
SCORE_BINS = 2
#: Length bins a doubling.
LENGTH_BINS = 3


@dataclass
class Distribution:
    """Scores (0 to 5, maybe absent) and lengths of texts."""

    rows: int = 0
    scored: int = 0
    scores: dict[float, int] = field(default_factory=dict)
    """Rows by score, rounded to half points."""
    lengths: dict[int, int] = field(default_factory=dict)
    """Rows by bin: bin b holds 2^(b/3) to 2^((b+1)/3) characters; 0 holds empty texts and single characters."""
    characters: int = 0
    points: float = 0
    """Sum of the scores."""

    def add(self, score: float | None, length: int) -> None:
        """One row."""
        self.rows += 1
        self.characters += length
        length_bin = int(LENGTH_BINS * log2(length)) if length > 0 else 0
        self.lengths[length_bin] = self.lengths.get(length_bin, 0) + 1
        if score is None:
            return
        self.scored += 1
        score_bin = round(score * SCORE_BINS) / SCORE_BINS
        self.scores[score_bin] = self.scores.get(score_bin, 0) + 1
        self.points += score

    @property
    def mean_score(self) -> float | None:
        return self.points / self.scored if self.scored else None

    @property
    def mean_length(self) -> float | None:
        return self.characters / self.rows if self.rows else None
