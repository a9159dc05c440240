"""The sections of `SelfRewardingRun.spec` about training: supervised fine-tuning, DPO and how both run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from srlm_contract.base import Contract, CountOrZero, Fraction, NonNegative, Positive, ShortText
from srlm_contract.spec.marks import PreflightIgnores
from srlm_contract.spec.references import rules

#: Optimisers, as transformers names them. The 8-bit and paged ones need the package bitsandbytes and a GPU.
Optimizer = Literal["adamw_torch", "adamw_torch_fused", "adamw_bnb_8bit", "paged_adamw_32bit", "paged_adamw_8bit"]


class OptimizerSpec(Contract):
    """How weights are updated; names as in transformers' TrainingArguments."""

    optim: Optimizer = "adamw_torch"
    """Optimiser, as transformers names it; those of bitsandbytes need that package in the train image, and a GPU."""
    weight_decay: Fraction = 0
    """Decoupled weight decay of AdamW, per step and learning rate; none on biases and norms."""
    adam_beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay of AdamW's mean of gradients."""
    adam_beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Decay of AdamW's mean of squared gradients."""
    max_grad_norm: NonNegative = 1
    """Longest gradient (2-norm over all weights); longer ones are cut to it. 0 for no limit."""


class SftSpec(OptimizerSpec):
    """Supervised fine-tuning, loss on the answer only."""

    model_config = rules(
        (
            ".minLearningRate",
            "self.minLearningRate <= self.learningRate",
            "minLearningRate must not be above learningRate: lower it, or set it to 0",
        ),
    )

    learning_rate: Positive = 5.5e-6
    """Peak learning rate."""
    min_learning_rate: NonNegative = 1.1e-6
    """Learning rate that the cosine schedule ends with."""
    batch_size: Annotated[int, Field(ge=1, le=65536)] = 16
    """Examples per optimizer step over all processes."""
    epochs: Annotated[float, Field(gt=0, le=1000)] = 2
    """Passes over the data."""
    max_length: Annotated[int, Field(ge=16, le=1048576)] = 2048
    """Longest example in tokens; longer ones are dropped and counted."""
    dropout: Fraction = 0.1
    """Share of activations that dropout leaves out during training."""
    warmup_ratio: Fraction = 0
    """Share of the steps with rising learning rate."""
    packing: bool = False
    """Put several examples into one row of up to maxLength tokens; each sees itself only, and batchSize counts rows."""


LossType = Literal[
    "sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard",
    "aot", "aot_unpaired", "apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm",
]  # fmt: skip


class DpoSpec(OptimizerSpec):
    """Direct preference optimisation (Rafailov et al. 2023)."""

    model_config = rules(
        (
            ".minLearningRate",
            "self.minLearningRate <= self.learningRate",
            "minLearningRate must not be above learningRate: lower it, or set it to 0",
        ),
        (
            ".labelSmoothing",
            "!self.lossType.exists(t, t == 'exo_pair') || self.labelSmoothing > 0.0",
            "lossType exo_pair needs labelSmoothing above 0, such as 1e-3",
        ),
        (
            ".lossWeights",
            "!has(self.lossWeights) || size(self.lossWeights) in [0, size(self.lossType)]",
            "lossWeights must have one weight for each entry of lossType, or be left out",
        ),
    )

    beta: Positive = 0.1
    """Strength of the pull towards the reference model."""
    loss_type: Annotated[tuple[LossType, ...], Field(min_length=1, max_length=8)] = ("sigmoid",)
    """Loss terms, as TRL names them."""
    learning_rate: Positive = 1e-6
    """Peak learning rate."""
    min_learning_rate: NonNegative = 1e-7
    """Learning rate that the cosine schedule ends with."""
    batch_size: Annotated[int, Field(ge=1, le=65536)] = 16
    """Pairs per optimizer step over all processes."""
    epochs: Annotated[float, Field(gt=0, le=1000)] = 1
    """Passes over the data."""
    max_length: Annotated[int, Field(ge=16, le=1048576)] = 2048
    """Longest prompt plus answer in tokens; longer pairs are dropped and counted."""
    dropout: Fraction = 0.1
    """Share of activations that dropout leaves out during training."""
    warmup_ratio: Fraction = 0
    """Share of the steps with rising learning rate."""
    label_smoothing: Annotated[float, Field(ge=0, le=0.49)] = 0
    """Assumed share of pairs that are the wrong way round."""
    loss_weights: Annotated[tuple[NonNegative, ...], Field(max_length=8)] = ()
    """Weight of each entry of lossType in their sum; empty for 1 each. RPO is lossType [sigmoid, sft] with weights."""
    ld_alpha: Fraction | None = None
    """LD-DPO's weight of the tokens by which an answer is longer than the other one; 1, as when unset, is plain DPO."""


class LoraSpec(Contract):
    """Low-rank adaptation; merged on save. Off without `rank`."""

    rank: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Rank of the adapters; LoRA is off without it."""
    alpha: Positive = 16
    """Scale of the adapters: what they add is multiplied by alpha / rank."""
    dropout: Fraction = 0
    """Share of activations that dropout leaves out in front of the adapters."""
    target_modules: Annotated[tuple[ShortText, ...], Field(max_length=64)] = ()
    """Module names; empty for all linear layers."""


DevicePrecision = Literal["BF16Mixed", "Float32"]
Precision = Literal["Auto", DevicePrecision]
#: Type of saved weights.
SaveDtype = Literal["Float32", "BFloat16"]


class BootstrapSpec(Contract):
    """How M1 comes to be."""

    strategy: Literal["SupervisedFineTuning", "None"] = "SupervisedFineTuning"
    """`None`: the base model already follows instructions and judges; it is M1."""
    sft: SftSpec = SftSpec()
    """Supervised fine-tuning of M0."""
    lora: LoraSpec = LoraSpec()
    """Low-rank adaptation in that fine-tuning; that of the iterations is training.lora."""


class ChooseSpec(Contract):
    """Early stopping by pairwise judging of checkpoints."""

    enabled: bool = False
    """Whether a checkpoint is chosen; else the last one is the model."""


class FsdpSpec(Contract):
    """Sharding with parallelism FSDP; names as in accelerate and transformers' fsdp_config."""

    cpu_offload: bool = False
    """Keep weights, gradients and optimiser in host memory while unused: slower, less GPU memory."""
    reshard_after_forward: bool = True
    """Free gathered weights after the forward pass; false is faster and needs the memory of all weights."""
    dp_replicate_size: Annotated[int, Field(ge=1, le=65536)] = 1
    """Hybrid sharding: this many replicas, each sharded over the remaining processes; the nodes are a good number."""


OffloadDevice = Literal["none", "cpu"]


class DeepSpeedSpec(Contract):
    """ZeRO with parallelism DeepSpeed; names as in accelerate's DeepSpeedPlugin."""

    zero_stage: Annotated[int, Field(ge=0, le=3)] = 3
    """What is sharded: 1 the optimiser, 2 also gradients, 3 also weights."""
    offload_optimizer_device: OffloadDevice = "none"
    """Where the optimiser's state lies."""
    offload_param_device: OffloadDevice = "none"
    """Where unused weights lie (stage 3)."""


Parallelism = Literal["DDP", "FSDP", "DeepSpeed"]
AttnImplementation = Literal["eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"]


class TrainingSpec(Contract):
    """Preference training and how all training runs."""

    start_from: Literal["Previous", "Bootstrap"] = "Previous"
    """M_{t+1} from M_t, or every M from M1."""
    reference: Literal["Start", "Bootstrap"] = "Start"
    """Reference model: the one training starts from, or M1."""
    dpo: DpoSpec = DpoSpec()
    """Direct preference optimisation."""
    checkpoint_every_steps: Annotated[CountOrZero, PreflightIgnores()] = 200
    """Steps between resume points; 0 for none."""
    choose: ChooseSpec = ChooseSpec()
    """Choice of a checkpoint."""
    precision: Precision = "Auto"
    """`BF16Mixed`: fp32 master weights under bf16 autocast; `Float32`: plain fp32; `Auto`: BF16Mixed where the device
    multiplies bf16 natively, else Float32. Pure bf16 AdamW loses small updates."""
    save_dtype: SaveDtype = "Float32"
    """Type of the weights between iterations; the inference engine casts."""
    lora: LoraSpec = LoraSpec()
    """Low-rank adaptation."""
    nodes: Annotated[int, Field(ge=1, le=1024), PreflightIgnores()] = 1
    """Pods of a training Job."""
    processes_per_node: Annotated[Annotated[int, Field(ge=1, le=64)] | None, PreflightIgnores()] = None
    """torchrun processes a pod, one a GPU. Default: the GPUs of the limits of stages.train.resources (for the
    bootstrap, of stages.sft.resources), or 8 where these name none."""
    parallelism: Annotated[Parallelism, PreflightIgnores()] = "FSDP"
    """Replicated or sharded weights; on CPU always DDP. DeepSpeed needs that package in the train image."""
    fsdp: FsdpSpec = FsdpSpec()
    """Options of parallelism FSDP."""
    deepspeed: DeepSpeedSpec = DeepSpeedSpec()
    """Options of parallelism DeepSpeed."""
    attn_implementation: AttnImplementation | None = None
    """Attention kernels, as transformers names them; unset for the best that the model and PyTorch have (sdpa)."""
    padding_free: bool = False
    """Supervised training without padding: the rows of a micro-batch as one long row. DPO has no such form in TRL."""
    micro_batch_size: Annotated[Annotated[int, Field(ge=1, le=1024)] | None, PreflightIgnores()] = None
    """Rows a process takes through the model at once; does not change the batch size. Unset: as many as the free
    memory of its device has room for."""
    gradient_checkpointing: Annotated[bool | None, PreflightIgnores()] = None
    """Compute activations again for the gradients instead of keeping them: takes a third longer and needs far less
    memory. Unset: where memory is too small otherwise."""
