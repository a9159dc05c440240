"""Clean-up removes what a run produced and nobody else uses, and nothing more."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from contract.artifacts.conftest import run_identity
from srlm_contract.artifacts import layout
from srlm_contract.artifacts.artifacts import ArtifactStore
from srlm_contract.artifacts.commits import Produced
from srlm_contract.artifacts.retention import (
    Retention,
    add_refs,
    delete_artifact,
    delete_orphans,
    delete_unfinished,
    drop_refs,
    read_refs,
    removable,
)
from srlm_contract.artifacts.store import Store
from srlm_contract.errors import Temporary
from srlm_contract.tasks import ArtifactRef

Pod = Callable[..., ArtifactStore]
Write = Callable[..., Path]
LATER = datetime.now(UTC) + timedelta(days=1)
EARLIER = datetime.now(UTC) - timedelta(days=1)


@pytest.fixture
def make(pod: Pod, write: Write, store: Store) -> Callable[..., ArtifactRef]:
    """`make("generate", "run")`: an artifact that this run produced and uses."""

    def artifact(stage: str, run: str = "run", key: str = "0123456789abcdef") -> ArtifactRef:
        ref = pod(f"pod-{run}", run=run).commit(stage, key, Produced(write({"file": b"x"}))).manifest.ref
        add_refs(store, run_identity(run), [ref])
        return ref

    return artifact


def stages(store: Store, retention: Retention, run: str = "run") -> list[str]:
    return [ref.stage for ref in removable(store, run_identity(run), retention)]


def test_retention(make: Callable[..., ArtifactRef], store: Store) -> None:
    for stage in ("generate", "train", "evaluate"):
        make(stage)
    assert stages(store, "Retain") == []
    assert stages(store, "DeleteIntermediate") == ["generate"]
    assert stages(store, "DeleteAll") == ["generate", "train", "evaluate"]


def test_a_model_on_the_way_is_no_result(make: Callable[..., ArtifactRef], store: Store) -> None:
    result, before = make("sft", key="1" * 24), make("sft", key="2" * 24)
    removed = removable(store, run_identity("run"), "DeleteIntermediate", [before.key])
    assert (removed, result.key) == ([before], "1" * 24)
    assert removable(store, run_identity("run"), "Retain", [before.key]) == []


def test_what_another_run_uses_stays(make: Callable[..., ArtifactRef], store: Store) -> None:
    shared = make("generate")
    make("train")
    add_refs(store, run_identity("other"), [shared])
    assert stages(store, "DeleteAll") == ["train"]
    drop_refs(store, run_identity("other"))
    assert stages(store, "DeleteAll") == ["generate", "train"]


def test_what_another_run_produced_stays(make: Callable[..., ArtifactRef], store: Store) -> None:
    theirs = make("generate", "other")
    add_refs(store, run_identity("run"), [theirs])
    drop_refs(store, run_identity("other"))
    assert stages(store, "DeleteAll") == []


def test_a_recreated_run_is_another_run(make: Callable[..., ArtifactRef], store: Store) -> None:
    make("generate")
    again = run_identity("run").model_copy(update={"uid": "uid-of-the-second"})
    assert removable(store, again, "DeleteAll") == []
    assert stages(store, "DeleteAll") == ["generate"]


def test_references_of_a_later_version_keep_what_they_name_and_hold_up_nothing_else(
    make: Callable[..., ArtifactRef], store: Store
) -> None:
    kept = make("generate")
    make("judge", key="f" * 16)
    later = {"schemaVersion": 2, "uses": [{"by": "uid", "artifact": [kept.stage, {"key": kept.key}]}]}
    store.put(layout.refs_key("training", "later"), json.dumps(later).encode())
    assert stages(store, "DeleteAll") == ["judge"]


def test_unreadable_references_stop_removal(make: Callable[..., ArtifactRef], store: Store) -> None:
    make("generate")
    store.put(layout.refs_key("training", "other"), b"nonsense")
    with pytest.raises(Temporary, match=r"runs/training/other/refs\.json cannot be read"):
        removable(store, run_identity("run"), "DeleteAll")


def test_references_of_stages_at_the_same_time(store: Store) -> None:
    refs = [ArtifactRef(stage="judge", key=f"0123456{i}", content_digest="sha256:" + "0" * 64) for i in range(8)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda ref: add_refs(store, run_identity("run"), [ref]), refs))
    add_refs(store, run_identity("run"), refs)
    found = read_refs(store, "training", "run").runs["uid-run"]
    assert sorted(found, key=lambda ref: ref.key) == refs


def test_delete_artifact(pod: Pod, write: Write, store: Store) -> None:
    key = "0123456789abcdef"
    artifacts = pod()
    artifacts.commit_checkpoint("train", key, 1, write({"state": b"1"}))
    artifacts.commit("train", key, Produced(write({"model.safetensors": b"1"})))
    other = artifacts.commit("train", key + "0", Produced(write({"model.safetensors": b"1"}))).manifest
    delete_artifact(store, "train", key, run_identity("run"))
    assert artifacts.lookup("train", key) is None
    left = {info.key for info in store.list_objects("")}
    prefix = f"artifacts/train/{other.key}/"
    assert left == {f"{prefix}manifest.json", f"{prefix}parts/pod-a/model.safetensors"}


def test_files_that_another_run_sends_for_the_same_artifact_stay(pod: Pod, write: Write, store: Store) -> None:
    key = "0123456789abcdef"
    pod("a").commit("train", key, Produced(write({"model.safetensors": b"1"})))
    prefix = f"artifacts/train/{key}/"
    theirs = [f"{prefix}parts/pod-b/model.safetensors", f"{prefix}uploads/uid-other/0-of-1.json"]
    store.put(theirs[0], b"on its way")
    store.put(theirs[1], b'{"podUid":"pod-b"}')
    store.put(f"{prefix}parts/pod-c/model.safetensors", b"of an attempt that was killed")
    store.put(f"{prefix}uploads/uid-run/0-of-1.json", b'{"podUid":"pod-c"}')
    store.put(f"{prefix}uploads/uid-third/0-of-1.json", b'{"podUid":"../pod-c"}')
    delete_artifact(store, "train", key, run_identity("run"))
    assert [info.key for info in store.list_objects(prefix)] == [*theirs, f"{prefix}uploads/uid-third/0-of-1.json"]


@pytest.mark.parametrize(
    ("path", "ours"),
    [
        ("M2/train/events.out.tfevents.0.srlm", True),
        ("figures/events.out.tfevents.0.srlm", True),
        ("events.out.tfevents.0.srlm", False),
        ("figures/events.out.tfevents.1.srlm", False),
        ("../figures/events.out.tfevents.0.srlm", False),
        ("/etc/events.out.tfevents.0.srlm", False),
        ("~/.ssh/events.out.tfevents.0.srlm", False),
        ("a\\..\\..\\b/events.out.tfevents.0.srlm", False),
        ("a/b/c/events.out.tfevents.0.srlm", False),
    ],
)
def test_paths_of_event_files(path: str, ours: bool) -> None:
    assert layout.is_events(path) == ours


def test_orphans(pod: Pod, write: Write, store: Store, tmp_path: Path) -> None:
    key = "0123456789abcdef"
    artifacts = pod()
    done = artifacts.commit("train", key, Produced(write({"model.safetensors": b"1"}))).manifest
    artifacts.commit_checkpoint("train", key, 1, write({"state": b"1"}))
    artifacts.commit_shard("judge", key, 0, 2, Produced(write({"part-0": b"0"})))
    named = {info.key for info in store.list_objects("")}
    orphans = ["artifacts/train/" + key + "/parts/zombie/file", "artifacts/sft/" + key + "/parts/dead/file"]
    for orphan in orphans:
        store.put(orphan, b"left behind")
    probes = [f"probes/{'0123456789abcdef' * 2}{end}" for end in ("", "-new")]
    for probe in probes:
        store.put(probe, b"first")
    foreign = {"elsewhere/parts/x/file", "probes/temperature.csv", f"probes/{'0' * 32}/file", f"probes/{'0' * 33}"}
    for key_of_others in foreign:
        store.put(key_of_others, b"not ours")
    assert delete_orphans(store, EARLIER) == 0
    assert delete_orphans(store, LATER) == 4
    assert {info.key for info in store.list_objects("")} == named | foreign
    artifacts.fetch(done.ref, tmp_path / "got")


def test_orphans_beside_an_unreadable_manifest_stay(pod: Pod, write: Write, store: Store) -> None:
    key = "0123456789abcdef"
    pod().commit("train", key, Produced(write({"model.safetensors": b"1"})))
    store.put(layout.manifest_key("train", key), b"nonsense")
    assert delete_orphans(store, LATER) == 0
    assert store.head(f"artifacts/train/{key}/parts/pod-a/model.safetensors") is not None


def test_unfinished_artifacts_go_with_their_run(pod: Pod, write: Write, store: Store) -> None:
    keys = {name: f"0123456789ab{i}" for i, name in enumerate(["mine", "theirs", "both", "named", "done"])}
    mine, theirs = pod("a", run="run"), pod("b", run="other")
    mine.commit_shard("judge", keys["mine"], 0, 3, Produced(write({"part-0": b"0"})))
    mine.commit_checkpoint("train", keys["mine"], 1, write({"state": b"1"}))
    theirs.commit_shard("judge", keys["theirs"], 0, 3, Produced(write({"part-0": b"0"})))
    mine.commit_shard("judge", keys["both"], 0, 3, Produced(write({"part-0": b"0"})))
    theirs.commit_shard("judge", keys["both"], 1, 3, Produced(write({"part-1": b"1"})))
    mine.commit_shard("judge", keys["named"], 0, 3, Produced(write({"part-0": b"0"})))
    named = ArtifactRef(stage="judge", key=keys["named"], content_digest="sha256:" + "0" * 64)
    add_refs(store, run_identity("other"), [named])
    mine.commit("judge", keys["done"], Produced(write({"file": b"1"})))
    store.put(f"artifacts/judge/{keys['theirs']}0/parts/unknown/file", b"no manifest yet")
    before = {info.key for info in store.list_objects("artifacts/")}
    delete_unfinished(store, run_identity("run"))
    gone = before - {info.key for info in store.list_objects("artifacts/")}
    assert {layout.artifact_of(key) for key in gone} == {("judge", keys["mine"]), ("train", keys["mine"])}
    assert not [key for key in before - gone if keys["mine"] in key]
