"""Dropout for models whose configuration has almost none."""

from __future__ import annotations

from typing import Any

#: Names of dropout probabilities in model configurations.
FIELDS = (
    "attention_dropout", "attn_pdrop", "embd_pdrop", "resid_pdrop", "hidden_dropout", "attention_probs_dropout_prob",
    "hidden_dropout_prob", "dropout",
)  # fmt: skip


def dropout_fields(config: Any, probability: float) -> dict[str, float]:
    """Configuration fields to load a model with so that it drops out with `probability`.

    Llama-like models only have `attention_dropout`, at 0.0; TRL's `disable_dropout=False` alone changes nothing there.
    The saved model keeps its own configuration (see saving.py).
    """
    return {name: probability for name in FIELDS if isinstance(getattr(config, name, None), float | int)}


def exact_start(config: Any) -> bool:
    """Whether a model without dropout computes the same in training as otherwise: routers may add noise."""
    text = config.get_text_config()
    return not any(getattr(text, name, 0) for name in ("router_jitter_noise", "moe_jitter_eps"))
