"""What a model needs: GPU memory to run and to train it, memory of the node, disk, S3 space, time. Pure.

All figures are estimates from the numbers of config.json, made to be compared with a machine of a given size: they
leave a margin of some ten percent where libraries keep buffers of their own. Sizes are bytes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from srlm_contract.spec.training import DeepSpeedSpec, FsdpSpec, Parallelism

GIB = 1024**3
#: Of an inference engine beside weights and cache: kernels, graphs, activations of a batch.
ENGINE_BYTES = 2 * GIB
#: Share of a GPU that vLLM fills (its gpu_memory_utilization).
ENGINE_SHARE = 0.9
#: Of a training process: CUDA's context, NCCL's and the allocator's buffers.
PROCESS_BYTES = 2 * GIB
#: Of the node, for a process of an engine: torch, CUDA's libraries, pinned buffers.
HOST_PROCESS_BYTES = 4 * GIB
#: fp32 weights, their gradients and the two moments of Adam.
TRAINED_BYTES = 16
#: Logits of a token beside each other: bf16, their fp32 copy, and its gradient.
LOGIT_BYTES = 10
#: Operations a second of one GPU of the H100 or H200 kind in bf16: dense training, and answering in large batches.
TRAINING_FLOPS, ANSWERING_FLOPS = 350e12, 60e12


@dataclass(frozen=True)
class ModelSize:
    """The numbers of a decoder that sizes depend on."""

    parameters: int
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int

    @classmethod
    def of(cls, config: Mapping[str, Any], parameters: int | None = None) -> ModelSize:
        """From config.json (of a model with several parts: its text_config). parameters: None counts them, which is
        right for Llama and its kin. Raises KeyError for a configuration without these numbers."""
        heads = int(config["num_attention_heads"])
        hidden = int(config["hidden_size"])
        size = cls(
            parameters=parameters or 0,
            layers=int(config["num_hidden_layers"]),
            hidden=hidden,
            intermediate=int(config.get("intermediate_size") or 4 * hidden),
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head_dim=int(config.get("head_dim") or hidden // heads),
            vocabulary=int(config["vocab_size"]),
        )
        counted = parameters or size._counted(bool(config.get("tie_word_embeddings", False)))
        return cls(**{**size.__dict__, "parameters": counted})

    @property
    def linear(self) -> int:
        """Parameters of a layer's matrices: attention and a gated feed-forward part."""
        attention = self.hidden * self.head_dim * 2 * (self.heads + self.kv_heads)
        return attention + 3 * self.hidden * self.intermediate

    def _counted(self, tied: bool) -> int:
        embeddings = self.vocabulary * self.hidden * (1 if tied else 2)
        return embeddings + self.layers * (self.linear + 2 * self.hidden) + self.hidden

    def adapters(self, rank: int) -> int:
        """Parameters of LoRA adapters of a rank on all linear layers."""
        inputs_and_outputs = (
            2 * (self.hidden + self.heads * self.head_dim)
            + 2 * (self.hidden + self.kv_heads * self.head_dim)
            + 3 * (self.hidden + self.intermediate)
        )
        return rank * self.layers * inputs_and_outputs


@dataclass(frozen=True)
class TrainingShape:
    """How a training is spread."""

    processes: int
    """GPUs that share one copy of the weights, one a process."""
    sharded: bool
    """FSDP or ZeRO; else every process holds everything."""
    rows: int
    """Rows that a process takes through the model at once; a preference pair is two."""
    length: int
    """Longest row in tokens."""
    checkpointing: bool = True
    """Whether activations are computed again for the gradients."""
    lora_rank: int | None = None
    trained_bytes: int = TRAINED_BYTES
    """Of a trained parameter on the GPUs: less with 8-bit or offloaded optimisers, 0 with everything offloaded."""


def cache_bytes(size: ModelSize, tokens: int) -> int:
    """Keys and values of that many tokens, in 16 bits."""
    return 2 * 2 * size.layers * size.kv_heads * size.head_dim * tokens


def inference_gpu_bytes(size: ModelSize, length: int, ranks: int = 1, sequences: int = 1) -> int:
    """Memory each of `ranks` GPUs needs to answer `sequences` of `length` tokens at once, weights in 16 bits."""
    shared = 2 * size.parameters + cache_bytes(size, length * sequences)
    return int((shared / ranks + ENGINE_BYTES) / ENGINE_SHARE)


def training_gpu_bytes(size: ModelSize, shape: TrainingShape) -> int:
    """Memory each GPU needs to train: weights, gradients, Adam, what is gathered of a layer, activations, logits."""
    adapters = size.adapters(shape.lora_rank) if shape.lora_rank else 0
    frozen = min(4, shape.trained_bytes) * size.parameters
    held = frozen + TRAINED_BYTES * adapters if adapters else shape.trained_bytes * size.parameters
    if shape.sharded and shape.processes > 1:
        largest = max(size.linear, size.vocabulary * size.hidden)
        held = held // shape.processes + 2 * 4 * largest
    return int(held + shape.rows * shape.length * token_bytes(size, shape.checkpointing) + PROCESS_BYTES)


def token_bytes(size: ModelSize, checkpointing: bool) -> int:
    """Of a token in training under bf16: what is kept of each layer for the gradients, and its logits."""
    of_a_layer = 18 * size.hidden + 8 * size.intermediate
    kept = 2 * size.hidden * size.layers + of_a_layer if checkpointing else of_a_layer * size.layers
    return kept + size.vocabulary * LOGIT_BYTES


def trained_bytes(parallelism: Parallelism, fsdp: FsdpSpec, deepspeed: DeepSpeedSpec, optim: str) -> int:
    """Bytes of a trained parameter that stay on the GPUs: weight and gradient in fp32, and Adam's moments."""
    zero = deepspeed if parallelism == "DeepSpeed" else DeepSpeedSpec()
    if zero.offload_param_device != "none" or (parallelism == "FSDP" and fsdp.cpu_offload):
        return 0
    if optim.startswith("paged") or zero.offload_optimizer_device != "none":
        return 8
    return 10 if optim.endswith("8bit") else TRAINED_BYTES


def training_host_bytes(parameters: float, readers: int = 1) -> float:
    """Memory of a training pod: the model in fp32 twice (start and reference while loading, or weights gathered for
    saving beside the copy that is written), and the processes themselves. readers: processes that load the model
    whole at the same time, which is one where weights are sharded."""
    return 4 * max(2, readers) * parameters + 8 * GIB


def inference_host_bytes(ranks: int = 1) -> int:
    """Memory of an inference pod: its front end, and a process a rank with the libraries of its GPU. Weights are read
    from mapped files, whose pages the kernel takes back where others need them."""
    return HOST_PROCESS_BYTES * (1 + ranks)


def training_disk_bytes(parameters: float, save_bytes: int, checkpoints: bool) -> float:
    """Disk of a training pod: start model and reference, the result, and two resume points (weights and Adam in
    fp32; the new one is written before the old one goes)."""
    return (3 * save_bytes + (2 * 12 if checkpoints else 0)) * parameters


def training_gpu_seconds(parameters: float, tokens: float, recomputed: bool = True) -> float:
    """Forward, backward and (with checkpointing) forward again: 6 or 8 operations a parameter and token."""
    return (8 if recomputed else 6) * parameters * tokens / TRAINING_FLOPS


def answering_gpu_seconds(parameters: float, tokens: float) -> float:
    """2 operations a parameter and token, at the rate of batched decoding."""
    return 2 * parameters * tokens / ANSWERING_FLOPS


def quantity_bytes(quantity: int | str) -> int:
    """A Kubernetes quantity (80Gi, 80G, 85899345920) in bytes. Raises ValueError."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([KMGTPE]i?|k)?", str(quantity))
    if found is None:
        raise ValueError(f"{quantity!r} is no quantity of bytes such as 80Gi")
    number, unit = found.groups()
    if not unit:
        return int(float(number))
    power = "kmgtpe".index(unit[0].lower()) + 1
    return int(float(number) * (1024 if unit.endswith("i") else 1000) ** power)


def mig_bytes(resource: str) -> int | None:
    """GPU memory that a resource's name tells: nvidia.com/mig-1g.10gb; None where it does not."""
    found = re.search(r"/mig-[0-9]+g\.([0-9]+)gb", resource)
    return int(found.group(1)) * 1000**3 if found else None


def parameters_in_name(uri: str) -> float | None:
    """What a model's name says of its size: 8e9 for hf://meta-llama/Llama-3.1-8B; None where it says nothing."""
    name = uri.partition("@")[0].rstrip("/").rpartition("/")[2]
    found = re.search(r"(?<![A-Za-z0-9.])(?:(\d+)x)?(\d+(?:\.\d+)?)([BM])(?![A-Za-z0-9])", name, re.IGNORECASE)
    if found is None:
        return None
    experts, number, unit = found.groups()
    return float(number) * int(experts or 1) * (1e9 if unit in "Bb" else 1e6)


def in_gib(number: float) -> str:
    """1.5 GiB, 16 GiB, 1,117 GiB."""
    gib = number / GIB
    return f"{gib:.1f} GiB" if gib < 10 else f"{gib:,.0f} GiB"


#: Models of the sizes people ask about: (name, configuration).
EXAMPLES: Mapping[str, Mapping[str, Any]] = {
    "1.5B": {"hidden_size": 1536, "num_hidden_layers": 28, "num_attention_heads": 12, "num_key_value_heads": 2,
             "intermediate_size": 8960, "vocab_size": 151936, "tie_word_embeddings": True},
    "8B": {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
           "intermediate_size": 14336, "vocab_size": 128256},
    "32B": {"hidden_size": 5120, "num_hidden_layers": 64, "num_attention_heads": 40, "num_key_value_heads": 8,
            "intermediate_size": 27648, "vocab_size": 152064},
    "70B": {"hidden_size": 8192, "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8,
            "intermediate_size": 28672, "vocab_size": 128256},
}  # fmt: skip


def sizing_table() -> str:
    """The table of the documentation (Markdown): the examples with the defaults of the resource."""
    head = (
        "| model | inference, one GPU | inference, 4 GPUs, each | training on 8 GPUs, each | on 16 | on 32 "
        "| LoRA rank 16 on 8 | memory of a train pod | disk of a train pod | S3 an iteration |"
    )
    rows = [head, "|---" * 10 + "|"]
    for name, config in EXAMPLES.items():
        size = ModelSize.of(config)
        spread = [TrainingShape(n, sharded=True, rows=2, length=2048) for n in (8, 16, 32)]
        lora = TrainingShape(8, sharded=True, rows=2, length=2048, lora_rank=16)
        cells = [
            inference_gpu_bytes(size, 8192),
            inference_gpu_bytes(size, 8192, ranks=4),
            *(training_gpu_bytes(size, shape) for shape in (*spread, lora)),
            training_host_bytes(size.parameters),
            training_disk_bytes(size.parameters, 4, checkpoints=True),
            4 * size.parameters,
        ]
        rows.append(f"| {name} | {' | '.join(in_gib(cell) for cell in cells)} |")
    return "\n".join(rows)
