"""A checkpoint against its architecture: transformers builds the model without memory (meta device) and loads the
names and shapes of the checkpoint into it, with all renaming, merging and tying that it does when a stage loads it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..sources.text_models import register_text_models
from ..sources.weights import FLOATS, Tensor

NAMED = 5


class Misfit(Exception):
    """Configuration and weights do not make a model; the message says why and what to do."""


@dataclass(frozen=True)
class Architecture:
    """What a model is, as far as it can be known without its weights."""

    config: Any
    """transformers' configuration of the text model."""
    parameters: int
    """Number of parameters; tied ones count once."""
    embedding: int
    """Rows of the input embedding: token ids are below."""

    @property
    def context(self) -> int | None:
        """Longest input in tokens; None where the architecture has no limit."""
        longest = getattr(self.config, "max_position_embeddings", None)
        return longest if isinstance(longest, int) and longest > 0 else None


def check_weights(folder: Path, tensors: Mapping[str, Tensor]) -> Architecture:
    """Build the model of `folder`'s config.json and compare it with the tensors. Raises Misfit."""
    import torch

    with _reports() as reports:
        model_class, config = causal_lm(folder)
        _check_types(tensors)
        state = {name: torch.empty(t.shape, dtype=torch.float32, device="meta") for name, t in tensors.items()}
        try:
            # The same loading as in a stage, but for the memory.
            model, info = model_class.from_pretrained(
                None, config=config, state_dict=state, device_map={"": "meta"}, dtype=torch.float32,
                output_loading_info=True, ignore_mismatched_sizes=True,
            )  # fmt: skip
        except Exception as error:  # configurations are checked by whatever layer stumbles first
            if names := _unmerged(reports):
                raise Misfit(
                    f"{names} cannot be made of the checkpoint's weights: some are missing or of another shape; fetch "
                    "the checkpoint again, or correct config.json"
                ) from error
            raise Misfit(f"no model can be built of its config.json and weights: {_first(error)}") from error
        _check_loaded(info, list(tensors))
        embedding = model.get_input_embeddings().weight.shape[0]
        return Architecture(config.get_text_config(), model.num_parameters(), embedding)


def causal_lm(folder: Path) -> tuple[Any, Any]:
    """(class, configuration) with which AutoModelForCausalLM loads the folder. Raises Misfit for what it cannot."""
    from transformers import AutoConfig, AutoModelForCausalLM, __version__

    register_text_models()
    try:
        config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    except Exception as error:  # unknown model type, fields of a wrong type
        if "trust_remote_code" in str(error):
            raise Misfit("it needs code from its repository, which is not run") from error
        raise Misfit(f"transformers {__version__} cannot read its config.json: {_first(error)}") from error
    try:
        found = AutoModelForCausalLM._model_mapping[type(config)]
    except KeyError as error:
        raise Misfit(
            f"transformers {__version__} has no causal language model of type {config.model_type!r}; "
            "a vision-language model may be usable as the checkpoint of its language model alone"
        ) from error
    if found.config_class is config.sub_configs.get("text_config"):
        config = config.get_text_config()
    return found, config


def _check_types(tensors: Mapping[str, Tensor]) -> None:
    """Raises Misfit for weights that are stored as anything but floating-point numbers of 16 bits and more."""
    packed = {t.dtype for name, t in tensors.items() if t.dtype not in FLOATS and "weight" in name and len(t.shape) > 1}
    if packed:
        raise Misfit(
            f"its weights are quantised ({', '.join(sorted(packed))}), which cannot be trained; "
            "use the checkpoint in BF16, FP16 or FP32 that it was made of"
        )


def _check_loaded(info: Mapping[str, Any], names: list[str]) -> None:
    """Raises Misfit for weights that are missing or of another shape; more weights than needed are fine."""
    missing, other = sorted(info["missing_keys"]), sorted(info["mismatched_keys"])
    if other:
        shown = ", ".join(f"{name} is {tuple(has)}, not {tuple(wants)}" for name, has, wants in other[:NAMED])
        raise Misfit(
            f"{len(other)} weights do not have the shape that config.json asks for: {shown}; correct one of them"
        )
    if missing:
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        hint = f" (the checkpoint has {', '.join(sorted(names)[:3])} instead)" if len(missing) >= len(names) else ""
        raise Misfit(
            f"{len(missing)} weights are missing, and training would begin with random ones: "
            f"{', '.join(missing[:NAMED])}{more}{hint}; fetch the checkpoint again, or correct config.json"
        )


@contextmanager
def _reports() -> Iterator[list[str]]:
    """Collect transformers' report of a loading instead of printing it; no progress bars."""
    from transformers.utils import logging as its_logging

    found: list[str] = []
    logger, handler = logging.getLogger("transformers.modeling_utils"), logging.Handler()
    handler.emit = lambda record: found.append(record.getMessage())  # type: ignore[method-assign]
    before, bars = (logger.level, logger.propagate), its_logging.is_progress_bar_enabled()
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    logger.addHandler(handler)
    its_logging.disable_progress_bar()
    try:
        yield found
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = before
        if bars:
            its_logging.enable_progress_bar()


def _unmerged(reports: list[str]) -> str:
    """Of a report the weights that could not be made of those of the checkpoint, such as experts of a layer."""
    rows = [line for report in reports for line in report.splitlines() if "| CONVERSION" in line]
    return ", ".join(line.partition(" ")[0] for line in rows[:NAMED])


def _first(error: Exception) -> str:
    return " ".join(str(error).split())[:400] or type(error).__name__
