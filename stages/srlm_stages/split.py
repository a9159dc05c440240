"""Splits seed prompts into IFT, ranked train, ranked held-out and validation: disjoint by prompt.

The order is a hash of seed and prompt, so a split does not depend on the order of the file. When the file is
smaller than what is asked for, the parts shrink in proportion, and a quarter of the ranked prompts stays for
training the judge.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

from srlm_contract.keys import row_seed

from .seed_formats import SeedDataError, SeedPrompt

#: Share of the usable prompts that IFT, held-out and validation may take while a judge is to be trained.
MAX_SHARE = 0.75


@dataclass(frozen=True)
class Split:
    """Disjoint lists of prompts."""

    ift: tuple[SeedPrompt, ...]
    ranked_train: tuple[SeedPrompt, ...]
    ranked_heldout: tuple[SeedPrompt, ...]
    validation: tuple[SeedPrompt, ...]


def split_prompts(
    prompts: list[SeedPrompt],
    *,
    seed: int,
    ift_examples: int,
    heldout_answers: int,
    validation_prompts: int,
    train_judge: bool,
    usable_for_ift: Callable[[str], bool] = lambda answer: True,
) -> Split:
    """Assign every prompt to at most one part.

    ift_examples, validation_prompts: wanted prompts; heldout_answers: wanted ranked answers.
    usable_for_ift: whether a best answer may be trained on (length limit).
    Raises SeedDataError when ranked prompts are wanted and there are none, or no IFT example is left.
    """
    order = sorted(prompts, key=lambda p: (row_seed(seed, "data", 0, 1, p.id, 0), p.id))
    ranked = [p for p in order if p.ranked]
    if (train_judge or heldout_answers) and not ranked:
        raise SeedDataError(
            f"none of {len(order)} prompts has two answers of different human rank; use data with ranks, or set "
            "seedData.eft.enabled: false and seedData.eft.heldOutExamples: 0"
        )
    answers_a_prompt = sum(len(p.ranked) for p in ranked) / len(ranked) if ranked else 1
    wanted = [validation_prompts, ceil(heldout_answers / answers_a_prompt), ift_examples]
    limit = int(len(order) * (MAX_SHARE if train_judge else 1))
    if sum(wanted) > limit:
        scale = limit / sum(wanted)
        wanted = [max(1, int(n * scale)) if n else 0 for n in wanted]
    want_validation, want_heldout, want_ift = wanted

    heldout = ranked[:want_heldout]
    taken = {p.id for p in heldout}
    # Prompts that nothing else can use come first into validation.
    spare = sorted(
        (p for p in order if p.id not in taken), key=lambda p: (bool(p.ranked), p.best is not None)
    )
    validation = spare[:want_validation]
    taken |= {p.id for p in validation}
    ift = [p for p in order if p.id not in taken and p.best is not None and usable_for_ift(p.best)][:want_ift]
    taken |= {p.id for p in ift}
    train = [p for p in ranked if p.id not in taken] if train_judge else []
    if ift_examples and not ift:
        raise SeedDataError(
            f"none of {len(order)} prompts has an answer of human rank 0 that fits seedData.ift; "
            "use ranked data, or raise seedData.ift.maxAnswerTokens"
        )
    if train_judge and not train:
        raise SeedDataError(
            f"{len(order)} prompts, {len(ranked)} of them ranked, leave none to train the judge on; "
            "use more seed data, or set seedData.eft.enabled: false"
        )
    return Split(tuple(ift), tuple(train), tuple(heldout), tuple(validation))
