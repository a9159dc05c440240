"""Whether a model can be used, from its small files alone: configuration, tokenizer, chat template."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .errors import BadInput
from .origins import Missing, Origin
from .sources import MODEL_FILES, matching

#: Small files that describe a model; weights are not read.
DESCRIPTION = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "tokenizer.model",
    "chat_template.jinja", "chat_template.json", "model.safetensors.index.json",
)  # fmt: skip


def model_files(origin: Origin) -> list[str]:
    """The files that are the model: safetensors, JSON, tokenizer and template files of the top folder."""
    return matching(origin.files, MODEL_FILES)


def check_model(origin: Origin, folder: Path, template: str | None) -> None:
    """Raise BadInput ModelNotUsable (or TemplateNotUsable) unless `origin` is a causal language model whose
    tokenizer loads and has a chat template. `folder` receives its small files; `template` replaces its own."""
    config = check_config(origin, folder)
    if not any(f.endswith(".safetensors") for f in origin.files):
        raise _unusable(
            origin, "it has no *.safetensors file; convert it with save_pretrained(safe_serialization=True)"
        )
    _check_shards(origin, folder)
    for name in DESCRIPTION:
        if name in origin.files and not (folder / name).is_file():
            origin.fetch(name, folder)
    check_template(origin.name, folder, template)
    if config.get("auto_map"):
        _check_native(origin, config)


def check_config(origin: Origin, folder: Path) -> dict[str, Any]:
    """config.json of a causal language model."""
    if "config.json" not in origin.files:
        raise _unusable(origin, "it has no config.json: not a model folder in Hugging Face format")
    try:
        config = json.loads(origin.fetch("config.json", folder).read_bytes())
    except ValueError as error:
        raise _unusable(origin, f"its config.json is not JSON ({error})") from error
    if not isinstance(config, dict):
        raise _unusable(origin, "its config.json is not a JSON object")
    architectures = config.get("architectures") or []
    if not any(str(name).endswith(("ForCausalLM", "LMHeadModel")) for name in architectures):
        raise _unusable(
            origin,
            f"its architecture is {', '.join(map(str, architectures)) or 'not stated'}, "
            "which is no causal language model",
        )
    return config


def check_template(name: str, folder: Path, template: str | None) -> None:
    """Load the tokenizer and render one exchange."""
    from .chat import load_tokenizer

    tokenizer = load_tokenizer(folder, template)
    question, answer = "Is this a question?", "This is an answer."
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    try:
        text = tokenizer.apply_chat_template(turns, tokenize=False)
    except Exception as error:  # Jinja raises many kinds, and templates may raise their own
        raise BadInput("TemplateNotUsable", f"the chat template for {name} cannot be rendered: {error}") from error
    if question not in text or answer not in text:
        raise BadInput(
            "TemplateNotUsable",
            f"the chat template for {name} leaves out the user's or the assistant's text; rendered: {text[:200]!r}",
        )


def _check_shards(origin: Origin, folder: Path) -> None:
    if "model.safetensors.index.json" not in origin.files:
        return
    try:
        index = json.loads(origin.fetch("model.safetensors.index.json", folder).read_bytes())
        wanted = set(index["weight_map"].values())
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise _unusable(origin, f"its model.safetensors.index.json is damaged ({error})") from error
    missing = sorted(wanted - set(origin.files))
    if missing:
        raise _unusable(origin, f"files of its index are missing: {', '.join(missing[:5])}")


def _check_native(origin: Origin, config: dict[str, Any]) -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    if config.get("model_type") not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise _unusable(
            origin,
            f"model type {config.get('model_type')!r} needs code from its repository, which is not run",
        )


def missing_model(error: Missing, field: str) -> BadInput:
    return BadInput("ModelNotUsable", f"{field}: {error}")


def _unusable(origin: Origin, why: str) -> BadInput:
    return BadInput("ModelNotUsable", f"{origin.name} cannot be used: {why}")
