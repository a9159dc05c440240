"""Supervised rows → token ids, with loss on the answer only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..chat import Message, encode_chat, encode_text, messages, render_chat
from ..errors import BadInput
from .config import SupervisedRow

IGNORED = -100
"""Label of a token without loss."""


def encode_answer(tokenizer: Any, system_prompt: str, prompt: str, answer: str) -> tuple[list[int], list[int]]:
    """(prompt ids, answer ids) of one exchange; the answer ids end with what ends a turn in the template.

    The prompt ids are exactly what the engine is given when it generates. Raises BadInput TemplateNotUsable when the
    template writes a conversation differently once it has an answer.
    """
    turns = messages(prompt, system_prompt)
    before = render_chat(tokenizer, turns)
    whole = render_conversation(tokenizer, [*turns, {"role": "assistant", "content": answer}])
    if not whole.startswith(before):
        raise BadInput(
            "TemplateNotUsable",
            "the chat template does not continue its own generation prompt: the text of a conversation up to the "
            "answer must begin the text of the whole conversation",
        )
    prompt_ids = list(encode_chat(tokenizer, turns))
    answer_text = _one_turn(tokenizer, whole[len(before) :], answer)
    whole_ids = list(encode_text(tokenizer, before + answer_text))
    if whole_ids[: len(prompt_ids)] == prompt_ids:
        return prompt_ids, whole_ids[len(prompt_ids) :]
    # Letters merged across the border: the engine never sees that token, so the answer is encoded by itself.
    return prompt_ids, list(encode_text(tokenizer, answer_text))


def render_conversation(tokenizer: Any, turns: list[Message]) -> str:
    """The text of a whole conversation."""
    try:
        text: str = tokenizer.apply_chat_template(turns, tokenize=False)
    except Exception as error:  # templates are programs: they raise whatever they like
        raise BadInput("TemplateNotUsable", f"the chat template cannot render this conversation: {error}") from error
    return text


def _one_turn(tokenizer: Any, text: str, answer: str) -> str:
    """`text` up to the token that ends the turn: what a template writes after it is not the model's to say.

    When the template writes no end token, it is added: the model has to learn to stop. What closes the turn before
    it goes when it is not a token of its own (such as `<|im_end|>` of chatml with most base models): the model would
    write it into its answers.
    """
    end: str = tokenizer.eos_token or ""
    if not end:
        return text
    head, found, _ = text.rpartition(end)
    head = head if found else text.rstrip("\n")
    said = answer.strip()
    if said and said in head:
        before, _, closing = head.rpartition(said)
        if tokenizer.decode(encode_text(tokenizer, closing), skip_special_tokens=True).strip():
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
