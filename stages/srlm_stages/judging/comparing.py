"""Which of two answers is better: a judge's choice between A and B, asked in both orders."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from srlm_contract.rows import Choice
from srlm_contract.tasks import ChooseParams, EvaluateParams

from ..context import StageContext
from ..conversation.chat import messages, render_chat
from ..engines.choice_tokens import choice_tokens
from ..engines.model import LanguageModel
from .external import Ask, ExternalJudge

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


def choices_by_model(
    ctx: StageContext, path: Path, params: EvaluateParams | ChooseParams, pairings: Sequence[Pairing]
) -> tuple[list[tuple[Choice | None, Choice | None]], int]:
    """(choice in each order for each pairing, tokens read), from the probabilities of A and B."""
    judge = LanguageModel.of(ctx, params, path)
    texts = [text for pairing in pairings for text in pairing.questions()]
    tokenizer = judge.tokenizer
    encoded = [choice_tokens(tokenizer, render_chat(tokenizer, messages(text)), CHOICE_LEAD, "AB") for text in texts]
    fitting = judge.fit([prompt for prompt, _ in encoded], 1, "comparisons")
    choices: list[Choice | None] = [None] * len(texts)
    if fitting:
        longest = max(len(encoded[i][0]) for i in fitting)
        with judge.engine(longest + 1, len(fitting), "comparisons") as engine:
            found = engine.next_token_probabilities(
                [encoded[i][0] for i in fitting],
                list(encoded[fitting[0]][1]),
                lambda done, tokens: ctx.progress.update(done, len(fitting), unit="comparisons"),
            )
        for i, (a, b) in zip(fitting, found, strict=True):
            choices[i] = choice(a, b)
    pairs = list(zip(choices[::2], choices[1::2], strict=True))
    return pairs, sum(len(encoded[i][0]) for i in fitting)


def choice(a: float, b: float) -> Choice | None:
    """The more probable letter; None when neither is meant, or both equally."""
    if a + b < MIN_CHOICE_MASS or a == b:
        return None
    return "A" if a > b else "B"


def choices_by_api(
    ctx: StageContext, judge: ExternalJudge, pairings: Sequence[Pairing]
) -> tuple[list[tuple[Choice | None, Choice | None]], int]:
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
