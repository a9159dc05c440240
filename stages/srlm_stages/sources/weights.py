"""Weights on disk: which files of a checkpoint the stages read, and what their headers say.

A safetensors file begins with the length of its header (8 bytes, little endian) and the header (JSON): names, types,
shapes and places of all tensors. So a checkpoint of any size is known after a few short reads.
"""

from __future__ import annotations

import fnmatch
import json
import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from srlm_contract.errors import BadInput

from .origins import Origin

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
#: Read at first: the header of most files. What is longer costs a second read.
FIRST_BYTES = 64 * 1024
#: The format's own limit.
MAX_HEADER_BYTES = 100_000_000
READERS = 8
#: Bits of a value by the type's name in the header.
BITS = {
    "F64": 64, "I64": 64, "U64": 64, "C64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "I16": 16,
    "U16": 16, "I8": 8, "U8": 8, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip
FLOATS = frozenset({"F64", "F32", "F16", "BF16"})


class Tensor(NamedTuple):
    """A tensor's entry in a header."""

    dtype: str
    shape: tuple[int, ...]


class Damaged(Exception):
    """A file is no whole safetensors file; the message says why."""


def unusable(origin: Origin, why: str) -> BadInput:
    """The error for a model that no stage can use."""
    return BadInput("ModelNotUsable", f"{origin.name} cannot be used: {why}")


def weight_files(origin: Origin, folder: Path) -> list[str]:
    """The safetensors files that transformers reads from `origin`; an index is fetched to `folder`.

    Raises BadInput ModelNotUsable, naming what is there instead, when there are none.
    """
    if INDEX not in origin.files:
        if SINGLE in origin.files:
            return [SINGLE]
        raise unusable(origin, _no_weights(origin.files))
    try:
        index = json.loads(origin.fetch(INDEX, folder).read_bytes())
        wanted = sorted(set(index["weight_map"].values()))
        missing = [name for name in wanted if name not in origin.files or "/" in name]
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise unusable(origin, f"its {INDEX} is damaged ({error}); fetch it again") from error
    if missing:
        raise unusable(
            origin, f"files of its index are missing: {', '.join(missing[:5])}; fetch them again, or correct {INDEX}"
        )
    if not wanted:
        raise unusable(origin, f"its {INDEX} names no file")
    if SINGLE in origin.files and wanted != [SINGLE]:
        raise unusable(
            origin,
            f"it has both {SINGLE} and {INDEX} with other files, and the engines do not agree on which to read; "
            "remove one of them",
        )
    return wanted


#: What lies where weights were looked for: (pattern of names, what it is, what to do).
_INSTEAD = (
    ("adapter_*", "is an adapter", "merge it into its base model (merge_and_unload)"),
    ("consolidated*.safetensors", "has weights in Mistral's own format", "use the conversion in Hugging Face format"),
    ("*.safetensors", f"has weights, but not as {SINGLE}", f"rename the file to {SINGLE}, or add {INDEX}"),
    ("*.gguf", "has GGUF weights only", "use the original model"),
    ("*.bin", "has pickled weights only", "convert it with save_pretrained"),
    ("*.pt*", "has pickled weights only", "convert it with save_pretrained"),
    ("*.h5", "has weights of TensorFlow only", "convert it with save_pretrained"),
    ("*.msgpack", "has weights of Flax only", "convert it with save_pretrained"),
)


def _no_weights(files: Mapping[str, int]) -> str:
    """What to say of a folder without weights that could be read, by what lies there instead."""
    top = sorted(name for name in files if "/" not in name)
    for pattern, what, remedy in _INSTEAD:
        if found := fnmatch.filter(top, pattern):
            return f"it {what} ({', '.join(found[:3])}); {remedy}"
    below = sorted(name for name in files if name.endswith(".safetensors"))
    if below:
        return f"its weights lie in a folder of their own ({below[0]}); name that folder in the uri"
    return "it has no *.safetensors file; convert it with save_pretrained"


def read_headers(origin: Origin, files: list[str]) -> dict[str, Tensor]:
    """All tensors of the files by name. Raises BadInput ModelNotUsable for a damaged file, naming it."""

    def read(path: str) -> dict[str, Tensor]:
        try:
            return read_header(origin, path)
        except Damaged as error:
            raise unusable(origin, f"{path} {error}; fetch it again") from error

    with ThreadPoolExecutor(min(READERS, len(files))) as pool:
        return {name: tensor for found in pool.map(read, files) for name, tensor in found.items()}


def read_header(origin: Origin, path: str) -> dict[str, Tensor]:
    """The tensors of one file. Raises Damaged."""
    size = origin.files[path]
    start = origin.head(path, FIRST_BYTES)
    if start.startswith(b"version https://git-lfs"):
        raise Damaged("is a pointer of Git LFS, not the file itself (git lfs pull)")
    length = int.from_bytes(start[:8], "little")
    if len(start) < 8 or length > min(size - 8, MAX_HEADER_BYTES):
        raise Damaged(f"is no whole safetensors file: {size} bytes, and its header should have {length}")
    if len(start) < 8 + length:
        start = origin.head(path, 8 + length)
    return parse_header(start[8 : 8 + length], size - 8 - length)


def parse_header(header: bytes, data_bytes: int) -> dict[str, Tensor]:
    """The tensors of a header; `data_bytes` follow it in the file. Raises Damaged."""
    found: dict[str, Tensor] = {}
    end = 0
    try:
        entries = json.loads(header)
        for name, entry in entries.items():
            if name == "__metadata__":
                continue
            tensor = Tensor(str(entry["dtype"]), tuple(int(n) for n in entry["shape"]))
            first, last = (int(n) for n in entry["data_offsets"])
            if last - first != math.prod(tensor.shape) * BITS[tensor.dtype] // 8:
                raise Damaged(f"has a damaged header: {name} has {last - first} bytes and the shape {tensor.shape}")
            found[name], end = tensor, max(end, last)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise Damaged(f"has a damaged header ({type(error).__name__}: {error})") from error
    if data_bytes != end:
        raise Damaged(f"is cut off or too long: {data_bytes} bytes of weights, and its header says {end}")
    return found
