"""Preference pairs → token ids, as TRL's DPO trainer takes them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from srlm_contract.rows import PreferencePair

from .sft_data import encode_answer


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
