"""Preference training: M_t and its pairs → M_{t+1} (DPO), or supervised training on positives."""

from __future__ import annotations

from collections.abc import Iterator

from srlm_contract.rows import Positive, PreferencePair
from srlm_contract.tasks import StageResult, TrainParams

from .context import StageContext
from .runtime.rows import read_rows
from .runtime.statistics import Statistics
from .sft import seed_rows
from .training.config import SupervisedRow
from .training.entry import run_training


def run(ctx: StageContext) -> Statistics | StageResult:
    """Writes the model."""
    params = ctx.params(TrainParams)
    if params.strategy == "PositiveOnly":
        return run_training(
            ctx, params, _positive_rows(ctx, params),
            sft=params.sft, lora=params.lora, keep_every=params.keep_checkpoints_every,
        )  # fmt: skip
    return run_training(
        ctx, params, read_rows(ctx.input("pairs") / "pairs.jsonl", PreferencePair),
        dpo=params.dpo, lora=params.lora, keep_every=params.keep_checkpoints_every,
    )  # fmt: skip


def _positive_rows(ctx: StageContext, params: TrainParams) -> Iterator[SupervisedRow]:
    """Positives, and the seed examples with them when asked for."""
    if params.include_seed:
        yield from seed_rows(ctx, params.system_prompt)
    for row in read_rows(ctx.input("pairs") / "positives.jsonl", Positive):
        yield SupervisedRow(prompt=row.prompt, answer=row.answer, system=params.system_prompt)
