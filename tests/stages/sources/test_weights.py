"""Which weights a checkpoint has, read from the headers of its files."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from srlm_contract.errors import BadInput
from srlm_contract.tasks import SourceRef
from srlm_stages.sources.fetch import MODEL_FILES, fetch_source
from srlm_stages.sources.weights import FIRST_BYTES, Tensor, read_headers, weight_files
from support.memory_store import MemoryStore


@dataclass
class Made:
    """An origin in memory that counts the bytes read."""

    content: dict[str, bytes]
    name: str = "s3://models/one"
    read: list[int] = field(default_factory=list)

    @property
    def files(self) -> dict[str, int]:
        return {path: len(data) for path, data in self.content.items()}

    def revision(self, paths: list[str]) -> str:
        return "sha256:0"

    def fetch(self, path: str, folder: Path) -> Path:
        (folder / path).write_bytes(self.content[path])
        return folder / path

    def head(self, path: str, length: int) -> bytes:
        self.read.append(length)
        return self.content[path][:length]


def file_of(tensors: dict[str, Any], data: bytes = b"", fill: int = 0) -> bytes:
    header = json.dumps({"__metadata__": {"format": "pt"}, **tensors}).encode() + b" " * fill
    return len(header).to_bytes(8, "little") + header + data


def entry(shape: list[int], first: int, last: int, dtype: str = "F16") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [first, last]}


def index(**weight_map: str) -> bytes:
    return json.dumps({"weight_map": weight_map}).encode()


ONE = file_of({"a": entry([2, 3], 0, 12)}, bytes(12))


def test_all_files_of_an_index_are_read_and_no_other(tmp_path: Path) -> None:
    long = file_of(
        {"b": entry([4], 12, 16, "F8_E4M3"), "c": entry([], 0, 12, "U8") | {"shape": [12]}}, bytes(16), 70_000
    )
    origin = Made({
        "model.safetensors.index.json": index(a="one.safetensors", b="two.safetensors", c="two.safetensors"),
        "one.safetensors": ONE, "two.safetensors": long, "consolidated.safetensors": b"never read",
    })  # fmt: skip
    files = weight_files(origin, tmp_path)
    assert files == ["one.safetensors", "two.safetensors"]
    assert read_headers(origin, files) == {
        "a": Tensor("F16", (2, 3)), "b": Tensor("F8_E4M3", (4,)), "c": Tensor("U8", (12,)),
    }  # fmt: skip
    assert sorted(origin.read)[:2] == [FIRST_BYTES, FIRST_BYTES]
    assert len(origin.read) == 3
    assert max(origin.read) < len(long)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (ONE[:-1], "is cut off or too long: 11 bytes of weights, and its header says 12"),
        (ONE + b"more", "16 bytes of weights, and its header says 12"),
        (ONE[:20], "no whole safetensors file: 20 bytes"),
        (b"", "no whole safetensors file: 0 bytes"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n", "git lfs pull"),
        (b"<html>" + bytes(100), "no whole safetensors file"),
        (file_of({"a": entry([2, 3], 0, 10)}, bytes(10)), "a has 10 bytes and the shape (2, 3)"),
        (file_of({"a": entry([2], 0, 4, "F17")}, bytes(4)), "damaged header (KeyError: 'F17')"),
        (file_of({"a": "text"}), "damaged header"),
        ((4).to_bytes(8, "little") + b"oops" + bytes(9), "damaged header"),
        ((2).to_bytes(8, "little") + b"[]", "damaged header"),
    ],
)
def test_a_damaged_file_is_named(data: bytes, says: str) -> None:
    with pytest.raises(BadInput) as found:
        read_headers(Made({"model.safetensors": data}), ["model.safetensors"])
    assert found.value.reason == "ModelNotUsable"
    assert "s3://models/one cannot be used: model.safetensors " in str(found.value)
    assert says in str(found.value)
    assert "fetch it again" in str(found.value)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["model.fp16.safetensors"], "has weights, but not as model.safetensors (model.fp16.safetensors); rename"),
        (["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"], "add model.safetensors.index.json"),
        (["consolidated.safetensors", "params.json"], "Mistral's own format (consolidated.safetensors)"),
        (["adapter_model.safetensors"], "is an adapter (adapter_model.safetensors); merge it"),
        (["model-Q4_K_M.gguf"], "GGUF weights only"),
        (["pytorch_model.bin", "pytorch_model.bin.index.json"], "pickled weights only (pytorch_model.bin); convert it"),
        (
            ["checkpoint-9/model.safetensors"],
            "a folder of their own (checkpoint-9/model.safetensors); name that folder",
        ),
        (["README.md"], "no *.safetensors file"),
    ],
)
def test_weights_that_no_stage_would_find(tmp_path: Path, names: list[str], says: str) -> None:
    with pytest.raises(BadInput) as found:
        weight_files(Made(dict.fromkeys(names, ONE)), tmp_path)
    assert says in str(found.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"model.safetensors.index.json": index(a="gone.safetensors")}, "missing: gone.safetensors"),
        ({"model.safetensors.index.json": index(a="sub/one.safetensors"), "sub/one.safetensors": ONE}, "sub/one"),
        ({"model.safetensors.index.json": b"{}"}, "is damaged"),
        ({"model.safetensors.index.json": index()}, "names no file"),
        ({"model.safetensors.index.json": index(a="one.safetensors"), "one.safetensors": ONE, "model.safetensors": ONE},
         "remove one of them"),
    ],
)  # fmt: skip
def test_an_index_that_does_not_fit(tmp_path: Path, content: dict[str, bytes], says: str) -> None:
    with pytest.raises(BadInput) as found:
        weight_files(Made(content), tmp_path)
    assert says in str(found.value)


def test_one_file_needs_no_index(tmp_path: Path) -> None:
    assert weight_files(Made({"model.safetensors": ONE, "model.fp16.safetensors": ONE}), tmp_path) == [
        "model.safetensors"
    ]
    both = {"model.safetensors": ONE, "model.safetensors.index.json": index(a="model.safetensors")}
    assert weight_files(Made(both), tmp_path) == ["model.safetensors"]


SPARE = {"consolidated.safetensors": b"twice", "model.fp16.safetensors": b"twice", "pytorch_model.bin": b"twice"}
KEPT = {"model.safetensors": ONE, "config.json": b"{}", "tokenizer.model": b"words"}


def test_weights_beside_those_of_the_model_are_not_downloaded(tmp_path: Path) -> None:
    store = MemoryStore()
    store.objects = {f"m/{name}": data for name, data in {**SPARE, **KEPT}.items()}
    source = SourceRef(uri="s3://models/m", revision="")
    found = fetch_source(source, "model", tmp_path / "into", lambda uri: store, MODEL_FILES)
    assert {path.name: path.read_bytes() for path in found.iterdir()} == KEPT


def test_a_folder_of_this_machine_is_used_in_place_unless_an_engine_would_read_too_much(tmp_path: Path) -> None:
    place = tmp_path / "model"
    place.mkdir()
    for name, data in KEPT.items():
        (place / name).write_bytes(data)
    source = SourceRef(uri=place.as_uri(), revision="")

    def fetch(into: str) -> Path:
        return fetch_source(source, "model", tmp_path / into, lambda uri: MemoryStore(), MODEL_FILES)

    assert fetch("first") == place
    for name, data in SPARE.items():
        (place / name).write_bytes(data)
    found = fetch("second")
    assert {path.name: path.read_bytes() for path in found.iterdir()} == KEPT
    assert all(path.is_symlink() for path in found.iterdir())


def test_shards_of_an_index_are_what_is_downloaded(tmp_path: Path) -> None:
    kept = {"model.safetensors.index.json": index(a="part-1.safetensors"), "part-1.safetensors": ONE}
    store = MemoryStore()
    store.objects = {f"m/{name}": data for name, data in {**SPARE, **kept}.items()}
    found = fetch_source(
        SourceRef(uri="s3://models/m", revision=""), "model", tmp_path / "into", lambda uri: store, MODEL_FILES
    )
    assert {path.name: path.read_bytes() for path in found.iterdir()} == kept
