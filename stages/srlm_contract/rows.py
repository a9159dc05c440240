"""Rows of the JSON Lines files that stages hand over. One model a file; optional fields come with defaults."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .base import Contract

#: Row schemas are part of every key through this number; raise it when a row changes its meaning.
ROW_SCHEMA = 1

#: People's answers to validation prompts, in the artifact of `data`; older ones have none.
REFERENCES = "references.jsonl"
#: Their name as an opponent.
PEOPLE = "People"


class SeedExample(Contract):
    """`data: ift.jsonl`: a human prompt with its best human answer."""

    id: str
    """Content id of the prompt."""
    prompt: str
    answer: str


class RankedAnswer(Contract):
    """`data: ranked-train.jsonl, ranked-heldout.jsonl`: one human-ranked answer. Rank 0 is the best."""

    id: str
    """Content id of (prompt, answer)."""
    prompt_id: str
    prompt: str
    answer: str
    rank: int = Field(ge=0)


class PromptRow(Contract):
    """`data: validation.jsonl`, `prompts: prompts.jsonl`: one prompt."""

    id: str
    prompt: str
    source: Literal["seed", "generated", "pool"] = "generated"


class Candidate(Contract):
    """`generate: candidates.jsonl`: one answer of M_t."""

    id: str
    """Content id of (prompt, answer, sample)."""
    prompt_id: str
    prompt: str
    answer: str
    sample: int = Field(ge=0)
    """0 .. N-1."""
    tokens: int = Field(ge=0)
    """Length of the answer in tokens."""
    truncated: bool = False
    """Cut by the length limit: not a finished answer."""
    seed: int = 0


class Verdict(Contract):
    """One asked verdict about an answer."""

    text: str
    """What the judge wrote; empty for ExpectedScore."""
    score: float | None = None
    """0 .. 5, or None when no score can be read: absent, never zero."""
    seed: int = 0
    asks: int = 1
    """How often it was asked until readable or given up."""


class Judgement(Contract):
    """`judge: judgements.jsonl`: all verdicts about one answer."""

    id: str
    """Id of the judged Candidate or RankedAnswer."""
    prompt_id: str
    prompt: str
    answer: str
    verdicts: tuple[Verdict, ...]
    score: float | None = None
    """Mean of the readable verdicts, or the expected score; None with fewer than minValidSamples."""
    variance: float | None = None
    """Population variance of the readable verdicts."""
    digit_mass: float | None = None
    """ExpectedScore: probability of any score digit."""
    rank: int | None = None
    """Human rank, for human-ranked answers."""
    tokens: int | None = None
    """Answer length in tokens."""
    truncated: bool = False
    shadow_score: float | None = None
    """Score by the shadow scorer, on its sample."""


class EftExample(Contract):
    """`select: eft.jsonl`: a judge task with the verdict to learn."""

    id: str
    prompt: str
    """The whole judge prompt (rubric, question, answer)."""
    answer: str
    """The verdict text, score last."""
    score: float


class PreferencePair(Contract):
    """`pairs: pairs.jsonl`: best against worst answer of one prompt."""

    id: str
    """Prompt id."""
    prompt: str
    chosen: str
    rejected: str
    chosen_id: str
    rejected_id: str
    chosen_score: float
    rejected_score: float
    chosen_tokens: int = 0
    rejected_tokens: int = 0


class Positive(Contract):
    """`pairs: positives.jsonl`: a prompt with an answer good enough to imitate."""

    id: str
    prompt: str
    answer: str
    score: float | None = None
    """None for human seed examples."""


class ValidationAnswer(Contract):
    """`evaluate: answers.jsonl`: the answer of M_t to a validation prompt, kept for later comparisons;
    `data: references.jsonl`: the one that people ranked best."""

    id: str
    prompt: str
    answer: str
    tokens: int = 0
    truncated: bool = False


Choice = Literal["A", "B"]
Compared = Literal["win", "tie", "loss", "unreadable"]


class Comparison(Contract):
    """`evaluate: comparisons.jsonl`: one head-to-head comparison in both orders."""

    id: str
    prompt: str
    model: str
    opponent: str
    first: Choice | None = None
    """Verdict with the model's answer as A; None when unreadable."""
    second: Choice | None = None
    """Verdict with the model's answer as B."""
    outcome: Compared
    own: Compared | None = None
    """The outcome by the model's own choices; None where it was not asked."""
    characters: int | None = None
    """Length of the model's answer."""
    opponent_characters: int | None = None
    """Length of the opponent's."""
