"""Splits seed prompts into IFT, ranked train, ranked held-out and validation: disjoint by prompt.

The order is a hash of seed and prompt, so a split does not depend on the order of the file. When the file is
smaller than what is asked for, the parts shrink in proportion. While a judge is to be trained, a fifth of the
ranked prompts is kept for that before anything else is served.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

from srlm_contract.keys import row_seed

from .files import SeedDataError
from .formats import SeedPrompt

#: Share of the ranked prompts kept for training the judge, whatever the other parts want.
JUDGE_SHARE = 0.2


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
    reserved = max(1, int(len(ranked) * JUDGE_SHARE)) if train_judge else 0
    want_validation, want_heldout, want_ift = _shrink(
        [validation_prompts, _prompts_for(heldout_answers, ranked), ift_examples], len(order) - reserved
    )

    heldout = ranked[: min(want_heldout, len(ranked) - reserved)]
    train_first = ranked[len(heldout) : len(heldout) + reserved]
    taken = {p.id for p in heldout} | {p.id for p in train_first}
    # Prompts that nothing else can use come first into validation.
    spare = sorted((p for p in order if p.id not in taken), key=lambda p: (bool(p.ranked), p.best is not None))
    validation = spare[:want_validation]
    taken |= {p.id for p in validation}
    ift = [p for p in order if p.id not in taken and p.best is not None and usable_for_ift(p.best)][:want_ift]
    taken |= {p.id for p in ift}
    train = train_first + [p for p in ranked if p.id not in taken] if train_judge else []
    if ift_examples and not ift:
        raise SeedDataError(
            f"none of the {len(order) - len(heldout) - len(train_first) - len(validation)} prompts left for IFT "
            "has an answer of human rank 0 that fits; use more ranked data, or raise seedData.ift.maxAnswerTokens"
        )
    if train_judge and not heldout and heldout_answers:
        raise SeedDataError(
            f"{len(ranked)} ranked prompts are too few to train the judge and to measure it; "
            "use more seed data, or set seedData.eft.enabled: false or seedData.eft.heldOutExamples: 0"
        )
    return Split(tuple(ift), tuple(train), tuple(heldout), tuple(validation))


def _prompts_for(answers: int, ranked: list[SeedPrompt]) -> int:
    """Prompts that hold about `answers` ranked answers."""
    return ceil(answers * len(ranked) / sum(len(p.ranked) for p in ranked)) if ranked else 0


def _shrink(wanted: list[int], available: int) -> list[int]:
    """`wanted` when it fits, else in proportion; what is wanted at all keeps at least one."""
    if sum(wanted) <= available:
        return wanted
    scale = available / sum(wanted)
    return [max(1, int(n * scale)) if n else 0 for n in wanted]
