"""Rows and pairs → token ids, as TRL's trainers take them: loss on the answers only."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from srlm_contract.errors import BadInput
from srlm_contract.rows import PreferencePair

from ..conversation.chat import (
    Rendered,
    encode_inside,
    encode_rendered,
    messages,
    render_chat,
    render_exchange,
    traits_of,
)
from ..conversation.thoughts import Thought, without_thoughts
from .config import SupervisedRow

IGNORED = -100
"""Label of a token without loss."""


def encode_answer(tokenizer: Any, system_prompt: str, prompt: str, answer: str) -> tuple[list[int], list[int]]:
    """(prompt ids, answer ids) of one exchange; the answer ids end with what ends a turn in the template.

    The prompt ids are exactly what the engine is given when it generates. Answers are taught without thoughts: one in
    the answer is cut off, an empty one that the template writes before finished answers is left out, and one that the
    prompt has opened is ended at once. Raises BadInput TemplateNotUsable when the template writes a conversation
    differently once it has an answer.
    """
    thoughts = traits_of(tokenizer).thoughts
    said = without_thoughts(answer, thoughts)
    answer = said.answer if said.finished and said.answer.strip() else answer
    turns = messages(prompt, system_prompt)
    before = render_chat(tokenizer, turns)
    whole = render_exchange(tokenizer, turns, answer)
    shared = _without_last_thought(before.text.replace(before.mark, ""), thoughts)
    length = _prefix_length(whole, shared)
    if length is None:
        raise BadInput(
            "TemplateNotUsable",
            "the chat template does not continue its own generation prompt: the text of a conversation up to the "
            "answer must begin the text of the whole conversation",
        )
    said_text = _without_first_thought(whole.text[length:], thoughts)
    turn = _one_turn(tokenizer, Rendered(said_text, whole.mark), answer)
    closing = before.closed().text[len(before.text) :]
    prompt_ids = encode_rendered(tokenizer, before)
    start = Rendered(before.text.replace(before.mark, whole.mark), whole.mark)
    whole_ids = encode_rendered(tokenizer, start, closing + turn)
    if whole_ids[: len(prompt_ids)] == prompt_ids:
        return list(prompt_ids), list(whole_ids[len(prompt_ids) :])
    # Letters merged across the border: the engine never sees that token, so the answer is encoded by itself.
    return list(prompt_ids), list(encode_inside(tokenizer, Rendered(closing + turn, whole.mark)))


def _prefix_length(whole: Rendered, shared: str) -> int | None:
    """Characters of the marked text that spell `shared`; None when it begins otherwise."""
    if whole.mark not in whole.text:
        return len(shared) if whole.text.startswith(shared) else None
    at = 0
    for position, character in enumerate(whole.text):
        if at == len(shared):
            return position
        if character == whole.mark:
            continue
        if character != shared[at]:
            return None
        at += 1
    return len(whole.text) if at == len(shared) else None


def _without_last_thought(text: str, thoughts: Iterable[Thought]) -> str:
    """`text` without an empty or just opened thought, or the mark that ends one, at its end: finished answers may be
    shown without it."""
    for thought in thoughts:
        opening, closing = re.escape(thought.opening), re.escape(thought.closing)
        text = re.sub(rf"(?:{opening}\s*(?:{closing}\s*)?|{closing}\s*)\Z", "", text)
    return text


def _without_first_thought(text: str, thoughts: Iterable[Thought]) -> str:
    """`text` without the empty thought, or only its end, that a template writes before an answer."""
    for thought in thoughts:
        text = re.sub(rf"\A\s*(?:{re.escape(thought.opening)}\s*)?{re.escape(thought.closing)}\s*", "", text)
    return text


def _one_turn(tokenizer: Any, rest: Rendered, answer: str) -> str:
    """`rest` up to the token that ends the turn: what a template writes after it is not the model's to say.

    When the template writes no end token, it is added: the model has to learn to stop. What closes the turn before
    it goes when it is not a token of its own (such as `<|im_end|>` of chatml with most base models): the model would
    write it into its answers.
    """
    end: str = tokenizer.eos_token or ""
    if not end:
        return rest.text
    head, found, _ = rest.text.rpartition(end)
    head = head if found else rest.text.rstrip("\n")
    said = traits_of(tokenizer).special.marked(answer.strip(), rest.mark)
    if said and said in head:
        before, _, closing = head.rpartition(said)
        if tokenizer.decode(encode_inside(tokenizer, Rendered(closing, rest.mark)), skip_special_tokens=True).strip():
            head = before + said
    return head + end


def encode_rows(
    tokenizer: Any, rows: Iterable[SupervisedRow], *, max_length: int
) -> tuple[list[dict[str, list[int]]], int]:
    """({"input_ids", "labels"} of each row that fits, number of rows dropped because they are too long)."""
    kept: list[dict[str, list[int]]] = []
    dropped = 0
    for row in rows:
        prompt, answer = encode_answer(tokenizer, row.system, row.prompt, row.answer)
        if len(prompt) + len(answer) > max_length:
            dropped += 1
            continue
        kept.append({"input_ids": prompt + answer, "labels": [IGNORED] * len(prompt) + answer})
    return kept, dropped


def encode_pairs(
    tokenizer: Any, pairs: Iterable[PreferencePair], *, system_prompt: str, max_length: int
) -> tuple[list[dict[str, list[int]]], int]:
    """({"prompt_ids", "chosen_ids", "rejected_ids"} of each pair that fits, number of pairs dropped).

    A pair is dropped when either side is longer than `max_length` with its prompt: a cut answer would teach the
    model where the limit is.
    """
    kept: list[dict[str, list[int]]] = []
    dropped = 0
    for pair in pairs:
        prompt, chosen = encode_answer(tokenizer, system_prompt, pair.prompt, pair.chosen)
        _, rejected = encode_answer(tokenizer, system_prompt, pair.prompt, pair.rejected)
        if len(prompt) + max(len(chosen), len(rejected)) > max_length:
            dropped += 1
            continue
        kept.append({"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected})
    return kept, dropped
