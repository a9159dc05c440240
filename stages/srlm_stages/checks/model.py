"""Whether a model can be used, from its small files and the headers of its weights alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srlm_contract.errors import BadInput

from ..sources.fetch import MODEL_FILES, TOKENIZER_FILES, matching
from ..sources.origins import Missing, Origin
from ..sources.weights import read_headers, unusable, weight_files
from .architecture import Architecture, Misfit, check_weights

#: Any of these makes a tokenizer, with the files beside it.
TOKENIZERS = ("tokenizer.json", "*.model", "vocab.json", "vocab.txt")
#: Endings of the architectures that may be able to write text.
LANGUAGE_MODELS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
QUANTISED = ("quantization_config", "compression_config")


@dataclass(frozen=True)
class CheckedModel:
    """A model that every stage can load."""

    architecture: Architecture
    tokenizer: Any


def model_files(origin: Origin) -> list[str]:
    """The files that are the model: safetensors, JSON, tokenizer and template files of the top folder."""
    return matching(origin.files, MODEL_FILES)


def check_model(
    origin: Origin, folder: Path, template: str | None, arguments: Mapping[str, Any] | None = None
) -> CheckedModel:
    """Raise BadInput ModelNotUsable (or TemplateNotUsable) unless `origin` is a causal language model with all its
    weights, whose tokenizer loads, fits it and has a chat template. `folder` receives its small files; `template`
    replaces its own, and is given `arguments`."""
    _check_no_adapter(origin)
    check_config(origin, folder)
    weights = weight_files(origin, folder)
    if not matching(origin.files, TOKENIZERS):
        own = ", but Mistral's own (tekken.json)" if "tekken.json" in origin.files else ""
        raise unusable(
            origin,
            f"it has no tokenizer in Hugging Face format (tokenizer.json or tokenizer.model){own}; put the tokenizer "
            "it was trained with beside it (save_pretrained)",
        )
    for name in matching(origin.files, TOKENIZER_FILES):  # what the stages will find beside the weights
        if not (folder / name).is_file():
            origin.fetch(name, folder)
    tensors = read_headers(origin, weights)
    try:
        architecture = check_weights(folder, tensors)
    except Misfit as error:
        raise unusable(origin, str(error)) from error
    tokenizer, text = check_template(origin.name, folder, template, arguments)
    check_vocabulary(origin, tokenizer, text, architecture.embedding)
    return CheckedModel(architecture, tokenizer)


def _check_no_adapter(origin: Origin) -> None:
    """An adapter's configuration makes transformers load another base model, or change this one."""
    if "adapter_config.json" not in origin.files:
        return
    if any(name.startswith("model") and name.endswith(".safetensors") for name in origin.files):
        raise unusable(
            origin,
            "beside its weights it has an adapter (adapter_config.json), and not every engine would add it; remove "
            "the adapter's files, or merge it into the model (merge_and_unload)",
        )
    raise unusable(
        origin,
        "it is an adapter (adapter_config.json), no model; merge it into its base model (merge_and_unload) and name "
        "the result, or name the base model",
    )


def check_config(origin: Origin, folder: Path) -> dict[str, Any]:
    """config.json of a causal language model whose weights are plain numbers."""
    if "config.json" not in origin.files:
        found = _other_format(origin.files)
        raise unusable(origin, f"it has no config.json: not a model folder in Hugging Face format{found}")
    try:
        config = json.loads(origin.fetch("config.json", folder).read_bytes())
    except (ValueError, RecursionError) as error:
        raise unusable(origin, f"its config.json is not JSON ({error})") from error
    if not isinstance(config, dict):
        raise unusable(origin, "its config.json is not a JSON object")
    _check_language_model(origin, config)
    for part in _parts(config):
        for field in QUANTISED:
            if part.get(field):
                raise unusable(origin, _quantised(field, part[field]))
    if config.get("transformers_weights"):
        raise unusable(
            origin,
            "its config.json names a weights file (transformers_weights), which not every engine reads; give the "
            "file its usual name (model.safetensors) and remove the field",
        )
    return config


def _check_language_model(origin: Origin, config: Mapping[str, Any]) -> None:
    architectures = config.get("architectures") or []
    stated = ", ".join(map(str, architectures)) or "not stated (architectures in config.json)"
    if not any(str(name).endswith(LANGUAGE_MODELS) for name in architectures):
        raise unusable(origin, f"its architecture is {stated}, which is no causal language model")
    if any(part.get("is_encoder_decoder") for part in _parts(config)):
        raise unusable(
            origin, f"its architecture is {stated}, an encoder-decoder model, which is no causal language model"
        )


def _parts(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The configuration, and that of its language model where it has several parts."""
    yield config
    for name in ("text_config", "llm_config", "language_config"):
        if isinstance(config.get(name), dict):
            yield config[name]


def _quantised(field: str, value: Any) -> str:
    method = value.get("quant_method") if isinstance(value, dict) else None
    return (
        f"it is quantised ({method or field}), which cannot be trained; use the checkpoint in BF16, FP16 or FP32 that "
        f"it was made of, or, where its weights have been dequantised, remove {field} from its config.json"
    )


def _other_format(files: Mapping[str, int]) -> str:
    for ending, what in ((".gguf", "GGUF"), (".nemo", "NeMo"), (".pth", "PyTorch")):
        found = sorted(name for name in files if name.endswith(ending))
        if found:
            return f" but {what} ({found[0]}); use the model in Hugging Face format"
    if "params.json" in files:
        return " but Mistral's or Meta's own (params.json); use the conversion in Hugging Face format"
    below = sorted(name for name in files if name.endswith("/config.json"))
    return f" ({below[0]} lies in a folder of its own: name that folder in the uri)" if below else ""


def check_template(
    name: str, folder: Path, template: str | None, arguments: Mapping[str, Any] | None = None
) -> tuple[Any, str]:
    """(tokenizer, one rendered exchange)."""
    from ..conversation.chat import load_tokenizer, messages, render_exchange

    tokenizer = load_tokenizer(folder, template, arguments)
    question, answer = "Is this a question?", "This is an answer."
    try:
        text = render_exchange(tokenizer, messages(question), answer).text
    except BadInput as error:
        raise BadInput(error.reason, f"{name}: {error}") from error
    if question not in text or answer not in text:
        raise BadInput(
            "TemplateNotUsable",
            f"the chat template for {name} leaves out the user's or the assistant's text; rendered: {text[:200]!r}",
        )
    return tokenizer, text


def check_vocabulary(origin: Origin, tokenizer: Any, text: str, embedding: int) -> None:
    """The end token exists, and every token that texts may become has a row of the embedding.

    Special tokens that neither the template (`text` is an exchange) nor the tokenizer uses may lie outside: Gemma 3
    in its text-only sizes has the image token of the others.
    """
    if tokenizer.eos_token_id is None:
        raise unusable(
            origin,
            "its tokenizer has no end token, so answers would never end; name it as eos_token in tokenizer_config.json",
        )
    named = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id)
    used = {*named, *tokenizer.encode(text, add_special_tokens=False)}
    added = tokenizer.added_tokens_decoder
    outside = {
        token: number
        for token, number in tokenizer.get_vocab().items()
        if number >= embedding and (number in used or number not in added or not added[number].special)
    }
    if outside:
        token, number = min(outside.items(), key=lambda item: item[1])
        raise unusable(
            origin,
            f"its tokenizer has more tokens than its embedding has rows ({embedding}): {token!r} is number {number}; "
            "enlarge the embedding (resize_token_embeddings) and save the model, or use the tokenizer it was trained "
            "with",
        )


def missing_model(error: Missing, field: str) -> BadInput:
    return BadInput("ModelNotUsable", f"{field}: {error}")
