"""The ways a verdict becomes a score: one row each, read by operator, command line and stages alike.

A new scorer: its name and row here, and its function in `srlm_stages.judging.scoring`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

#: The mean of sampled verdicts, or the expected score from the digits' logits.
Scorer = Literal["Sampled", "ExpectedScore"]


@dataclass(frozen=True)
class Traits:
    """What is true of every verdict of a scorer."""

    writes: bool
    """Whether the judge writes its verdicts: `judging.samples` of them about an answer. One that does not reads the
    probabilities of the score digits, once an answer; no external judge tells them."""
    perfect_score: float
    """From this score on an answer counts as judged five out of five."""
    remark: tuple[str, str] | None = None
    """Title and text of what somebody must know who compares its scores with others."""

    def calls(self, samples: int) -> int:
        """Verdicts about one answer, those asked again left out."""
        return samples if self.writes else 1

    def tokens(self, longest: int) -> int:
        """Tokens of one verdict at most; longest: `judging.sampling.maxTokens`."""
        return longest if self.writes else 1


SCORERS: Mapping[Scorer, Traits] = {
    "Sampled": Traits(writes=True, perfect_score=5),
    "ExpectedScore": Traits(
        writes=False,
        perfect_score=4.5,
        remark=(
            "Scores are read from the digit's probabilities",
            "judging.scorer ExpectedScore asks for no reasoning first, unlike the paper.",
        ),
    ),
}

#: Scorers that an external judge can serve, and those that it cannot.
WRITING = tuple(name for name, traits in SCORERS.items() if traits.writes)
READING = tuple(name for name, traits in SCORERS.items() if not traits.writes)
