"""Why vLLM did not start (the cause is in the log of another process), and models that take more than text."""

from __future__ import annotations

import json
import logging.config
from pathlib import Path

import pytest

from srlm_contract.errors import BadInput
from srlm_stages.engines import context_length, model_config
from srlm_stages.engines.vllm_engine import cache_bytes, text_arguments
from srlm_stages.engines.vllm_failures import explained, recorded

PREFIX = "\x1b[0;36m(EngineCore pid=812)\x1b[0;0m ERROR 11-27 01:10:52 [core.py:1510] "
AFTERWARDS = RuntimeError("Engine core initialization failed. See root cause above. Failed core proc(s): {}")


def log(*lines: str, kind: str = "ValueError") -> str:
    shown = ["EngineCore failed to start.", "Traceback (most recent call last):", '  File "x.py", line 1, in y']
    return "\n".join(PREFIX + line for line in [*shown, f"{kind}: {lines[0]}", *lines[1:]])


CACHE = (
    "To serve at least one request with the model's max seq len (131072), (16.0 GiB KV cache is needed, which is "
    "larger than the available KV cache memory (3.1 GiB). Based on the available memory, the estimated maximum model "
    "length is 25000."
)


@pytest.mark.parametrize(
    ("told", "reason", "says"),
    [
        (log(CACHE), "ModelNotUsable", ["gpu_memory_utilization", "max_model_len", "16.0 GiB"]),
        (log("No available memory for the cache blocks. Try"), "ModelNotUsable", ["key-value cache"]),
        (
            log("CUDA out of memory. Tried to allocate 2.00 GiB.", kind="torch.OutOfMemoryError"),
            "OutOfMemory",
            ["tensor_parallel_size", "Tried to allocate 2.00 GiB"],
        ),
        (
            log("Free memory on device cuda:0 (9.8/79.1 GiB) on startup is less than desired GPU memory utilization"),
            "OutOfMemory",
            ["another process", "9.8/79.1"],
        ),
        (
            log("Model architectures ['NewForCausalLM'] are not supported for now. Supported architectures: ..."),
            "ModelNotUsable",
            ["NewForCausalLM", "engine.name to transformers"],
        ),
        (
            log("Bfloat16 is only supported on GPUs with compute capability of at least 8.0."),
            "ModelNotUsable",
            ["engine.dtype to Float16"],
        ),
        (
            log("Total number of attention heads (14) must be divisible by tensor parallel size (4)."),
            "ModelNotUsable",
            ["change tensor_parallel_size", "(14)"],
        ),
        (log("There is no module named 'x'", kind="ImportError"), "ModelNotUsable", ["no module named 'x'"]),
        (log("No module named 'flashinfer'", kind="ModuleNotFoundError"), "InvalidTask", ["image", "'flashinfer'"]),
        (log("NCCL error: unhandled system error", kind="RuntimeError"), "Crashed", ["NCCL error"]),
        ("", "Crashed", ["Engine core initialization failed"]),
    ],
)
def test_the_cause_is_found_and_says_what_to_do(told: str, reason: str, says: list[str]) -> None:
    failure = explained(AFTERWARDS, told, "my-model")
    assert (failure.reason, failure.exit_code) == (reason, {"ModelNotUsable": 65, "InvalidTask": 64}.get(reason, 1))
    named = reason in ("ModelNotUsable", "Crashed")
    assert all(text in str(failure) for text in ["my-model" if named else "", *says])
    assert "See root cause above" not in str(failure) or not told


def test_what_follows_from_another_failure_is_not_the_cause() -> None:
    told = log("CUDA out of memory.", kind="torch.OutOfMemoryError") + "\n"
    told += log("WorkerProc initialization failed due to an exception in a background process.", kind="Exception")
    failure = explained(AFTERWARDS, told, "m")
    assert failure.reason == "OutOfMemory"
    assert str(failure).endswith("OutOfMemoryError: CUDA out of memory.")


def test_in_this_process_the_chain_of_exceptions_tells() -> None:
    try:
        try:
            raise ValueError("hidden size 7 is odd")
        except ValueError as error:
            raise RuntimeError("the engine did not start; see root cause") from error
    except RuntimeError as error:
        failure = explained(error, "", "m")
    assert isinstance(failure, BadInput)
    assert "hidden size 7 is odd" in str(failure)


def test_errors_of_all_processes_come_into_one_file(tmp_path: Path) -> None:
    environ: dict[str, str] = {"VLLM_LOGGING_LEVEL": "ERROR"}
    path = recorded(tmp_path, environ)
    described = json.loads(Path(environ["VLLM_LOGGING_CONFIG_PATH"]).read_text())
    described["formatters"]["vllm"].pop("class")  # vLLM's own, which need not be installed here
    described["loggers"] = {"engine-of-this-test": described["loggers"]["vllm"]}
    logging.config.dictConfig(described)
    logger = logging.getLogger("engine-of-this-test")
    logger.warning("not this")
    try:
        raise ValueError("the cause")
    except ValueError:
        logger.exception("EngineCore failed to start.")
    for handler in list(logger.handlers):
        handler.close()
        logger.removeHandler(handler)
    assert "not this" not in path.read_text()
    assert "the cause" in str(explained(AFTERWARDS, path.read_text(), "m"))


def test_a_log_that_the_user_configures_stays_the_users(tmp_path: Path) -> None:
    environ = {"VLLM_LOGGING_CONFIG_PATH": "/etc/own.json"}
    assert not recorded(tmp_path, environ).exists()
    assert environ == {"VLLM_LOGGING_CONFIG_PATH": "/etc/own.json"}


def test_a_model_that_sees_images_too_is_opened_for_text(tmp_path: Path) -> None:
    text = {"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2, "max_position_embeddings": 4096}
    (tmp_path / "config.json").write_text(json.dumps({"text_config": text, "vision_config": {"hidden_size": 8}}))
    assert text_arguments(model_config(tmp_path)) == {"language_model_only": True}
    assert context_length(tmp_path) == 4096
    assert cache_bytes(model_config(tmp_path), "Float32", 256) == cache_bytes(text, "Float32", 256)
    assert text_arguments(text) == {}
