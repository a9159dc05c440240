"""Weights sharded over the processes of a training (FSDP2), and the types its sums are made in."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch

from srlm_contract.errors import InvalidTask

from .config import WorkerConfig


def sharded(config: WorkerConfig, processes: int) -> bool:
    """Whether weights are sharded: accelerate does that on accelerators only, and one process has nobody to share."""
    return config.process.parallelism == "FSDP" and processes > 1 and torch.cuda.is_available()


def fsdp_settings(config: WorkerConfig, processes: int) -> dict[str, Any]:
    """What the trainers' arguments say about sharding. Raises InvalidTask when replicas do not divide the processes.

    Activations are recomputed by the model's own gradient checkpointing, which draws the same dropout again.
    accelerate's `activation_checkpointing` does not (`preserve_rng_state=False`): with dropout its gradients belong
    to another model than the loss.
    """
    return hybrid_settings(config.process.fsdp.dp_replicate_size, processes) | {
        "fsdp": True,
        "fsdp_config": {
            "activation_checkpointing": False,
            "cpu_offload": config.process.fsdp.cpu_offload,
            "reshard_after_forward": config.process.fsdp.reshard_after_forward,
            "state_dict_type": "FULL_STATE_DICT",
            "cpu_ram_efficient_loading": loads_once(config),
        },
    }


def hybrid_settings(replicas: int, processes: int) -> dict[str, Any]:
    """Replicas that are sharded each over `processes / replicas` processes; nothing for one replica.

    Raises InvalidTask when the processes cannot be divided so.
    """
    if replicas == 1:
        return {}
    if processes % replicas or processes == replicas:
        raise InvalidTask(
            "InvalidTask",
            f"training.fsdp.dpReplicateSize {replicas} does not divide {processes} processes (training.nodes x "
            "training.processesPerNode) into shards of 2 or more: use a smaller divisor, or parallelism DDP",
        )
    from accelerate import ParallelismConfig

    shards = processes // replicas
    return {"parallelism_config": ParallelismConfig(dp_replicate_size=replicas, dp_shard_size=shards)}


def deepspeed_settings(config: WorkerConfig) -> dict[str, Any]:
    """DeepSpeed's configuration; "auto" is filled in by transformers. Raises InvalidTask where it is not installed.

    DeepSpeed hands out weights in the type it computes in: after bf16 training, those between iterations are bf16.
    """
    if find_spec("deepspeed") is None:
        raise InvalidTask(
            "InvalidTask",
            "training.parallelism DeepSpeed needs the package deepspeed, which this image does not have: use a train "
            "image with it, or parallelism FSDP",
        )
    chosen = config.process.deepspeed
    zero: dict[str, Any] = {
        "stage": chosen.zero_stage,
        "offload_optimizer": {"device": chosen.offload_optimizer_device},
    }
    if chosen.zero_stage == 3:
        zero |= {
            "offload_param": {"device": chosen.offload_param_device},
            "stage3_gather_16bit_weights_on_model_save": True,
        }
    return {
        "deepspeed": {
            "zero_optimization": zero,
            "bf16": {"enabled": "auto"},
            "gradient_accumulation_steps": "auto",
            "gradient_clipping": "auto",
            "train_micro_batch_size_per_gpu": "auto",
            "train_batch_size": "auto",
        }
    }


def loads_once(config: WorkerConfig) -> bool:
    """Whether one process a node can read the weights for all.

    accelerate hands out what has been sharded only, which buffers stored with the weights (the router bias of
    DeepSeek-V3) are not.
    """
    from .loading import bare_model

    model = bare_model(config.model)
    return set(model.state_dict()) <= {name for name, _ in model.named_parameters(remove_duplicate=False)}


def sum_in_full_precision(arguments: Any) -> None:
    """Products in bf16; log-probabilities and the sums of gradients in fp32.

    accelerate would round what every module gives to bf16, the model's log-probabilities too, and gradients before
    they are added up. The log-probability of an answer is a sum over its tokens: at 300 nats bf16 has steps of 2, a
    hundred times what a DPO step is worth. `output_dtype` stays unset: each module gives what it computes, which is
    fp32 for log-probabilities and losses, and bf16 inside, where fp32 would double the activations.
    """
    if arguments.fsdp_plugin_args is not None and arguments.bf16:
        from torch.distributed.fsdp import MixedPrecisionPolicy

        arguments.fsdp_plugin_args["mixed_precision_policy"] = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16, reduce_dtype=torch.float32, output_dtype=None
        )


def one_reads(arguments: Any) -> bool:
    """Whether rank 0 alone reads the weights; all others are handed theirs."""
    plugin = arguments.fsdp_plugin_args
    return plugin is not None and bool(plugin["cpu_ram_efficient_loading"])
