"""TRL's trainers with steps in micro-batches (micro_batches.py) and a reference of our own (reference.py)."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import Any

import torch
from accelerate.utils.fsdp_utils import fsdp2_prepare_model
from datasets import Dataset
from torch.distributed.fsdp import FSDPModule
from trl.models.utils import prepare_deepspeed
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.sft_trainer import SFTTrainer
from trl.trainer.utils import add_fused_lm_head

from .encoding import IGNORED
from .micro_batches import Plan, Size, StepLoader, Steps, size_of_row
from .padding_free import PaddingFree
from .reference import RowCollator, check_start, compute, no_copy_of_the_start_model

Step = list[list[dict[str, Any]]]
"""Micro-batches of rows."""


class _BySteps:
    """Mixin: a batch of the library is a step of this process, which goes through the model in micro-batches."""

    args: Any
    accelerator: Any
    is_deepspeed_enabled: bool
    data_collator: Any
    train_dataset: Any
    _metrics: Any
    _total_train_tokens: int

    def __init__(self, *args: Any, sizes: Sequence[Size], plan: Plan, **kwargs: Any) -> None:
        """sizes: of each row; plan: what goes through the model at once."""
        self._sizes, self.plan, self.retries = sizes, plan, 0
        super().__init__(*args, **kwargs)

    def get_train_dataloader(self) -> StepLoader:
        rows_a_step = self.args.per_device_train_batch_size * self.args.world_size
        place = {"process": self.args.process_index, "processes": self.args.world_size}
        return StepLoader(self.train_dataset, Steps(self._sizes, rows_a_step, self.args.seed, self.plan, **place))

    def floating_point_ops(self, inputs: Any) -> int:
        return 0  # nobody reads it, and a step is no batch that the library could count

    def training_step(self, model: Any, inputs: Step, num_items_in_batch: Any = None) -> Any:
        """Loss of a step after its gradients are added up. A single process that runs out of memory takes less of the
        step at once and repeats it with the same dropout; several would leave one another waiting."""
        while True:
            before = self._snapshot()
            try:
                return self._accumulate(model, inputs, num_items_in_batch)
            except torch.OutOfMemoryError:
                fewer = self._smaller(inputs)
                if fewer is None:
                    raise
                inputs = fewer
            # Outside of the handler, whose exception holds what the step had computed.
            self._restore(model, before)

    def _accumulate(self, model: Any, step: Step, num_items_in_batch: Any) -> Any:
        """The sum of the losses of a step's micro-batches, each weighted by its rows."""
        rows, total = sum(map(len, step)), torch.zeros((), device=self.args.device)
        alone = self.args.world_size == 1  # and has nobody to add up its gradients with
        for number, batch in enumerate(step, start=1):
            last = number == len(step)
            self.accelerator.gradient_state._set_sync_gradients(last)
            self._weigh(len(batch), rows, len(step))
            counted = {name: len(values) for name, values in self._metrics["train"].items()}
            apart = (alone or not last) and not self.is_deepspeed_enabled  # DeepSpeed sees to that itself
            with self.accelerator.no_sync(model=model) if apart else contextlib.nullcontext():
                total += super().training_step(model, self.data_collator(batch), num_items_in_batch)  # type: ignore[misc]
            for name, values in self._metrics["train"].items():
                values += values[counted.get(name, 0) :] * (len(batch) - 1)  # figures are means over rows
        return total

    def _weigh(self, rows: int, of: int, batches: int) -> None:
        """Tell the library by how much to divide the loss of a micro-batch of `rows` rows of a step of `of`."""
        raise NotImplementedError

    def _smaller(self, step: Step) -> Step | None:
        """The step with half as much at once, now and from here on; None where that cannot be."""
        if self.plan.rows is not None or self.args.world_size > 1 or all(len(batch) == 1 for batch in step):
            return None
        rows = [row for batch in step for row in batch]
        sizes = [size_of_row(row) for row in rows]
        ends = list(accumulate(map(len, step), initial=0))
        self.plan.tokens = max(self.plan.cost(sizes[a:b]) for a, b in pairwise(ends)) // 2
        self.retries += 1
        print(  # noqa: T201 - the log of the pod
            f"warning: out of memory; the step is repeated with at most {self.plan.tokens:,} tokens at once", flush=True
        )
        parts = accumulate(self.plan.split(sizes), initial=0)
        return [rows[a:b] for a, b in pairwise(parts)]

    def _snapshot(self) -> tuple[Any, ...]:
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        figures = {name: list(values) for name, values in self._metrics["train"].items()}
        return torch.get_rng_state(), cuda, figures, self._total_train_tokens

    def _restore(self, model: Any, before: tuple[Any, ...]) -> None:
        cpu, cuda, figures, self._total_train_tokens = before
        torch.set_rng_state(cpu)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)
        self._metrics["train"].clear()
        self._metrics["train"].update(figures)
        model.zero_grad()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


class SupervisedTrainer(_BySteps, SFTTrainer):  # type: ignore[misc]
    """SFT on rows that are encoded already (`input_ids`, `labels`). The loss is a mean over the tokens of a step."""

    loss_is_scaled_for_ga = True

    def _get_num_items_in_batch(self, batch_samples: list[Step], device: Any) -> Any:
        labels = (row["labels"][1:] for step in batch_samples for batch in step for row in batch)
        count = torch.tensor(sum(label != IGNORED for row in labels for label in row), device=device)
        return self.accelerator.gather(count).sum()

    def _weigh(self, rows: int, of: int, batches: int) -> None:
        self.current_gradient_accumulation_steps = batches  # the router's loss is a mean over micro-batches

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        without_padding = self.plan.padding_free and "attention_mask" in inputs
        return super().compute_loss(PaddingFree(model) if without_padding else model, inputs, *args, **kwargs)


class PreferenceTrainer(_BySteps, DPOTrainer):  # type: ignore[misc]
    """DPO on rows that are encoded already (`row`, `prompt_ids`, `chosen_ids`, `rejected_ids`)."""

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

    def compute_ref_log_probs(self, model: Any, inputs: Any) -> Any:
        return super().compute_ref_log_probs(PaddingFree(model) if self.plan.padding_free else model, inputs)

    def _weigh(self, rows: int, of: int, batches: int) -> None:
        self.current_gradient_accumulation_steps = of / rows

    def _compute_loss(self, model: Any, inputs: Any, return_outputs: bool) -> Any:
        loss = super()._compute_loss(PaddingFree(model) if self.plan.padding_free else model, inputs, return_outputs)
        if self._exact_start and self.state.global_step == 0 and not self.retries:
            check_start(self._metrics["train"]["rewards/margins"][-1])
        return loss
