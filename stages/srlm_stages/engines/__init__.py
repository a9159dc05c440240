"""Inference engines behind one small protocol: vLLM, and plain transformers where vLLM cannot be installed.

A request is one sample: token ids in, seeded sampling, text out. An engine keeps the order of requests.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from srlm_contract.errors import BadInput
from srlm_contract.spec.pods import EngineSettings
from srlm_stages.runtime.devices import choice, inference_dtype

OnProgress = Callable[[int, int], None]
"""Called with (requests finished, tokens generated), both since the call began."""


@dataclass(frozen=True)
class ScoreLine:
    """Forces an answer into `<one line of at most max_characters><newline><lead><0 to 5>`."""

    max_characters: int
    lead: str = "Score: "
    """What the score line begins with."""

    @property
    def regex(self) -> str:
        lead = re.sub(r"([.^$*+?{}\[\]\\|()/])", r"\\\1", self.lead)
        return rf"[^\n]{{1,{self.max_characters}}}\n{lead}[0-5]"


@dataclass(frozen=True)
class Request:
    """One sample to draw."""

    prompt: tuple[int, ...]
    """Token ids."""
    seed: int
    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    """Texts that end the answer; they are not part of it."""
    constraint: ScoreLine | None = None


@dataclass(frozen=True)
class Completion:
    """What the model wrote."""

    text: str
    tokens: int
    truncated: bool
    """Ended by `max_tokens`: not finished."""
    ids: tuple[int, ...] = ()
    """The tokens themselves, special ones included; empty where the engine does not tell them."""


class Engine(Protocol):
    """A loaded model. Closed once, at the end of the pod or when it makes room for another."""

    versions: dict[str, str]
    """What shapes its answers, for the manifest: the engine's version by its name, and `dtype`."""

    def generate(self, requests: Sequence[Request], on_progress: OnProgress | None = None) -> list[Completion]:
        """One completion a request, in order."""

    def next_token_probabilities(
        self, prompts: Sequence[tuple[int, ...]], tokens: Sequence[int], on_progress: OnProgress | None = None
    ) -> list[list[float]]:
        """For each prompt the probability (over the whole vocabulary) of each of `tokens` coming next."""

    def close(self) -> None:
        """Free the model's memory."""


def open_engine(spec: EngineSettings, model: Path, max_model_len: int) -> Engine:
    """Load `model` for inputs and answers of together at most `max_model_len` tokens.

    Raises BadInput ModelNotUsable when the engine cannot load it.
    """
    dtype = inference_dtype(spec.dtype)
    print(choice("engine.dtype", spec.dtype, dtype), flush=True)  # noqa: T201 - the log of the pod
    spec = spec.model_copy(update={"dtype": dtype})
    if spec.name == "transformers":
        from .transformers_engine import TransformersEngine

        return TransformersEngine(model, spec, max_model_len)
    from .vllm_engine import VllmEngine

    return VllmEngine(model, spec, max_model_len)


def context_length(model: Path) -> int:
    """The longest input plus output of a model, from its configuration; 1,048,576 when it names none."""
    config = model_config(model)
    for name in ("max_position_embeddings", "n_positions", "max_sequence_length"):
        if isinstance(config.get(name), int):
            return int(config[name])
    return 2**20


def sees_images(config: Mapping[str, Any]) -> bool:
    """Whether a model takes more than text (Gemma 3, Mistral Small 3, Llama 4, Qwen VL): it is used for text alone."""
    return any(isinstance(config.get(name), dict) for name in ("vision_config", "audio_config", "vision_tower_config"))


def model_config(model: Path) -> dict[str, Any]:
    """config.json of a model folder. Raises BadInput ModelNotUsable."""
    import json

    path = model / "config.json"
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise BadInput("ModelNotUsable", f"{model.name}: config.json cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise BadInput("ModelNotUsable", f"{model.name}: config.json is no object")
    text: Any = config.get("text_config")
    return {**config, **text} if isinstance(text, dict) else config


def long_context(model: Path) -> int:
    """Engines opened for more tokens than this compute other positions (`longrope`: Phi-3); 0 where none do."""
    config = model_config(model)
    rope = config.get("rope_parameters") or config.get("rope_scaling")
    if not isinstance(rope, dict) or "longrope" not in (rope.get("rope_type"), rope.get("type")):
        return 0
    return int(config.get("original_max_position_embeddings") or rope.get("original_max_position_embeddings") or 0)


def rounded_length(needed: int, limit: int, step: int = 128) -> int:
    """`needed` rounded up to a multiple of `step`, at most `limit`: what an engine is opened for."""
    return min(-(-needed // step) * step, limit)
