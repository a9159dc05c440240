"""Whether the base model fits the GPUs that the run asks for: tried by preflight with the estimates of sizing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from srlm_contract.errors import BadInput
from srlm_contract.gpus import processes
from srlm_contract.sizing import (
    ModelSize,
    TrainingShape,
    in_gib,
    inference_gpu_bytes,
    mig_bytes,
    quantity_bytes,
    trained_bytes,
    training_disk_bytes,
    training_gpu_bytes,
    training_host_bytes,
)
from srlm_contract.spec.run import RunSpec
from srlm_contract.stages import INFERENCE

from .architecture import Architecture

#: What a prompt may add to the longest answer.
PROMPT_TOKENS = 1024


def size_of(architecture: Architecture) -> ModelSize | None:
    """The numbers of a model; None for architectures that do not have them (such as those without attention)."""
    names = ("num_attention_heads", "hidden_size", "num_hidden_layers", "intermediate_size", "num_key_value_heads",
             "head_dim", "vocab_size")  # fmt: skip
    numbers = {name: getattr(architecture.config, name, None) for name in names}
    try:
        return ModelSize.of({k: v for k, v in numbers.items() if v is not None}, architecture.parameters)
    except (KeyError, TypeError, ValueError):
        return None


def check_sizes(spec: RunSpec, architecture: Architecture) -> Iterator[str]:
    """Yields lines with what the model needs. Raises BadInput ModelNotUsable, with numbers, when it cannot fit the
    GPUs: where their memory is known, from scheduling.gpuMemory or the name of a MIG resource."""
    size = size_of(architecture)
    if size is None:
        return
    trained = training_shape(spec, "train")
    length = spec.generation.sampling.max_tokens + PROMPT_TOKENS
    checkpoints = bool(spec.training.checkpoint_every_steps)
    yield (
        f"{size.parameters:,} parameters: about {in_gib(inference_gpu_bytes(size, length))} on one GPU to answer, "
        f"{in_gib(training_gpu_bytes(size, trained))} on each of {trained.processes} to train; a train pod needs "
        f"{in_gib(training_host_bytes(size.parameters))} of memory and "
        f"{in_gib(training_disk_bytes(size.parameters, save_bytes(spec), checkpoints))} of disk"
    )
    for stage in INFERENCE:
        _check_inference(spec, stage, size, length)
    for stage in ("train", "sft"):
        _check_training(spec, stage, size, training_shape(spec, stage))


def save_bytes(spec: RunSpec) -> int:
    """Bytes of a saved value."""
    return 4 if spec.training.save_dtype == "Float32" else 2


def training_shape(spec: RunSpec, stage: str) -> TrainingShape:
    """How the spec spreads supervised (`sft`) or preference training; what it cannot tell exactly counts too little."""
    training = spec.training
    recipe = spec.bootstrap.sft if stage == "sft" else training.dpo
    replicas = training.fsdp.dp_replicate_size if training.parallelism == "FSDP" else 1
    return TrainingShape(
        processes=max(1, training.nodes * processes(training.processes_per_node, _limits(spec, stage)) // replicas),
        sharded=training.parallelism == "FSDP"
        or (training.parallelism == "DeepSpeed" and training.deepspeed.zero_stage > 0),
        rows=(training.micro_batch_size or 1) * (1 if stage == "sft" else 2),
        length=recipe.max_length,
        checkpointing=training.gradient_checkpointing is not False,
        lora_rank=training.lora.rank,
        trained_bytes=trained_bytes(training.parallelism, training.fsdp, training.deepspeed, recipe.optim),
    )


def _limits(spec: RunSpec, stage: str) -> Mapping[str, Any]:
    resources = getattr(spec.stages, stage).resources
    return {} if resources is None else resources.limits


def gpu_bytes(spec: RunSpec, stage: str) -> int | None:
    """Memory of one GPU of a stage; None where nothing tells, or it uses none."""
    resources: Any = getattr(spec.stages, stage).resources
    if resources is not None:
        gpus = [name for name in resources.limits if name.endswith("/gpu") or "/mig-" in name]
        if not gpus:
            return None
        if (known := mig_bytes(gpus[0])) is not None:
            return known
    return quantity_bytes(spec.scheduling.gpu_memory) if spec.scheduling.gpu_memory else None


def _check_inference(spec: RunSpec, stage: str, size: ModelSize, length: int) -> None:
    has = gpu_bytes(spec, stage)
    if has is None or (stage == "judge" and spec.judging.external.url):
        return
    ranks = getattr(spec.stages, stage).engine.args.get("tensor_parallel_size", 1)
    ranks = ranks if isinstance(ranks, int) and ranks > 0 else 1
    needs = inference_gpu_bytes(size, length, ranks)
    if needs <= has:
        return
    enough = next((n for n in (2, 4, 8, 16) if inference_gpu_bytes(size, length, n) <= has), None)
    remedy = f"set stages.{stage}.engine.args.tensor_parallel_size to {enough}, or " if enough else ""
    raise BadInput(
        "ModelNotUsable",
        f"the base model does not fit the GPUs of stage {stage}: {size.parameters:,} parameters in 16 bits and "
        f"{length} tokens need about {in_gib(needs)} on each of {ranks}, which have {in_gib(has)}; {remedy}use larger "
        "GPUs",
    )


def _check_training(spec: RunSpec, stage: str, size: ModelSize, shape: TrainingShape) -> None:
    has = gpu_bytes(spec, stage)
    if has is None:
        return
    needs = training_gpu_bytes(size, shape)
    if needs <= has:
        return

    def spread(processes: int) -> TrainingShape:
        return TrainingShape(**{**shape.__dict__, "processes": processes, "sharded": True})

    counts = (2**n for n in range(1, 11))
    enough = next((n for n in counts if n > shape.processes and training_gpu_bytes(size, spread(n)) <= has), None)
    more = f"spread it over {enough} GPUs (training.nodes x processesPerNode, parallelism FSDP), or " if enough else ""
    lora = "" if shape.lora_rank else "set training.lora.rank, "
    raise BadInput(
        "ModelNotUsable",
        f"training of the base model does not fit the GPUs of stage {stage}: {size.parameters:,} parameters and rows "
        f"of {shape.length} tokens need about {in_gib(needs)} on each of {shape.processes}, which have "
        f"{in_gib(has)}; {more}{lora}lower training.microBatchSize or maxLength, or use larger GPUs",
    )
