"""Tokenizers and chat templates: from messages to the token ids a model sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import BadInput

Message = Mapping[str, str]


def load_tokenizer(path: Path, template: str | None = None) -> Any:
    """The tokenizer of a model folder, with `template` as its chat template if given.

    Raises BadInput ModelNotUsable when there is none, or when it has no chat template and none is given.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(path), trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise BadInput("ModelNotUsable", f"{path.name}: the tokenizer cannot be read: {error}") from error
    if template is not None:
        tokenizer.chat_template = template
    if not tokenizer.chat_template:
        raise BadInput(
            "ModelNotUsable",
            f"{path.name} has no chat template; name one in baseModel.chatTemplateRef (built in: chatml)",
        )
    return tokenizer


def messages(user: str, system: str = "") -> list[Message]:
    """One user turn, after a system turn if there is a system prompt."""
    turn: list[Message] = [{"role": "user", "content": user}]
    return [{"role": "system", "content": system}, *turn] if system else turn


def render_chat(tokenizer: Any, turns: Sequence[Message], prefill: str = "") -> str:
    """The text of a conversation up to the assistant's turn, which begins with `prefill`."""
    try:
        text: str = tokenizer.apply_chat_template(list(turns), tokenize=False, add_generation_prompt=True)
    except Exception as error:  # templates are programs: they raise whatever they like
        raise BadInput("TemplateNotUsable", f"the chat template cannot render this conversation: {error}") from error
    return text + prefill


def encode_chat(tokenizer: Any, turns: Sequence[Message], prefill: str = "") -> tuple[int, ...]:
    """Token ids of `render_chat`; special tokens come from the template alone."""
    return encode_text(tokenizer, render_chat(tokenizer, turns, prefill))


def encode_text(tokenizer: Any, text: str, special: bool = False) -> tuple[int, ...]:
    """Token ids of plain text; `special` adds what the tokenizer puts before a document."""
    return tuple(tokenizer.encode(text, add_special_tokens=special))
