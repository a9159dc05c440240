"""The finished model: safetensors with the start model's configuration, tokenizer and templates."""

from __future__ import annotations

import json
import shutil
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FSDPModule
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..sources.fetch import TOKENIZER_FILES
from .checkpoints import KEPT
from .config import WorkerConfig
from .loading import bare_model, lora_config

DTYPES = {"Float32": torch.float32, "BFloat16": torch.bfloat16}
WEIGHTS_INDEX = "model.safetensors.index.json"


def save_model(trainer: Any, folder: Path, config: WorkerConfig) -> None:
    """Write the trained weights. Every process must call it (sharded weights are gathered); rank 0 writes."""
    state = whole_state(trainer)
    if trainer.accelerator.is_main_process:
        if config.lora.rank is not None:
            if not isinstance(trainer.model_wrapped, FSDPModule):  # these are the weights that training goes on with
                state = {name: tensor.detach().to("cpu", copy=True) for name, tensor in state.items()}
            state = _merged(state, config)
        dtype = DTYPES[config.save_dtype]
        state = {name: _stored(tensor, dtype) for name, tensor in state.items()}
        plain = bare_model(config.model)
        plain.save_pretrained(folder, state_dict=state, max_shard_size="4GB")
        describe(Path(config.model), folder, config)
    trainer.accelerator.wait_for_everyone()


def whole_state(trainer: Any) -> dict[str, torch.Tensor]:
    """The model's tensors by name, gathered where they are sharded (rank 0 has them then, others nothing)."""
    model = trainer.model_wrapped
    if isinstance(model, FSDPModule):
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        return dict(get_model_state_dict(model, options=options))
    return dict(trainer.accelerator.get_state_dict(model))


class KeptModels(TrainerCallback):  # type: ignore[misc]  # transformers has no types here
    """Keeps the model of every n-th step as `steps/<step>/` beside the finished one, to choose from."""

    def __init__(self, trainer: Any, config: WorkerConfig) -> None:
        self._trainer, self._config = trainer, config

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        step = state.global_step
        if step % self._config.keep_every == 0 and step < state.max_steps:
            save_model(self._trainer, Path(self._config.output) / KEPT / str(step), self._config)


def describe(start: Path, folder: Path, config: WorkerConfig) -> None:
    """Everything but the weights: word for word the start model's, apart from the type and a given template."""
    for path in sorted(start.iterdir()):
        if path.name != WEIGHTS_INDEX and any(fnmatch(path.name, pattern) for pattern in TOKENIZER_FILES):
            shutil.copyfile(path, folder / path.name)
    settings = json.loads((start / "config.json").read_bytes())
    settings.pop("torch_dtype", None)
    _without_quantisation(settings)
    settings["dtype"] = str(DTYPES[config.save_dtype]).removeprefix("torch.")
    (folder / "config.json").write_text(json.dumps(settings, indent=2) + "\n")
    if config.chat_template is not None:
        (folder / "chat_template.jinja").write_text(config.chat_template)
    for path in folder.iterdir():
        path.chmod(0o644)


def changed_weights(before: Path, after: Path, dtype: torch.dtype = torch.bfloat16) -> float | None:
    """Share of the weights that differ once both models are cast to the type they are served in; None when the two
    have no weight in common.

    Small updates vanish in bfloat16: a model with no changed weight answers exactly as the one before. Names may
    differ in the modules around the language model, which checkpoints of one model spell in several ways.
    """
    old = {_place(name): (name, path) for name, path in _tensor_files(before).items()}
    changed = total = 0
    for name, path in _tensor_files(after).items():
        old_name, old_path = old.get(_place(name), ("", path))
        if not old_name:
            continue
        with safe_open(path, "pt") as new_file, safe_open(old_path, "pt") as old_file:
            new_weights, old_weights = new_file.get_tensor(name), old_file.get_tensor(old_name)
        if new_weights.shape != old_weights.shape:
            continue
        changed += int((new_weights.to(dtype) != old_weights.to(dtype)).sum())
        total += new_weights.numel()
    return changed / total if total else None


#: Modules around the language model: `language_model.model.layers.0` and `model.language_model.layers.0` are one.
_AROUND = frozenset({"model", "language_model", "text_model", "transformer", "module", "base_model"})


def _place(name: str) -> str:
    """A weight's name without the modules around the language model."""
    return ".".join(part for part in name.split(".") if part not in _AROUND)


def _tensor_files(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            found |= dict.fromkeys(file.keys(), path)
    return found


def _without_quantisation(settings: dict[str, Any]) -> None:
    """Take out what says that weights are quantised, also of a text model inside: the trained ones are not."""
    for name in ("quantization_config", "compression_config"):
        settings.pop(name, None)
    for part in settings.values():
        if isinstance(part, dict):
            _without_quantisation(part)


def _stored(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    tensor = tensor.detach().cpu()
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def _merged(state: dict[str, torch.Tensor], config: WorkerConfig) -> dict[str, torch.Tensor]:
    """Weights with the adapters merged in. `state`: those of the model with adapters; no other copy is made."""
    from peft import get_peft_model

    model = get_peft_model(bare_model(config.model), lora_config(config.lora))
    model.load_state_dict(state, assign=True)
    merged: dict[str, torch.Tensor] = model.merge_and_unload().state_dict()
    return merged
