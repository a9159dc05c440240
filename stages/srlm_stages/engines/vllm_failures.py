"""Why vLLM could not start, told by the cause.

On GPUs the engine runs in processes of its own: what reaches this one is "Engine core initialization failed. See root
cause above". The cause is in their log, so they write their errors to a file too.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, MutableMapping
from pathlib import Path

from srlm_contract.errors import BadInput, InvalidTask, StageFailure

#: `ValueError: ...` at the end of a traceback, after the prefix of a log line.
_RAISED = re.compile(
    r"^(?:.*?\]\s+)?(?:[A-Za-z_]+\.)*(?P<kind>[A-Za-z_]+(?:Error|Exception)): (?P<what>.*)$", re.MULTILINE
)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
#: What follows from a failure in another process.
_CONSEQUENCE = re.compile(r"initialization failed|see (?:stack trace|root cause)|background process", re.IGNORECASE)
#: Kinds of errors that say the model or the arguments are wrong: trying again changes nothing.
_REFUSALS = (
    "ValueError", "OSError", "KeyError", "TypeError", "ImportError", "AttributeError",
    "NotImplementedError", "AssertionError", "ValidationError", "FileNotFoundError", "SafetensorError",
)  # fmt: skip

_ARGS = "stages.<stage>.engine.args"
#: (what the log says, reason, what is wrong and what to do about it); the first that fits is the cause.
_CAUSES = (
    (
        r"No available memory for the cache blocks|larger than the available KV cache",
        "ModelNotUsable",
        "vLLM has no room for the key-value cache of {model}: raise gpu_memory_utilization or tensor_parallel_size, or "
        f"lower max_model_len ({_ARGS}) or sampling.maxTokens",
    ),
    (
        r"Free memory on device .* (?:is less than|on startup)",
        "OutOfMemory",
        "another process holds memory of this GPU: give the pod a GPU of its own, or lower gpu_memory_utilization "
        f"({_ARGS})",
    ),
    (
        r"(?i:out of memory|OutOfMemoryError)",
        "OutOfMemory",
        "{model} does not fit the GPU's memory in vLLM: use more GPUs with tensor_parallel_size, lower max_model_len, "
        f"max_num_seqs or gpu_memory_utilization ({_ARGS})",
    ),
    (
        r"Model architectures? .{0,200}?(?:not supported|failed to be inspected)",
        "ModelNotUsable",
        "this version of vLLM does not know the architecture of {model}: set the stage's engine.name to transformers, "
        "or use an image with a vLLM that does",
    ),
    (
        r"(?i:Bfloat16 is only supported on GPUs)",
        "ModelNotUsable",
        "this GPU has no bf16 for {model}: set the stage's engine.dtype to Float16",
    ),
    (r"divisible by", "ModelNotUsable", "{model} cannot be split that way: change tensor_parallel_size"),
)


def recorded(folder: Path, environ: MutableMapping[str, str] = os.environ) -> Path:
    """The file to which vLLM's processes will write their errors; none is written where a user configures their log.

    To be called before vLLM is imported.
    """
    log, config = folder / "vllm-errors.log", folder / "vllm-logging.json"
    if environ.get("VLLM_LOGGING_CONFIG_PATH") or environ.get("VLLM_CONFIGURE_LOGGING") == "0":
        return log
    level = environ.get("VLLM_LOGGING_LEVEL", "ERROR")
    handlers = {
        "console": {"class": "logging.StreamHandler", "formatter": "vllm", "level": level, "stream": "ext://sys.stdout"},
        "errors": {
            "class": "logging.FileHandler", "formatter": "vllm", "level": "ERROR", "filename": str(log), "delay": True,
        },
    }  # fmt: skip
    form = {
        "class": "vllm.logging_utils.NewLineFormatter",
        "datefmt": "%m-%d %H:%M:%S",
        "format": "%(levelname)s %(asctime)s [%(filename)s:%(lineno)d] %(message)s",
    }
    described = {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"vllm": form},
        "handlers": handlers,
        "loggers": {"vllm": {"handlers": list(handlers), "level": level, "propagate": False}},
    }
    config.write_text(json.dumps(described))
    environ["VLLM_LOGGING_CONFIG_PATH"] = str(config)
    return log


def explained(error: Exception, log: str, model: str) -> StageFailure:
    """What to tell about an engine that did not start. log: what its processes wrote as errors.

    ModelNotUsable (65) or InvalidTask (64) for what trying again does not change, OutOfMemory or Crashed otherwise.
    """
    chain = list(_chain(error))
    text = "\n".join([*(f"{type(e).__name__}: {e}" for e in chain), _COLOUR.sub("", log)])
    kind, cause = _root(text)
    cause = f"{kind}: {cause}"[:600]
    for sign, reason, advice in _CAUSES:
        if re.search(sign, text, re.DOTALL):
            failure = BadInput if reason == "ModelNotUsable" else StageFailure
            return failure(reason, f"{advice.format(model=model)}. {cause}")
    if kind == "ModuleNotFoundError":
        return InvalidTask(
            "InvalidTask",
            f"vLLM lacks a package in this image: leave stages.<stage>.image out, or use an image with "
            f"self-rewarding-operator[inference]. {cause}",
        )
    if kind in _REFUSALS:
        return BadInput("ModelNotUsable", f"vLLM cannot load {model}: {cause}")
    return StageFailure("Crashed", f"vLLM did not start with {model}: {cause}")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it came from, the first cause first."""
    if error is not None:
        yield from _chain(error.__cause__ or error.__context__)
        yield error


def _root(text: str) -> tuple[str, str]:
    """(kind, message) of the first error that does not follow from another."""
    found = [(match["kind"], match["what"].strip()) for match in _RAISED.finditer(text)]
    causes = [(kind, what) for kind, what in found if not _CONSEQUENCE.search(what)]
    return next(iter(causes or found), ("Error", text[:300]))
