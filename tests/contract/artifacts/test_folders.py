"""Links in folders: those that stay inside are files, those that lead out are errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from srlm_contract.artifacts.artifacts import ArtifactStore
from srlm_contract.artifacts.commits import Produced
from srlm_contract.artifacts.folders import contents
from srlm_contract.errors import InvalidArtifact

Pod = Callable[..., ArtifactStore]
STAGE, KEY = "generate", "0123456789abcdef"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "folder"
    (made / "sub").mkdir(parents=True)
    (made / "sub" / "rows.jsonl").write_bytes(b"inside")
    (tmp_path / "secret").write_bytes(b"outside")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "more.jsonl").write_bytes(b"outside too")
    return made


def test_links_that_stay_inside_are_files_and_folders_are_listed_once(folder: Path) -> None:
    (folder / "rows.jsonl").symlink_to("sub/rows.jsonl")
    (folder / "again").symlink_to("sub")
    found = contents(folder)
    assert list(found.files) == ["rows.jsonl", "sub/rows.jsonl"]
    assert found.astray == {}


def test_links_that_lead_out(folder: Path, tmp_path: Path) -> None:
    (folder / "a").symlink_to(tmp_path / "secret")
    (folder / "b").symlink_to("../other")
    (folder / "c").symlink_to("nowhere")
    (folder / "d").symlink_to("d")
    (folder / "sub" / "e").symlink_to("../../secret")
    found = contents(folder)
    assert list(found.files) == ["sub/rows.jsonl"]
    assert found.astray == {
        "a": f"a link to {tmp_path}/secret, out of the folder",
        "b": f"a link to {tmp_path}/other, out of the folder",
        "c": "a link to nowhere, which does not exist here",
        "d": "a link to d, which does not exist here",
        "sub/e": f"a link to {tmp_path}/secret, out of the folder",
    }


def test_a_mounted_config_map_is_a_folder_of_links(tmp_path: Path) -> None:
    (tmp_path / "..2026").mkdir()
    (tmp_path / "..2026" / "seed.jsonl").write_bytes(b"{}")
    (tmp_path / "..data").symlink_to("..2026")
    (tmp_path / "seed.jsonl").symlink_to("..data/seed.jsonl")
    assert contents(tmp_path).astray == {}
    assert "seed.jsonl" in contents(tmp_path).files


@pytest.mark.parametrize("below", ["", "sub"])
def test_a_snapshot_of_the_hub_links_to_the_blobs_of_its_repository_only(tmp_path: Path, below: str) -> None:
    repository = tmp_path / "models--org--name"
    snapshot = repository / "snapshots" / "0123abc" / below
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    (repository / "blobs" / "f00").write_bytes(b"{}")
    (repository / "token").write_bytes(b"secret")
    (snapshot / "config.json").symlink_to(repository / "blobs" / "f00")
    (snapshot / "token.json").symlink_to(repository / "token")
    (tmp_path / "model").symlink_to(snapshot)
    for place in (snapshot, tmp_path / "model"):
        found = contents(place)
        assert (list(found.files), list(found.astray)) == (["config.json"], ["token.json"])


@pytest.mark.parametrize("name", ["rows.jsonl", "sub/rows.jsonl"])
@pytest.mark.parametrize("target", ["secret", "nowhere", "other"])
def test_nothing_from_outside_the_folder_becomes_part_of_an_artifact(
    pod: Pod, folder: Path, tmp_path: Path, name: str, target: str
) -> None:
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(tmp_path / target)
    artifacts = pod()
    with pytest.raises(InvalidArtifact, match=f"{name}.*a link to .*{target}") as refused:
        artifacts.commit(STAGE, KEY, Produced(folder))
    assert refused.value.exit_code == 64
    assert not list(artifacts.store.list_objects(""))


def test_a_download_does_not_follow_links_out_of_its_folder(pod: Pod, folder: Path, tmp_path: Path) -> None:
    artifacts = pod()
    manifest = artifacts.commit(STAGE, KEY, Produced(folder)).manifest
    dest = tmp_path / "dest"
    dest.mkdir()
    (dest / "sub").symlink_to(tmp_path / "other")
    with pytest.raises(InvalidArtifact, match=r"sub/rows\.jsonl lies behind a link out of .*empty folder") as refused:
        artifacts.fetch(manifest.ref, dest)
    assert refused.value.exit_code == 64
    assert {path.name for path in (tmp_path / "other").iterdir()} == {"more.jsonl"}


def test_a_download_replaces_links_in_its_folder_by_files(pod: Pod, folder: Path, tmp_path: Path) -> None:
    artifacts = pod()
    manifest = artifacts.commit(STAGE, KEY, Produced(folder)).manifest
    dest = tmp_path / "dest"
    (dest / "sub").mkdir(parents=True)
    for name in ("rows.jsonl", "rows.jsonl.partial"):
        (dest / "sub" / name).symlink_to(tmp_path / "secret")
    artifacts.fetch(manifest.ref, dest)
    assert not (dest / "sub" / "rows.jsonl").is_symlink()
    assert (dest / "sub" / "rows.jsonl").read_bytes() == b"inside"
    assert (tmp_path / "secret").read_bytes() == b"outside"
