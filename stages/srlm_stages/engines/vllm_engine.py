"""vLLM, in this process.

On a machine without a GPU (facts of vLLM 0.32): the engine runs inside this process, since one of its own starts
later and outlives SIGTERM; eager, since compiling costs more than these short stages gain; without chunked prefill,
since per-request seeds crash as soon as a prompt is split; with a key-value cache of a fixed small size, which also
skips the warm-up pass. On GPUs vLLM's defaults stand.
"""

from __future__ import annotations

import gc
import math
import os
import tempfile
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from srlm_contract.errors import StageFailure
from srlm_contract.spec.pods import EngineSettings
from srlm_stages.runtime.devices import has_gpu

from . import Completion, OnProgress, Request, model_config, sees_images
from .vllm_failures import explained, recorded

# Read when vLLM is imported: quiet, no usage statistics, no process of its own on CPU.
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# The constraints are ours and of one form. On a busy machine the 5 s that vLLM gives to compiling one run out, and the
# request ends without a text.
os.environ.setdefault("VLLM_REGEX_COMPILATION_TIMEOUT_S", "600")

#: On CPU: most sequences in a batch, and bytes of key-value cache at most.
CPU_MAX_SEQUENCES = 64
CPU_CACHE_BYTES = 512 * 2**20


class VllmEngine:
    """A model in vLLM."""

    def __init__(self, model: Path, spec: EngineSettings, max_model_len: int) -> None:
        on_cpu = self._on_cpu = not has_gpu()
        folder = os.environ.get("SRLM_MODEL_CACHE")
        if folder and os.access(folder, os.W_OK | os.X_OK):
            # What vLLM found out about a model class (10 s in a process of its own) and compiled, for the next pod.
            os.environ.setdefault("VLLM_CACHE_ROOT", str(Path(folder) / "engine-vllm"))
        if on_cpu:
            os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
            # Two small kernels (log-probabilities, grammar masks) are compiled at first use: 15 s, for milliseconds.
            os.environ.setdefault("TORCH_COMPILE_DISABLE", "1")
        log = None if on_cpu else _error_log()
        # Its own deprecations, in every pod's log.
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"vllm\b")
        import vllm

        self.versions = {"vllm": str(vllm.__version__), "dtype": spec.dtype}
        arguments: dict[str, Any] = {
            "model": str(model),
            "tokenizer": str(model),
            "dtype": spec.dtype.lower(),
            "max_model_len": max_model_len,
            "trust_remote_code": False,
            "enable_prefix_caching": True,
            "disable_log_stats": True,
            "use_tqdm_on_load": False,
            "seed": 0,
        }
        if on_cpu:
            arguments |= cpu_arguments(model, spec.dtype, max_model_len)
        arguments |= text_arguments(model_config(model)) | spec.args
        engine_class = vllm.LLM  # imports most of vLLM
        gc.freeze()  # what was imported stays: the collections that vLLM asks for need not look at it
        try:
            self._llm = engine_class(**arguments)
        except Exception as error:  # its processes fail in many ways, all of which arrive as RuntimeError
            told = log.read_text(errors="replace") if log is not None and log.is_file() else ""
            raise explained(error, told, model.name) from error
        from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams

        self._sampling, self._structured, self._final = (
            SamplingParams, StructuredOutputsParams, RequestOutputKind.FINAL_ONLY,
        )  # fmt: skip

    def generate(self, requests: Sequence[Request], on_progress: OnProgress | None = None) -> list[Completion]:
        outputs = self._run([r.prompt for r in requests], [self._parameters(r) for r in requests], on_progress)
        return [
            Completion(o.text, len(o.token_ids), o.finish_reason == "length", tuple(o.token_ids))
            for o in (output.outputs[0] for output in outputs)
        ]

    def next_token_probabilities(
        self, prompts: Sequence[tuple[int, ...]], tokens: Sequence[int], on_progress: OnProgress | None = None
    ) -> list[list[float]]:
        parameters = self._sampling(
            max_tokens=1, temperature=0, logprob_token_ids=list(tokens), output_kind=self._final
        )
        probabilities = []
        for output in self._run(list(prompts), [parameters] * len(prompts), on_progress):
            first = output.outputs[0].logprobs[0]
            probabilities.append([math.exp(first[t].logprob) if t in first else 0.0 for t in tokens])
        return probabilities

    def close(self) -> None:
        llm = self._llm
        del self._llm
        if self._on_cpu:
            return  # a second engine has room beside what is left of this one, and the process ends soon
        llm.llm_engine.engine_core.shutdown()
        del llm
        gc.unfreeze()
        gc.collect()

    def _parameters(self, request: Request) -> Any:
        structured = None
        if request.constraint is not None:
            structured = self._structured(regex=request.constraint.regex)
        return self._sampling(
            max_tokens=request.max_tokens,
            temperature=request.temperature,
            top_p=request.top_p,
            seed=request.seed,
            stop=list(request.stop) or None,
            structured_outputs=structured,
            output_kind=self._final,
        )

    def _run(self, prompts: list[tuple[int, ...]], parameters: list[Any], on_progress: OnProgress | None) -> list[Any]:
        """Like LLM.generate, but telling how far it is."""
        if not prompts:
            return []
        ids = self._llm.enqueue([{"prompt_token_ids": list(prompt)} for prompt in prompts], parameters, use_tqdm=False)
        finished: dict[str, Any] = {}
        tokens = 0
        engine = self._llm.llm_engine
        while engine.has_unfinished_requests():
            for output in engine.step():
                if output.finished:
                    finished[output.request_id] = answered(output)
                    tokens += len(output.outputs[0].token_ids)
            if on_progress is not None:
                on_progress(len(finished), tokens)
        by_number = {int(number): output for number, output in finished.items()}
        return [by_number[int(str(number).split("-")[0])] for number in ids]


def answered(output: Any) -> Any:
    """A finished output of vLLM. Raises StageFailure for one that vLLM gave up: its text is not the model's answer."""
    reason = output.outputs[0].finish_reason
    if reason in ("abort", "error"):
        raise StageFailure(
            "Crashed", f"vLLM gave up request {output.request_id} (finish reason {reason}); its log above tells why"
        )
    return output


def cpu_arguments(model: Path, dtype: str, max_model_len: int) -> dict[str, Any]:
    """Engine arguments where there is no accelerator."""
    return {
        "enforce_eager": True,
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(2048, max_model_len),
        "max_num_seqs": CPU_MAX_SEQUENCES,
        "kv_cache_memory_bytes": cache_bytes(model_config(model), dtype, max_model_len),
    }


def text_arguments(config: dict[str, Any]) -> dict[str, Any]:
    """Engine arguments for a model that takes images or sound too: no room is kept for them."""
    return {"language_model_only": True} if sees_images(config) else {}


def cache_bytes(config: dict[str, Any], dtype: str, max_model_len: int) -> int:
    """Bytes of key-value cache for a full batch, at most CPU_CACHE_BYTES unless one sequence needs more."""
    heads = int(config.get("num_key_value_heads") or config.get("num_attention_heads") or 1)
    size = int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])
    layers = int(config.get("num_hidden_layers") or config.get("n_layer") or 1)
    a_token = 2 * layers * heads * size * (4 if dtype == "Float32" else 2)
    one = a_token * (max_model_len + 256)
    return max(min(one * CPU_MAX_SEQUENCES, CPU_CACHE_BYTES), one * 2)


@cache
def _error_log() -> Path:
    """Where this process's engines write their errors."""
    return recorded(Path(tempfile.mkdtemp(prefix="vllm-")))
