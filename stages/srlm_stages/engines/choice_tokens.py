"""Which token ids stand for `0` .. `5` or `A` and `B` in a given place.

Whether the blank after `Score:` is a token of its own or part of the digit's token differs between tokenizers, and
the wrong guess reads probabilities of tokens that never come. So prefix and prefix plus choice are encoded together,
and exactly one token may differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from srlm_contract.errors import BadInput
from srlm_stages.conversation.chat import Rendered, encode_rendered, encode_text


def choice_tokens(
    tokenizer: Any, text: Rendered | str, lead: str, choices: Sequence[str]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(ids of `text` and the fixed part of `lead`, id of each choice as the next token).

    text: a conversation up to the assistant's turn (a thought it has opened is ended first), or plain text.
    lead: such as `Score: `; its trailing blank goes to whichever side the tokenizer puts it.
    Raises BadInput JudgeNotUsable when the tokenizer has no single distinct token for each choice there.
    """

    def encoded(more: str) -> tuple[int, ...]:
        if isinstance(text, str):
            return encode_text(tokenizer, text + more)
        return encode_rendered(tokenizer, text.closed(), more)

    for fixed in (lead, lead.rstrip(" ")):
        prompt = encoded(fixed)
        whole = [encoded(lead + choice) for choice in choices]
        ids = tuple(w[-1] for w in whole)
        if all(w[:-1] == prompt for w in whole) and len(set(ids)) == len(ids):
            return prompt, ids
    raise BadInput(
        "JudgeNotUsable",
        f"the tokenizer has no single token for each of {', '.join(choices)} after {lead!r}; use scorer Sampled",
    )
