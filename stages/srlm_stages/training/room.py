"""How much of a step goes through the model at once where the spec leaves it open: as much as memory has room for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import torch
from accelerate.utils import gather_object

from srlm_contract.sizing import ModelSize, TrainingShape, token_bytes, trained_bytes, training_gpu_bytes
from srlm_contract.spec.training import DpoSpec

from ..runtime.devices import training_precision
from . import padding_free, sharding
from .arguments import share_of
from .config import WorkerConfig
from .micro_batches import Plan, Size

#: Tokens at once that keep a GPU, or the cores of a CPU, busy: more would only take memory. Padded rows get fewer: the
#: more of them there are together, the less alike they are.
ENOUGH_GPU, ENOUGH_CPU, ENOUGH_PADDED = 32768, 4096, 8192
#: Share of the free memory that may be planned with: what a token takes is an estimate.
SHARE = 0.8
#: Loss terms of a pair that do not look at the other pairs of their micro-batch.
BY_PAIR = frozenset(
    ("sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "apo_zero", "apo_down",
     "discopop", "sigmoid_norm")
)  # fmt: skip
#: Configuration fields that models with experts have.
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
#: Where Linux says how much memory a container may take: cgroups 2 and 1.
LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def make_plan(config: WorkerConfig, model: Any, sizes: Sequence[Size], processes: int) -> Plan:
    """What goes through `model` at once and whether its activations are kept. All processes answer the same.

    model: as it was loaded; it is made ready to compute without padding where it can. sizes: of all rows. Rows that
    would change each other's loss go one by one, unless the spec says otherwise: packed ones (attention would look at
    all of them), those of models with experts (the router's loss), and pairs whose loss compares them.
    """
    process, share = config.process, share_of(config.recipe.batch_size, processes)
    sides = 1 if config.dpo is None else 2
    packed = config.sft is not None and (config.sft.packing or process.padding_free)
    experts = has_experts(model)
    made = Plan(rows=process.micro_batch_size, recompute=process.gradient_checkpointing is not False)
    if not packed and not experts:
        made.padding_free = padding_free.enable(model, max(size.padded for size in sizes) // sides)
    estimate = None if experts or process.parallelism == "DeepSpeed" else size_of(model)
    if made.rows is None and (packed or estimate is None or not by_pair(config.dpo)):
        made.rows = 1
    if made.rows is not None:
        made.rows = max(rows for rows in range(1, min(made.rows, share) + 1) if share % rows == 0)
    if estimate is None:
        return made
    enough = ENOUGH_GPU if torch.cuda.is_available() else ENOUGH_CPU
    if not made.padding_free:
        enough = min(enough, ENOUGH_PADDED)
    largest = max(made.cost([size]) for size in sizes)
    wanted = largest * made.rows if made.rows is not None else min(largest * share, max(largest, enough // 4))
    free = min(gather_object([free_bytes(process.processes_per_node)]))
    for recompute in (False, True) if process.gradient_checkpointing is None else (process.gradient_checkpointing,):
        made.recompute = recompute
        made.tokens = min(enough, tokens_with_room(config, estimate, processes, free, recompute))
        if made.tokens >= wanted:
            break
    return made


def by_pair(dpo: DpoSpec | None) -> bool:
    """Whether the loss of a micro-batch is the mean of its rows' own."""
    return dpo is None or set(dpo.loss_type) <= BY_PAIR


def has_experts(model: Any) -> bool:
    text = model.config.get_text_config()
    return any(getattr(text, name, None) for name in EXPERTS)


def size_of(model: Any) -> ModelSize | None:
    """The numbers of a dense decoder; None for models without them."""
    try:
        return ModelSize.of(model.config.get_text_config().to_dict(), model.num_parameters())
    except (KeyError, TypeError, ValueError):
        return None


def tokens_with_room(config: WorkerConfig, size: ModelSize, processes: int, free: int, recompute: bool) -> int:
    """Tokens at once that `free` bytes of this process have room for, beside weights, gradients and optimiser."""
    process = config.process
    sharded = sharding.sharded(config, processes)
    replicas = process.fsdp.dp_replicate_size if sharded else 1
    shape = TrainingShape(
        processes=processes // replicas,
        sharded=sharded,
        rows=0,
        length=0,
        checkpointing=recompute,
        lora_rank=config.lora.rank,
        trained_bytes=trained_bytes(process.parallelism, process.fsdp, process.deepspeed, config.recipe.optim),
    )
    held = training_gpu_bytes(size, shape)
    if sharded and config.lora.rank is None:
        held += 4 * size.parameters  # gradients are gathered until the last micro-batch of a step
    wide = 1 if training_precision(config.precision) == "BF16Mixed" else 2
    return max(0, int(SHARE * free) - held) // (wide * token_bytes(size, recompute))


def free_bytes(local_processes: int) -> int:
    """Memory of this process's device that training can have, with what the loaded model takes of it already."""
    if torch.cuda.is_available():
        free, _ = torch.cuda.mem_get_info()
        return int(free)
    here = psutil.virtual_memory().available
    limits = [text for path in LIMITS if Path(path).is_file() and (text := Path(path).read_text().strip()).isdecimal()]
    own = psutil.Process(os.getpid()).memory_info().rss
    return int(min([here // local_processes + own, *(int(limit) // local_processes for limit in limits)]))
