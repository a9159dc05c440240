"""Files of outside sources that lie, or would land, outside their folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from srlm_contract.errors import BadInput
from srlm_contract.tasks import SourceRef
from srlm_stages.sources.fetch import MODEL_FILES, fetch_source
from srlm_stages.sources.origins import FileOrigin, Kind, Missing, S3Origin
from support.memory_store import MemoryStore

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def fetch(uri: str, kind: Kind, into: Path, store: MemoryStore | None = None) -> Path:
    files = MODEL_FILES if kind == "model" else ("*",)
    return fetch_source(SourceRef(uri=uri, revision=""), kind, into, lambda _: store or MemoryStore(), files)


@pytest.mark.parametrize("target", ["../elsewhere.json", "nowhere.json", "config.json"])
def test_a_model_with_a_file_elsewhere_is_refused_by_name(tmp_path: Path, target: str) -> None:
    (tmp_path / "elsewhere.json").write_bytes(b"{}")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").symlink_to(target)
    with pytest.raises(BadInput, match=r"has no file config\.json: it is a link to .*; put the file itself") as refused:
        fetch((tmp_path / "model").as_uri(), "model", tmp_path / "into")
    assert (refused.value.exit_code, refused.value.reason) == (65, "ModelNotUsable")


def test_links_that_no_stage_reads_are_no_matter(tmp_path: Path) -> None:
    place = tmp_path / "model"
    place.mkdir()
    (place / "config.json").write_bytes(b"{}")
    (place / "pytorch_model.bin").symlink_to(tmp_path / "gone")
    (place / "runs").symlink_to("/")
    assert fetch(place.as_uri(), "model", tmp_path / "into") == place


def test_a_snapshot_in_the_cache_of_the_hub_is_read_in_place(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--org--name" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (tmp_path / "models--org--name" / "blobs").mkdir()
    (tmp_path / "models--org--name" / "blobs" / "abc").write_bytes(b'{"a": 1}')
    (snapshot / "config.json").symlink_to("../../blobs/abc")
    found = fetch(snapshot.as_uri(), "model", tmp_path / "into")
    assert found == snapshot
    assert FileOrigin.open(snapshot.as_uri()).files == {"config.json": 8}


@pytest.mark.parametrize("linked", ["more.jsonl", "part"])
def test_data_with_a_file_or_folder_elsewhere_is_refused(tmp_path: Path, linked: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "seed.jsonl").write_bytes(b"{}")
    (tmp_path / "data" / linked).symlink_to("../elsewhere")
    with pytest.raises(
        BadInput, match=f"has no file {linked}: it is a link to {tmp_path}/elsewhere, out of"
    ) as refused:
        fetch((tmp_path / "data").as_uri(), "dataset", tmp_path / "into")
    assert (refused.value.exit_code, refused.value.reason) == (65, "InvalidSeedData")


def test_all_that_preflight_does_with_a_file_elsewhere_says_so(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "seed.jsonl").symlink_to("/etc/hostname")
    origin = FileOrigin.open((tmp_path / "data").as_uri())
    for use in (
        lambda: origin.revision(["seed.jsonl"]),
        lambda: origin.head("seed.jsonl", 10),
        lambda: origin.fetch("seed.jsonl", tmp_path / "into"),
    ):
        with pytest.raises(Missing, match="out of the folder"):
            use()


def test_the_file_that_a_uri_names_may_itself_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real.jsonl").write_bytes(b"{}")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "seed.jsonl").symlink_to("../real.jsonl")
    assert fetch((tmp_path / "data" / "seed.jsonl").as_uri(), "dataset", tmp_path / "into").read_bytes() == b"{}"


@pytest.mark.parametrize("name", ["../out.jsonl", "a/../../out.jsonl", "/out.jsonl", "a" * 300])
def test_objects_whose_names_lead_out_of_a_folder_are_refused(tmp_path: Path, name: str) -> None:
    store = MemoryStore()
    store.objects = {f"data/{name}": b"{}"}
    with pytest.raises(BadInput, match="no path inside a folder; rename it") as refused:
        fetch("s3://bucket/data", "dataset", tmp_path / "sources" / "into", store)
    assert refused.value.exit_code == 65
    assert not list(tmp_path.rglob("*.jsonl"))
    assert S3Origin.open("s3://bucket/data", store, "data").files == {name: 2}
