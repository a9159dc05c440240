"""Which of two answers is better: a judge's choice between A and B, asked in both orders."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from srlm_contract.errors import BadInput
from srlm_contract.rows import Choice, Compared, ValidationAnswer
from srlm_contract.tasks import ChooseParams, EvaluateParams

from ..context import StageContext
from ..conversation.chat import messages, render_chat
from ..engines import Engine
from ..engines.choice_tokens import choice_tokens
from ..engines.model import LanguageModel
from .external import Ask, ExternalJudge
from .head_to_head import outcome

#: Below this probability of saying A or B at all, the model wanted to say something else.
MIN_CHOICE_MASS = 0.1
CHOICE_LEAD = "The better answer is Answer "
QUESTION = """\
You compare two answers of AI assistants to the same question. Better is the answer that is more helpful, correct, \
relevant and complete without being longer than it needs to be. The order in which they are shown means nothing.

Question:
{question}

Answer A:
{a}

Answer B:
{b}

Which answer is better? Reply with "{lead}" and then A or B, nothing else."""

_LETTER = re.compile(r"\b([AB])\b")
_NAMED = re.compile(r"better\s+answer\s+is[\s:*_]*(?:answer)?[\s:*_]*([AB])\b", re.IGNORECASE)


@dataclass(frozen=True)
class Pairing:
    """A model's answer and an opponent's to the same prompt."""

    opponent: str
    id: str
    prompt: str
    answer: str
    other: str

    def questions(self) -> tuple[str, str]:
        """The judge's task with the model's answer as A, and as B."""
        return _question(self.prompt, self.answer, self.other), _question(self.prompt, self.other, self.answer)


def _question(question: str, a: str, b: str) -> str:
    # One pass, so that braces in the texts stay what they are.
    parts = {"question": question, "a": a, "b": b, "lead": CHOICE_LEAD.strip()}
    return re.sub(r"\{(question|a|b|lead)\}", lambda m: parts[m[1]], QUESTION)


Choices = tuple[Choice | None, Choice | None]
"""What a judge chose in each order; None where that cannot be read."""
Encoded = tuple[tuple[int, ...], tuple[int, ...]]
"""Token ids of a question up to the letter, and those of the two letters."""


def choices_by_model(
    ctx: StageContext, path: Path, params: EvaluateParams | ChooseParams, pairings: Sequence[Pairing]
) -> tuple[list[Choices], int]:
    """(choice in each order for each pairing, tokens read), from the probabilities of A and B."""
    judge = LanguageModel.of(ctx, params, path)
    encoded = _encoded(judge, pairings)
    fitting = judge.fit([prompt for prompt, _ in encoded], 1, "comparisons")
    if not fitting:
        return [(None, None)] * len(pairings), 0
    longest = max(len(encoded[i][0]) for i in fitting)
    return _chosen(judge.engine(longest + 1, len(fitting), "comparisons"), encoded, fitting, ctx)


def _encoded(judge: LanguageModel, pairings: Sequence[Pairing]) -> list[Encoded]:
    """Both questions of each pairing. Raises BadInput JudgeNotUsable where the tokenizer has no tokens A and B."""
    texts = [text for pairing in pairings for text in pairing.questions()]
    tokenizer = judge.tokenizer
    return [choice_tokens(tokenizer, render_chat(tokenizer, messages(text)), CHOICE_LEAD, "AB") for text in texts]


def _chosen(
    engine: Engine, encoded: Sequence[Encoded], fitting: Sequence[int], ctx: StageContext
) -> tuple[list[Choices], int]:
    """(choices from the questions that fit, tokens read)."""
    choices: list[Choice | None] = [None] * len(encoded)
    if fitting:
        found = engine.next_token_probabilities(
            [encoded[i][0] for i in fitting],
            list(encoded[fitting[0]][1]),
            lambda done, tokens: ctx.progress.update(done, len(fitting), unit="comparisons"),
        )
        for i, (a, b) in zip(fitting, found, strict=True):
            choices[i] = choice(a, b)
    pairs = list(zip(choices[::2], choices[1::2], strict=True))
    return pairs, sum(len(encoded[i][0]) for i in fitting)


class OwnChoices:
    """Which answers a model prefers, its own or another's, asked with the engine that wrote its own."""

    def __init__(self, ctx: StageContext, theirs: Mapping[str, Mapping[str, ValidationAnswer]]) -> None:
        """theirs: the others' answers, by opponent and prompt id."""
        self._ctx, self._theirs = ctx, theirs
        self._room = 0
        self.choices: dict[tuple[str, str], Choices] = {}
        """By opponent and prompt id; its own answer is A, then B."""

    @property
    def opponents(self) -> tuple[str, ...]:
        return tuple(self._theirs)

    def room(self, model: LanguageModel, longest: int) -> int:
        """Tokens of the longest question if its own answers are of `longest` tokens."""
        try:
            theirs = [(opponent, a) for opponent, answers in self._theirs.items() for a in answers.values()]
            encoded = _encoded(model, [Pairing(opponent, a.id, a.prompt, "", a.answer) for opponent, a in theirs])
        except BadInput as error:
            self._ctx.warn(f"the model's own preference is not measured: {error}")
            self._theirs = {}
            return 0
        self._room = max((len(prompt) for prompt, _ in encoded), default=0) + longest + 1
        return self._room

    def ask(self, model: LanguageModel, engine: Engine, answers: Sequence[ValidationAnswer]) -> int:
        """Returns the tokens read. Questions that got longer than there is room for are left out."""
        pairings = [p for opponent, theirs in self._theirs.items() for p in meetings(opponent, answers, theirs)]
        encoded = _encoded(model, pairings)
        fitting = [i for i, (prompt, _) in enumerate(encoded) if len(prompt) < model.length(self._room)]
        choices, tokens = _chosen(engine, encoded, fitting, self._ctx)
        self.choices = {(p.opponent, p.id): pair for p, pair in zip(pairings, choices, strict=True)}
        return tokens

    def about(self, pairing: Pairing) -> Compared | None:
        """By its own choices; None where it was not asked."""
        chosen = self.choices.get((pairing.opponent, pairing.id))
        return None if chosen is None else outcome(*chosen)


def meetings(
    opponent: str, answers: Sequence[ValidationAnswer], theirs: Mapping[str, ValidationAnswer]
) -> list[Pairing]:
    """A model's answers beside an opponent's to the same prompts."""
    return [Pairing(opponent, a.id, a.prompt, a.answer, theirs[a.id].answer) for a in answers if a.id in theirs]


def choice(a: float, b: float) -> Choice | None:
    """The more probable letter; None when neither is meant, or both equally."""
    if a + b < MIN_CHOICE_MASS or a == b:
        return None
    return "A" if a > b else "B"


def choices_by_api(ctx: StageContext, judge: ExternalJudge, pairings: Sequence[Pairing]) -> tuple[list[Choices], int]:
    """As choices_by_model, from the reply's text."""
    asks = [
        Ask(text, ctx.seed("compare", f"{pairing.opponent} {pairing.id}", order))
        for pairing in pairings
        for order, text in enumerate(pairing.questions())
    ]
    try:
        answers = judge.ask(
            asks, lambda done, tokens: ctx.progress.update(done, len(asks), unit="comparisons", tokens=tokens)
        )
    finally:
        judge.close()
    choices = [read_choice(answer.text) if answer is not None else None for answer in answers]
    tokens = sum(answer.tokens for answer in answers if answer is not None)
    return list(zip(choices[::2], choices[1::2], strict=True)), tokens


def read_choice(text: str) -> Choice | None:
    """The letter a reply calls better, else the only letter in it; None when it names none or both."""
    found = _NAMED.findall(text)[-1:] or sorted(set(_LETTER.findall(text)))
    if len(found) != 1:
        return None
    return "A" if found[0].upper() == "A" else "B"
