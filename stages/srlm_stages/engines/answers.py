"""From what a model wrote to its answer: without thoughts, and with the length of the answer alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ..conversation.chat import encode_text, traits_of
from ..conversation.thoughts import KNOWN_THOUGHTS, Thought, without_thoughts
from . import Completion


@dataclass(frozen=True)
class Answer:
    """What a model said to the user."""

    text: str
    """Without thoughts and without blanks around it."""
    tokens: int
    """Of the answer; its thought has cost more."""
    truncated: bool
    """Cut by the length limit, while thinking or while answering."""
    thought: bool
    """Whether a thought came before it."""


def answer_of(tokenizer: Any, completion: Completion, opened: Thought | None = None) -> Answer:
    """The answer in a completion; `opened` is the thought that its prompt has opened."""
    traits = traits_of(tokenizer)
    said = without_thoughts(completion.text, traits.thoughts, opened)
    if completion.ids and traits.hidden_thoughts:
        # Marks that are special tokens are not in the engine's text, but what stands between them is.
        whole = without_thoughts(tokenizer.decode(list(completion.ids)), traits.thoughts, opened)
        if whole.thought:
            said = replace(whole, answer=traits.special.left_out(whole.answer).strip())
    if not said.thought:
        return Answer(completion.text.strip(), completion.tokens, completion.truncated, thought=False)
    text = said.answer.strip()
    return Answer(text, len(encode_text(tokenizer, text)), completion.truncated or not said.finished, thought=True)


def verdict_of(tokenizer: Any, completion: Completion, opened: Thought | None = None) -> Completion:
    """A judge's completion without its thoughts: a score in a thought is none, one in an unfinished thought least."""
    answer = answer_of(tokenizer, completion, opened)
    return replace(completion, text=answer.text, truncated=answer.truncated) if answer.thought else completion


def foreign_text(text: str) -> tuple[str, bool]:
    """(what a model of unknown make said, whether it is whole)."""
    said = without_thoughts(text, KNOWN_THOUGHTS)
    return said.answer, said.finished
