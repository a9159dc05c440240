"""The models a training begins with: policy and reference, in fp32, read from disk once where weights get sharded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from transformers import AutoConfig, AutoModelForCausalLM

from srlm_contract.errors import BadInput, InvalidTask
from srlm_contract.spec.training import LoraSpec

from ..sources.text_models import freeze_unread_parts, register_text_models

#: Ends of names that only quantised checkpoints have (bitsandbytes, GPTQ, AWQ, compressed-tensors, fp8).
QUANTISED = (
    ".SCB", ".weight_format", ".absmax", ".quant_map", ".bitsandbytes__nf4", ".bitsandbytes__fp4", ".qweight",
    ".qzeros", ".scales", ".g_idx", ".weight_scale", ".weight_scale_inv", ".input_scale", ".weight_packed",
    ".weight_zero_point", ".weight_shape",
)  # fmt: skip
#: Names of dropout probabilities in model configurations.
DROPOUT_FIELDS = (
    "attention_dropout", "attn_pdrop", "embd_pdrop", "resid_pdrop", "hidden_dropout", "attention_probs_dropout_prob",
    "hidden_dropout_prob", "dropout",
)  # fmt: skip
#: How many names of weights a message lists.
NAMED = 5


def load_config(folder: str, **changes: Any) -> Any:
    """The model's configuration, with fields changed. Raises BadInput ModelNotUsable."""
    register_text_models()
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, **changes)
        for part in {id(c): c for c in (config, config.get_text_config())}.values():
            if getattr(part, "quantization_config", None) is not None:
                del part.quantization_config  # of weights that were quantised once; load_model refuses those that are
        return config
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _unusable(folder, error) from error


def dropout_fields(config: Any, probability: float) -> dict[str, float]:
    """Configuration fields to load a model with so that it drops out with `probability`.

    Llama-like models only have `attention_dropout`, at 0.0; TRL's `disable_dropout=False` alone changes nothing there.
    The saved model keeps its own configuration (see saving.py).
    """
    return {name: probability for name in DROPOUT_FIELDS if isinstance(getattr(config, name, None), float | int)}


def exact_start(config: Any) -> bool:
    """Whether a model without dropout computes the same in training as otherwise: routers may add noise."""
    text = config.get_text_config()
    return not any(getattr(text, name, 0) for name in ("router_jitter_noise", "moe_jitter_eps"))


def load_model(folder: str, config: Any, *, read: bool = True, attention: str | None = None) -> Any:
    """The causal language model in `folder` as `config` says, in fp32 on the CPU.

    read: False for a process that will be handed its weights when they are sharded: its own are not set and take no
    memory. attention: kernels by transformers' name; None for its choice. Raises InvalidTask for kernels that are not
    installed, BadInput ModelNotUsable for weights that cannot be read, are missing or have another shape.
    """
    if not read:
        return _unset(config, attention)
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            folder, config=config, dtype=torch.float32, trust_remote_code=False, output_loading_info=True,
            attn_implementation=attention,
        )  # fmt: skip
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except (ImportError, ValueError) as error:
        if attention is not None and ("ttention" in str(error) or "attn" in str(error)):
            raise InvalidTask(
                "InvalidTask",
                f"training.attnImplementation {attention} cannot be used with this model and image; use sdpa, or an "
                f"image with the kernels: {str(error)[:1000]}",
            ) from error
        raise _unusable(folder, error) from error
    except Exception as error:  # libraries raise whatever they like about a file
        if isinstance(error, OSError) and error.errno is not None and not isinstance(error, FileNotFoundError):
            raise  # a disk or network that fails
        raise _unusable(folder, error) from error
    scales = sorted(name for name in info["unexpected_keys"] if name.endswith(QUANTISED))
    if scales:
        raise BadInput(
            "ModelNotUsable",
            f"the model's weights are quantised ({scales[0]}): training needs the checkpoint that was not",
        )
    missing = sorted(info["missing_keys"])
    if missing:
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        raise BadInput(
            "ModelNotUsable",
            f"the model has no weights named {', '.join(missing[:NAMED])}{more}; training would begin with random "
            "numbers in their place. Use a complete checkpoint in safetensors format",
        )
    _check_tied(model)
    freeze_unread_parts(model)
    return model


def bare_model(folder: str) -> Any:
    """The model class without weights: it knows their names, which are tied and how files are split."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(load_config(folder), trust_remote_code=False)


def lora_config(spec: LoraSpec) -> Any:
    """peft's configuration of low-rank adapters (Hu et al. 2021)."""
    from peft import LoraConfig

    return LoraConfig(
        task_type="CAUSAL_LM",
        r=spec.rank,
        lora_alpha=spec.alpha,
        lora_dropout=spec.dropout,
        target_modules=list(spec.target_modules) or "all-linear",
    )


def _check_tied(model: Any) -> None:
    """Raises BadInput for a head that the configuration ties to the embedding and the weights do not: transformers
    then trains both, and saves one."""
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    tied = getattr(model.config.get_text_config(), "tie_word_embeddings", False)
    if tied and head is not None and head.weight is not embedding.weight:
        raise BadInput(
            "ModelNotUsable",
            "config.json has tie_word_embeddings true, but the weights have a head that differs from the embedding: "
            "set tie_word_embeddings to false in the model's config.json",
        )


def _unset(config: Any, attention: str | None) -> Any:
    """The model with buffers as they should be and weights that nobody has set."""
    with init_empty_weights(include_buffers=False):
        model = AutoModelForCausalLM.from_config(
            config, dtype=torch.float32, trust_remote_code=False, attn_implementation=attention
        )
    model._apply(lambda tensor: torch.empty_like(tensor, device="cpu") if tensor.is_meta else tensor)
    model.tie_weights()
    freeze_unread_parts(model)
    return model


def _unusable(folder: str, error: Exception) -> BadInput:
    text = str(error).replace(folder, Path(folder).name)
    return BadInput("ModelNotUsable", f"the model cannot be loaded for training: {type(error).__name__}: {text[:1500]}")
