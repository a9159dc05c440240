"""TRL's trainers with batches grouped by length and reference log-probabilities computed before training."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from torch.utils.data import Sampler
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.sft_trainer import SFTTrainer


class StepSampler(Sampler[int]):  # type: ignore[misc]  # torch is not followed by mypy
    """Random optimizer steps whose rows lie in order of length.

    Which rows make a step is as random as ever; inside a step micro-batches get rows of similar length, so less of
    them is padding. The gradient of a step is a sum over its rows: their order does not change it.
    """

    def __init__(self, lengths: list[int], rows_a_step: int, seed: int) -> None:
        self.lengths, self.rows_a_step, self.seed, self.epoch = lengths, rows_a_step, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        order = list(range(len(self.lengths)))
        random.Random(f"{self.seed}/{self.epoch}").shuffle(order)  # noqa: S311 - an order of rows, not a secret
        for start in range(0, len(order), self.rows_a_step):
            yield from sorted(order[start : start + self.rows_a_step], key=lambda i: (-self.lengths[i], i))


class _Grouped:
    """Mixin: StepSampler over the `length` of the rows."""

    row_lengths: list[int]
    args: Any

    def _get_train_sampler(self, train_dataset: Any = None) -> StepSampler:
        rows_a_step = (
            self.args.per_device_train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        )
        return StepSampler(self.row_lengths, rows_a_step, self.args.seed)


class SupervisedTrainer(_Grouped, SFTTrainer):  # type: ignore[misc]
    """SFT on rows that are encoded already (`input_ids`, `labels`)."""


class PreferenceTrainer(_Grouped, DPOTrainer):  # type: ignore[misc]
    """DPO on rows that are encoded already (`prompt_ids`, `chosen_ids`, `rejected_ids`)."""

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        return dataset

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        """Reference log-probabilities of every row, computed once by all processes together.

        TRL's own version needs a cache file that all processes share; rows here are in memory.
        """
        order = sorted(range(len(dataset)), key=lambda i: -self.row_lengths[i])
        batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        # Sharded models need every process in every forward pass: those without a batch repeat the last one.
        mine = [batches[min(i, len(batches) - 1)] for i in range(rank, _up_to(len(batches), world), world)]
        model = self.ref_model or self.model
        found: dict[int, tuple[float, float]] = {}
        for batch in mine:
            inputs = self.data_collator([dataset[i] for i in batch])
            inputs = {key: value.to(self.accelerator.device) for key, value in inputs.items()}
            with torch.no_grad():
                chosen, rejected = self.compute_ref_log_probs(model, inputs)
            found |= dict(zip(batch, zip(chosen.tolist(), rejected.tolist(), strict=True), strict=True))
        everyone = {row: logps for part in gather_object([found]) for row, logps in part.items()}
        dataset = dataset.add_column("ref_chosen_logps", [everyone[i][0] for i in range(len(dataset))])
        return dataset.add_column("ref_rejected_logps", [everyone[i][1] for i in range(len(dataset))])


def _up_to(count: int, step: int) -> int:
    """The smallest multiple of `step` that is not below `count`."""
    return -(-count // step) * step
