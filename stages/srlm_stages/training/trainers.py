"""TRL's trainers with batches grouped by length and reference log-probabilities of our own (reference.py)."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Iterator
from typing import Any

import torch
from accelerate.utils.fsdp_utils import fsdp2_prepare_model
from datasets import Dataset
from torch.distributed.fsdp import FSDPModule
from torch.utils.data import Sampler
from trl.models.utils import prepare_deepspeed
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.sft_trainer import SFTTrainer
from trl.trainer.utils import add_fused_lm_head

from .reference import RowCollator, check_start, compute, no_copy_of_the_start_model


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
    """Mixin: StepSampler over the rows' lengths."""

    args: Any

    def __init__(self, *args: Any, row_lengths: list[int], **kwargs: Any) -> None:
        """row_lengths: tokens of each row."""
        self._row_lengths = row_lengths
        super().__init__(*args, **kwargs)

    def _get_train_sampler(self, train_dataset: Any = None) -> StepSampler:
        rows_a_step = (
            self.args.per_device_train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        )
        return StepSampler(self._row_lengths, rows_a_step, self.args.seed)


class SupervisedTrainer(_Grouped, SFTTrainer):  # type: ignore[misc]
    """SFT on rows that are encoded already (`input_ids`, `labels`)."""


class PreferenceTrainer(_Grouped, DPOTrainer):  # type: ignore[misc]
    """DPO on rows that are encoded already (`row`, `prompt_ids`, `chosen_ids`, `rejected_ids`)."""

    data_collator: Any

    def __init__(self, *args: Any, load_reference: Callable[[], Any] | None, exact_start: bool, **kwargs: Any) -> None:
        """load_reference: gives the reference model; None when it is the start model.
        exact_start: the first step must have no reward margin (see reference.py)."""
        self._load_reference, self._exact_start = load_reference, exact_start
        with no_copy_of_the_start_model():
            super().__init__(*args, **kwargs)
        self._rows = RowCollator(self.data_collator)
        self.data_collator = self._rows

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        return dataset

    def _precompute_ref_logps(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        return dataset  # once the model has its place: see below

    def train(self, resume_from_checkpoint: str | None = None, **kwargs: Any) -> Any:
        if not self.is_fsdp_enabled:
            self._ask_reference()  # now: a resume point's weights are loaded next
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)

    def _prepare_for_training(self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: str | None) -> Any:
        """Sharded models: the reference is asked when the start weights are sharded, before those of a resume point
        take their place."""
        if not self.is_fsdp_enabled:
            return super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)
        prepared = super()._prepare_for_training(max_steps, train_dataloader, None)
        self._ask_reference()
        if resume_from_checkpoint is not None:
            for module in self.model_wrapped.modules():
                if isinstance(module, FSDPModule):
                    module.reshard()  # the last layers stay gathered after the reference's pass
            self._load_from_checkpoint(resume_from_checkpoint, self.model_wrapped)
            self._load_optimizer_and_scheduler(resume_from_checkpoint)
            self._load_scaler(resume_from_checkpoint)
        return prepared

    def _ask_reference(self) -> None:
        """Log-probabilities of the reference for every row; its memory is free afterwards."""
        model = self.model
        if self._load_reference is not None:
            model = self.ref_model = self._placed(self._load_reference())
        elif self.is_deepspeed_enabled:
            model = prepare_deepspeed(self.model, self.accelerator)
        compute(self, model, self._rows, self.args.num_train_epochs)
        self.ref_model = model = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _placed(self, reference: Any) -> Any:
        """A reference model where it can compute: sharded layer by layer as the trained one, or on the device."""
        reference.requires_grad_(False)
        add_fused_lm_head(reference, outputs=("log_probs", "entropy", "mean_logits", "is_top1"))
        if self.is_fsdp_enabled:
            return fsdp2_prepare_model(self.accelerator, reference)
        if self.is_deepspeed_enabled:
            return prepare_deepspeed(reference, self.accelerator)
        return self.accelerator.prepare_model(reference, evaluation_mode=True)

    def _compute_loss(self, model: Any, inputs: Any, return_outputs: bool) -> Any:
        loss = super()._compute_loss(model, inputs, return_outputs)
        if self._exact_start and self.state.global_step == 0:
            check_start(self._metrics["train"]["rewards/margins"][-1])
        return loss
