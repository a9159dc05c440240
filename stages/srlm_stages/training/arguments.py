"""The trainers' settings."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.sft_config import SFTConfig

from srlm_contract.errors import InvalidTask

from ..runtime.devices import training_precision
from . import sharding
from .config import WorkerConfig


def share_of(batch_size: int, processes: int) -> int:
    """Rows of a step that each process takes. Raises InvalidTask when the batch cannot be shared evenly."""
    if batch_size % processes:
        raise InvalidTask(
            "InvalidTask",
            f"batchSize {batch_size} cannot be split evenly over {processes} processes "
            "(training.nodes x training.processesPerNode): make it a multiple, or use fewer processes",
        )
    return batch_size // processes


def trainer_settings(config: WorkerConfig, processes: int) -> dict[str, Any]:
    """What SFTConfig and DPOConfig have in common. For the library a step is one batch: trainers.py splits it."""
    recipe = config.recipe
    cuda = torch.cuda.is_available()
    settings: dict[str, Any] = {
        "output_dir": config.checkpoints,
        "per_device_train_batch_size": share_of(recipe.batch_size, processes),
        "gradient_accumulation_steps": 1,
        "num_train_epochs": recipe.epochs,
        "learning_rate": recipe.learning_rate,
        "lr_scheduler_type": "cosine_with_min_lr",
        "lr_scheduler_kwargs": {"min_lr_rate": recipe.min_learning_rate / recipe.learning_rate},
        "warmup_steps": recipe.warmup_ratio,
        "optim": optimizer(recipe.optim),
        "weight_decay": recipe.weight_decay,
        "adam_beta1": recipe.adam_beta1,
        "adam_beta2": recipe.adam_beta2,
        "max_grad_norm": recipe.max_grad_norm,
        "seed": config.seed,
        "data_seed": config.seed,
        "max_length": recipe.max_length,
        "bf16": training_precision(config.precision) == "BF16Mixed",
        "fp16": False,
        "gradient_checkpointing": config.process.gradient_checkpointing is not False,
        "ddp_find_unused_parameters": False,
        "use_cpu": not cuda,
        "ddp_backend": None if cuda else "gloo",
        "dataloader_pin_memory": cuda,
        "dataloader_num_workers": 0,
        "logging_strategy": "steps",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "disable_tqdm": True,
        "report_to": "none",
        "save_strategy": "steps" if config.process.checkpoint_every_steps else "no",
        "save_steps": config.process.checkpoint_every_steps or 500,
        "eval_strategy": "no",
        "remove_unused_columns": True,
    }
    if sharding.sharded(config, processes):
        settings |= sharding.fsdp_settings(config, processes)
    if config.process.parallelism == "DeepSpeed":
        settings |= sharding.deepspeed_settings(config)
    return settings


def optimizer(name: str) -> str:
    """`name`, once it is clear that it can run here. Raises InvalidTask for one of bitsandbytes without it."""
    if "8bit" in name or "paged" in name:
        if find_spec("bitsandbytes") is None:
            raise InvalidTask(
                "InvalidTask",
                f"optim {name} needs the package bitsandbytes, which this image does not have: use a train image with "
                "it, or optim adamw_torch_fused",
            )
        if not torch.cuda.is_available():
            raise InvalidTask("InvalidTask", f"optim {name} needs a GPU: use adamw_torch on CPUs")
    return name


def sft_arguments(config: WorkerConfig, processes: int) -> SFTConfig:
    """Settings of supervised training."""
    arguments = SFTConfig(
        **trainer_settings(config, processes),
        dataset_kwargs={"skip_prepare_dataset": True},
        packing=config.sft is not None and config.sft.packing,
        padding_free=config.process.padding_free,
    )
    sharding.sum_in_full_precision(arguments)
    return arguments


def dpo_arguments(config: WorkerConfig, processes: int) -> DPOConfig:
    """Settings of preference training. Raises InvalidTask for a loss that needs label smoothing and gets none."""
    dpo = config.dpo
    assert dpo is not None  # the caller's choice of trainer
    if "exo_pair" in dpo.loss_type and dpo.label_smoothing == 0:
        raise InvalidTask(
            "InvalidTask", "training.dpo.lossType exo_pair needs training.dpo.labelSmoothing above 0, such as 1e-3"
        )
    arguments = DPOConfig(
        **trainer_settings(config, processes) | {"remove_unused_columns": False},  # the collator reads `row`
        beta=dpo.beta,
        loss_type=list(dpo.loss_type),
        label_smoothing=dpo.label_smoothing,
        loss_weights=list(dpo.loss_weights) or None,
        ld_alpha=dpo.ld_alpha,
        disable_dropout=dpo.dropout == 0,
        precompute_ref_log_probs=True,
    )
    sharding.sum_in_full_precision(arguments)
    return arguments
