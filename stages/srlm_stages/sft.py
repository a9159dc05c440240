"""Supervised fine-tuning of M0 on IFT, and on EFT when there is some: loss on the answers only."""

from __future__ import annotations

from collections.abc import Iterator

from srlm_contract.rows import EftExample, SeedExample
from srlm_contract.tasks import SftParams, StageResult

from .context import StageContext
from .runtime.rows import read_rows
from .runtime.statistics import Statistics
from .training.config import SupervisedRow
from .training.entry import run_training


def run(ctx: StageContext) -> Statistics | StageResult:
    """Writes the model."""
    params = ctx.params(SftParams)
    return run_training(ctx, params, seed_rows(ctx, params.system_prompt), sft=params.sft, lora=params.lora)


def seed_rows(ctx: StageContext, system_prompt: str) -> Iterator[SupervisedRow]:
    """IFT examples with the system prompt of generation, then EFT examples without: judges are asked without one."""
    for example in read_rows(ctx.input("data") / "ift.jsonl", SeedExample):
        yield SupervisedRow(prompt=example.prompt, answer=example.answer, system=system_prompt)
    if ctx.has("eft"):
        for task in read_rows(ctx.input("eft") / "eft.jsonl", EftExample):
            yield SupervisedRow(prompt=task.prompt, answer=task.answer)
