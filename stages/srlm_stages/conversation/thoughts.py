"""Thoughts of reasoning models: told apart from answers by the marks around them, and cut off.

A thought is neither judged nor counted nor trained on. One that does not end is an answer that was cut. Which marks
a model uses is read from its template and its tokenizer; an answer that begins with any known opening mark begins
with a thought, whatever the model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_TOKENS = re.compile(r"<\|?\w+\|?>")


@dataclass(frozen=True)
class Thought:
    """The marks around a thought."""

    opening: str
    closing: str

    @property
    def tokens(self) -> tuple[str, ...]:
        """Spellings of the tokens that the marks may be made of."""
        return (self.opening, self.closing, *_TOKENS.findall(self.opening + self.closing))

    def closed_after(self, prompt: str) -> str:
        """What ends, at once, a thought that `prompt` has opened; in the lines it was opened with."""
        own_line = prompt.rstrip(" ").endswith("\n")
        return f"\n{self.closing}\n\n" if own_line else self.closing


#: Marks in use: Qwen, DeepSeek and most others, then one family each.
KNOWN_THOUGHTS = (
    Thought("<think>", "</think>"),
    Thought("<thinking>", "</thinking>"),
    Thought("<thought>", "</thought>"),
    Thought("<thoughts>", "</thoughts>"),
    Thought("<reasoning>", "</reasoning>"),
    Thought("<reason>", "</reason>"),
    Thought("<seed:think>", "</seed:think>"),
    Thought("<mm:think>", "</mm:think>"),
    Thought("[THINK]", "[/THINK]"),
    Thought("◁think▷", "◁/think▷"),
    Thought("<|begin_of_thought|>", "<|end_of_thought|>"),
    Thought("<|START_THINKING|>", "<|END_THINKING|>"),
    Thought("<|channel>thought", "<channel|>"),
    Thought("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),
)
#: Marks around the answer itself that some of these models write after a thought.
_WRAPPED = re.compile(
    r"\s*(?:<answer>|<\|begin_of_solution\|>|<\|START_RESPONSE\|>)(.*?)"
    r"(?:</answer>|<\|end_of_solution\|>|<\|END_RESPONSE\|>)?\s*",
    re.DOTALL,
)


@dataclass(frozen=True)
class Said:
    """A completion without its thoughts."""

    answer: str
    finished: bool
    """False when a thought does not end: there is no whole answer."""
    thought: bool
    """Whether there was a thought."""


def thoughts_in(template: str, tokens: Iterable[str]) -> tuple[Thought, ...]:
    """The marks a model uses: those its template writes or looks for, or that are tokens of its tokenizer."""
    known = set(tokens)
    return tuple(
        thought
        for thought in KNOWN_THOUGHTS
        if thought.opening in template or thought.closing in template or {thought.opening, thought.closing} & known
    )


def opened_in(generation_prompt: str, thoughts: Sequence[Thought]) -> Thought | None:
    """The thought that the end of a prompt has opened and not closed."""
    for thought in thoughts:
        _, opening, after = generation_prompt.rpartition(thought.opening)
        if opening and not after.strip():
            return thought
    return None


def without_thoughts(text: str, thoughts: Sequence[Thought], opened: Thought | None = None) -> Said:
    """Cut off what a model thinks before it answers.

    thoughts: marks that count anywhere; any known opening mark counts at the beginning. opened: the thought that the
    prompt has opened already.
    """
    if opened is not None and not text.lstrip().startswith(opened.opening):
        text = opened.opening + text
    begun = [thought for thought in KNOWN_THOUGHTS if text.lstrip().startswith(thought.opening)]
    found = False
    for thought in dict.fromkeys([*begun, *thoughts]):
        rest = re.sub(f"{re.escape(thought.opening)}.*?{re.escape(thought.closing)}", "", text, flags=re.DOTALL)
        before, opening, _ = rest.partition(thought.opening)
        if opening:
            return Said(before.strip(), finished=False, thought=True)
        rest = rest.rpartition(thought.closing)[2]  # of a thought whose opening was left out
        found, text = found or rest != text, rest
    wrapped = _WRAPPED.fullmatch(text) if found else None
    if wrapped is not None:
        text = wrapped[1]
    return Said(text.strip() if found else text, finished=True, thought=found)
