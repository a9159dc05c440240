"""The ways to score an answer with a model: sampled verdicts, and the expected score from the digit's logits.

What tells them apart is in `srlm_contract.scorers`; here is one function each, chosen by `SCORING`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, pvariance
from typing import Any, Literal

from srlm_contract.errors import BadInput
from srlm_contract.rows import Verdict
from srlm_contract.scorers import Scorer
from srlm_contract.tasks import JudgeParams

from ..conversation.chat import chat_prompt, messages, render_chat
from ..engines import Completion, Engine, OnProgress, Request, ScoreLine
from ..engines.answers import verdict_of
from ..engines.choice_tokens import choice_tokens
from .external import Ask, ExternalJudge
from .score_words import SCORE_LEAD, label_of
from .verdict import parse_score

DIGITS = "012345"
#: Fewest tokens a verdict gets when a long prompt leaves less than the wanted number.
MIN_VERDICT_TOKENS = 96
#: Tokens kept for the score line when the text before it is bounded in characters.
SCORE_LINE_TOKENS = 14


@dataclass(frozen=True)
class Task:
    """An answer to judge: its row id and the filled rubric."""

    id: str
    prompt: str


@dataclass(frozen=True)
class Score:
    """What one scorer says about one answer."""

    verdicts: tuple[Verdict, ...] = ()
    score: float | None = None
    variance: float | None = None
    digit_mass: float | None = None


@dataclass
class Tally:
    """Counts over everything asked."""

    asked: int = 0
    parsed: int = 0
    truncated: int = 0
    tokens: int = 0
    too_long: int = 0
    example: str = ""
    """An unreadable verdict, for messages."""
    scores: dict[str, int] = field(default_factory=dict)

    def add(self, completion: Completion, score: float | None) -> None:
        """Count one verdict."""
        self.asked += 1
        self.tokens += completion.tokens
        self.truncated += completion.truncated
        if score is None:
            self.example = self.example or completion.text
        else:
            self.parsed += 1
            self.scores[f"{score:g}"] = self.scores.get(f"{score:g}", 0) + 1


def score_line(budget: int, lead: str, density: float = 1.0) -> ScoreLine:
    """The constraint that leaves room for the score line in `budget` tokens; a byte of `lead` needs at most one.

    density: tokens a character of the judge's prompt, above 1 where the tokenizer cuts letters of a script into bytes:
    the verdict will be of the same kind.
    """
    room = budget - SCORE_LINE_TOKENS - max(0, len(lead.encode()) - len(SCORE_LEAD))
    return ScoreLine(max(int(room / max(density, 1.0)), 1), lead)


def verdict_budget(prompt_tokens: int, wanted: int, limit: int) -> int | None:
    """Tokens a verdict may have: what is wanted, or what the context leaves; None when that is too little."""
    room = limit - prompt_tokens
    return min(wanted, room) if room >= min(wanted, MIN_VERDICT_TOKENS) else None


@dataclass(frozen=True)
class Judge:
    """A judge ready to be asked: a model in an engine, or an external one; neither where there is nothing to judge."""

    params: JudgeParams
    lead: str
    """What the rubric's score line begins with."""
    seed: Callable[[str, str, int], int]
    """(purpose, row id, number of the ask) → seed."""
    engine: Engine | None = None
    tokenizer: Any = None
    limit: int = 0
    """Tokens the engine was opened for."""
    external: ExternalJudge | None = None

    def score(
        self, scorer: Literal["None", Scorer], tasks: Sequence[Task], tally: Tally, on_progress: OnProgress | None
    ) -> list[Score]:
        """A score for each task; `None` scores nothing."""
        return [] if scorer == "None" or not tasks else SCORING[scorer](self, tasks, tally, on_progress)

    def ask_freely(self, tasks: Sequence[Task], tally: Tally, on_progress: OnProgress | None) -> None:
        """One verdict a task without the constraint: how well the judge keeps the format by itself."""
        if tasks:
            self.verdicts(tasks, tally, on_progress, purpose="judge-free", samples=1, max_reasks=0, constrained=False)

    def verdicts(
        self, tasks: Sequence[Task], tally: Tally, on_progress: OnProgress | None, *,
        purpose: str, samples: int, max_reasks: int, constrained: bool,
    ) -> list[list[Verdict]]:  # fmt: skip
        """`samples` verdicts for each task, none where it does not fit the context; unreadable ones are asked again
        with another seed.

        purpose: goes into the seeds. constrained: into the form of the score line.
        """
        verdicts: dict[tuple[int, int], Verdict] = {}
        missing = [(i, j) for i in range(len(tasks)) for j in range(samples)]
        too_long: set[int] = set()
        for ask in range(1 + max_reasks):
            if not missing:
                break
            asks = [Ask(tasks[i].prompt, self.seed(purpose, tasks[i].id, j + ask * samples)) for i, j in missing]
            answers = self._answers(asks, tally, on_progress if ask == 0 else None, constrained)
            for (i, j), asked, answer in zip(missing, asks, answers, strict=True):
                if answer is None:
                    too_long.add(i)
                    continue
                score = parse_score(answer.text, label_of(self.lead))
                tally.add(answer, score)
                verdicts[i, j] = Verdict(text=answer.text, score=score, seed=asked.seed, asks=ask + 1)
            missing = [k for k in missing if k in verdicts and verdicts[k].score is None]
        tally.too_long += len(too_long)
        return [[verdicts[i, j] for j in range(samples) if (i, j) in verdicts] for i in range(len(tasks))]

    def _answers(
        self, asks: Sequence[Ask], tally: Tally, on_progress: OnProgress | None, constrained: bool
    ) -> list[Completion | None]:
        """What the judge writes; None where the task does not fit its context."""
        if self.external is not None:
            return self.external.ask(asks, on_progress)
        assert self.engine is not None
        sampling = self.params.sampling
        # A score line is forced on what comes next: that must not be a thought.
        prompts = [chat_prompt(self.tokenizer, messages(ask.text), thinking=not constrained) for ask in asks]
        budgets = [verdict_budget(len(prompt.ids), sampling.max_tokens, self.limit) for prompt in prompts]
        requests = [
            Request(
                prompt.ids,
                seed=ask.seed,
                max_tokens=budget,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                constraint=score_line(budget, self.lead, len(prompt.ids) / len(ask.text)) if constrained else None,
            )
            for prompt, budget, ask in zip(prompts, budgets, asks, strict=True)
            if budget is not None
        ]
        tally.tokens += sum(len(request.prompt) for request in requests)
        answers = iter(self.engine.generate(requests, on_progress))
        return [
            None if budget is None else verdict_of(self.tokenizer, next(answers), prompt.opened)
            for prompt, budget in zip(prompts, budgets, strict=True)
        ]


def sampled_scores(judge: Judge, tasks: Sequence[Task], tally: Tally, on_progress: OnProgress | None) -> list[Score]:
    """Mean of `samples` verdicts for each task; no score with fewer than `minValidSamples` readable ones."""
    params = judge.params
    found = judge.verdicts(
        tasks, tally, on_progress, purpose="judge", samples=params.samples, max_reasks=params.max_reasks,
        constrained=params.constrain == "ScoreLine",
    )  # fmt: skip
    return [_mean(verdicts, params.min_valid_samples) for verdicts in found]


def _mean(verdicts: list[Verdict], min_valid: int) -> Score:
    scores = [v.score for v in verdicts if v.score is not None]
    if len(scores) < max(min_valid, 1):
        return Score(tuple(verdicts))
    return Score(tuple(verdicts), fmean(scores), pvariance(scores))


def expected_scores(judge: Judge, tasks: Sequence[Task], tally: Tally, on_progress: OnProgress | None) -> list[Score]:
    """Σ s·p / Σ p over the digits 0 .. 5 right after the rubric's `Score: `; Σ p is the digit mass.

    The model gives its score without reasoning first, unlike the paper's judge. Below `minDigitMass` the verdict is
    unusable: the model wanted to say something else.
    """
    assert judge.engine is not None  # external judges are refused: they tell no probabilities
    tokenizer, min_mass = judge.tokenizer, judge.params.min_digit_mass
    encoded = [
        choice_tokens(tokenizer, render_chat(tokenizer, messages(task.prompt)), judge.lead, DIGITS) for task in tasks
    ]
    fitting = [i for i, (prompt, _) in enumerate(encoded) if len(prompt) < judge.limit]
    tally.too_long += len(tasks) - len(fitting)
    digits = {ids for _, ids in encoded}
    if len(digits) > 1:
        raise BadInput("JudgeNotUsable", "the tokenizer encodes score digits differently from row to row; use Sampled")
    found = judge.engine.next_token_probabilities([encoded[i][0] for i in fitting], list(*digits), on_progress)
    scores = [Score() for _ in tasks]
    for i, probabilities in zip(fitting, found, strict=True):
        mass = sum(probabilities)
        value = sum(s * p for s, p in enumerate(probabilities)) / mass if mass >= min_mass and mass > 0 else None
        tally.asked += 1
        tally.tokens += len(encoded[i][0]) + 1
        if value is not None:
            tally.parsed += 1
            bin_name = f"{round(value):g}"
            tally.scores[bin_name] = tally.scores.get(bin_name, 0) + 1
        scores[i] = Score((Verdict(text="", score=value),), value, None, mass)
    return scores


SCORING: Mapping[Scorer, Callable[[Judge, Sequence[Task], Tally, OnProgress | None], list[Score]]] = {
    "Sampled": sampled_scores,
    "ExpectedScore": expected_scores,
}
