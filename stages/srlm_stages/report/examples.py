"""A bounded sample of prompts with everything said about them, drawn by hash so that it is the same each time."""

from __future__ import annotations

import hashlib
import heapq
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from srlm_contract.graph import model_name
from srlm_contract.rows import Comparison, Judgement, Positive, PreferencePair, ValidationAnswer

from .collect import Collected, first_and_last

#: Prompts shown over all iterations, and of validation prompts.
MAX_PROMPTS = 120
MAX_PROMPTS_AN_ITERATION = 20
#: Answers shown of a prompt: the best and the worst of them when there are more.
MAX_ANSWERS = 8
MAX_VERDICTS = 3
#: Characters shown of a prompt or answer, and of a verdict.
MAX_TEXT = 1600
MAX_VERDICT_TEXT = 600

RowT = TypeVar("RowT")


@dataclass(frozen=True)
class VerdictShown:
    score: float | None
    text: str


@dataclass(frozen=True)
class Answer:
    """An answer side by side with others."""

    label: str
    """`answer 1`, or the model's name."""
    text: str
    characters: int
    score: float | None = None
    variance: float | None = None
    tokens: int | None = None
    truncated: bool = False
    role: str = ""
    """chosen, rejected or positive; how a comparison came out."""
    verdicts: tuple[VerdictShown, ...] = ()
    shadow_score: float | None = None


@dataclass(frozen=True)
class Example:
    """A prompt and its answers."""

    group: str
    """Shown with the heading of this group, such as `M2`."""
    prompt: str
    answers: tuple[Answer, ...]
    left_out: int = 0
    """Answers not shown."""


@dataclass
class Group:
    """Examples of one kind."""

    name: str
    title: str
    total: int
    """Prompts there are."""
    examples: list[Example] = field(default_factory=list)


@dataclass
class Examples:
    groups: list[Group]

    @property
    def shown(self) -> int:
        return sum(len(group.examples) for group in self.groups)

    @property
    def total(self) -> int:
        return sum(group.total for group in self.groups)


def read_examples(found: Collected) -> Examples:
    """Candidates of every iteration, then all models' answers to the same validation prompts."""
    judged = [t for t in found.iterations if any(s.manifest for s in found.of(t, "judge"))]
    quota = max(2, min(MAX_PROMPTS_AN_ITERATION, MAX_PROMPTS // max(len(judged), 1)))
    groups = [_candidates(found, t, quota) for t in first_and_last(judged, MAX_PROMPTS // 2)]
    return Examples([g for g in [*groups, _validation(found)] if g.examples])


class Sample(Generic[RowT]):
    """The rows of the prompts with the smallest hashes, while rows stream by: memory is bounded by the quota."""

    def __init__(self, quota: int) -> None:
        self.quota = quota
        self.rows: dict[str, list[RowT]] = {}
        self._largest: list[tuple[int, str]] = []
        self._seen: set[int] = set()

    @property
    def total(self) -> int:
        """Prompts that came by."""
        return len(self._seen)

    def add(self, prompt: str, row: RowT) -> None:
        rank = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:8], "big")
        new = rank not in self._seen
        self._seen.add(rank)
        if prompt in self.rows:
            self.rows[prompt].append(row)
        elif new and (len(self.rows) < self.quota or rank < -self._largest[0][0]):
            self.rows[prompt] = [row]
            heapq.heappush(self._largest, (-rank, prompt))
            if len(self.rows) > self.quota:
                _, dropped = heapq.heappop(self._largest)
                del self.rows[dropped]


def _candidates(found: Collected, iteration: int, quota: int) -> Group:
    """Candidates of one iteration with scores, verdicts and what became of them."""
    sample: Sample[Judgement] = Sample(quota)
    for stage in found.of(iteration, "judge"):
        for row in found.rows(stage, "judgements*.jsonl", Judgement):
            sample.add(row.prompt_id, row)
    roles = _roles(found, iteration, sample)
    writer, made = model_name(iteration - 1), model_name(iteration)
    group = Group(made, f"Candidates by {writer}, on the way to {made}", sample.total)
    for _, rows in sorted(sample.rows.items()):
        ordered = sorted(rows, key=lambda r: (-(r.score if r.score is not None else -1), r.id))
        kept = first_and_last(ordered, MAX_ANSWERS)
        answers = tuple(_judged(i, row, roles) for i, row in enumerate(kept, 1))
        group.examples.append(Example(made, cut(ordered[0].prompt, MAX_TEXT), answers, len(ordered) - len(kept)))
    return group


def _judged(number: int, row: Judgement, roles: dict[str, str]) -> Answer:
    return Answer(
        label=f"answer {number}",
        text=cut(row.answer, MAX_TEXT),
        characters=len(row.answer),
        score=row.score,
        variance=row.variance,
        tokens=row.tokens,
        truncated=row.truncated,
        role=roles.get(row.id) or roles.get(f"{row.prompt_id}\n{row.answer}", ""),
        verdicts=tuple(VerdictShown(v.score, cut(v.text, MAX_VERDICT_TEXT)) for v in row.verdicts[:MAX_VERDICTS]),
        shadow_score=row.shadow_score,
    )


def _roles(found: Collected, iteration: int, sample: Sample[Judgement]) -> dict[str, str]:
    """What the preference data made of the sampled answers, by candidate id (positives: by prompt id and text)."""
    roles: dict[str, str] = {}
    for stage in [s for s in found.of(iteration, "pairs") if s.manifest is not None][-1:]:
        if found.spec.preferences.strategy == "PreferencePairs":
            for pair in found.rows(stage, "pairs*.jsonl", PreferencePair):
                if pair.id in sample.rows:
                    roles |= {pair.chosen_id: "chosen", pair.rejected_id: "rejected"}
        else:
            for row in found.rows(stage, "positives*.jsonl", Positive):
                if row.id in sample.rows:
                    roles[f"{row.id}\n{row.answer}"] = "positive"
    return roles


def _validation(found: Collected) -> Group:
    """The same prompts answered by every model."""
    all_evaluated = [s for t in found.iterations for s in found.of(t, "evaluate") if s.manifest is not None]
    evaluated = first_and_last(all_evaluated, MAX_ANSWERS)
    sample: Sample[tuple[str, ValidationAnswer]] = Sample(MAX_PROMPTS_AN_ITERATION)
    for stage in evaluated:
        for row in found.rows(stage, "answers*.jsonl", ValidationAnswer):
            sample.add(row.id, (model_name(stage.iteration), row))
    outcomes: dict[tuple[str, str], list[str]] = {}
    for stage in evaluated:
        for met in found.rows(stage, "comparisons*.jsonl", Comparison):
            if met.id in sample.rows:
                outcomes.setdefault((met.id, met.model), []).append(f"{met.outcome} against {met.opponent}")
    group = Group("validation", "Validation prompts, answered by every model", sample.total)
    for prompt_id, rows in sorted(sample.rows.items()):
        answers = tuple(
            Answer(
                label=model,
                text=cut(row.answer, MAX_TEXT),
                characters=len(row.answer),
                tokens=row.tokens,
                truncated=row.truncated,
                role=", ".join(outcomes.get((prompt_id, model), ())),
            )
            for model, row in rows
        )
        group.examples.append(Example("validation", cut(rows[0][1].prompt, MAX_TEXT), answers))
    return group


def cut(text: str, limit: int) -> str:
    """At most `limit` characters, and how many are missing."""
    return text if len(text) <= limit else f"{text[:limit]}… [{len(text) - limit:,} more characters]"
