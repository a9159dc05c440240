"""Vision-language models used for their text: which AutoModelForCausalLM learns to load, and what of them stays."""

from __future__ import annotations

from typing import Any


def register_text_models() -> None:
    """Let AutoModelForCausalLM load models that answer without an image too, but that it leaves out; idempotent."""
    from transformers import AutoModelForCausalLM, Mistral3Config, Mistral3ForConditionalGeneration

    AutoModelForCausalLM.register(Mistral3Config, Mistral3ForConditionalGeneration, exist_ok=True)


def freeze_unread_parts(model: Any) -> None:
    """Leave out of training what text never reaches, such as the vision tower: it gets no gradients, and processes
    that average gradients would wait for them."""
    if model.config.get_text_config() is model.config:
        return
    parts = (model.get_decoder(), model.get_input_embeddings(), model.get_output_embeddings())
    read = {id(parameter) for part in parts if part is not None for parameter in part.parameters()}
    for parameter in model.parameters():
        if id(parameter) not in read:
            parameter.requires_grad_(False)
