"""Committing and reading artifacts: one winner, verified bytes, repair by the producer."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from srlm_contract.artifacts import layout
from srlm_contract.artifacts.artifacts import ArtifactStore
from srlm_contract.artifacts.commits import Produced
from srlm_contract.artifacts.manifest import Manifest
from srlm_contract.artifacts.store import Store
from srlm_contract.errors import ArtifactDamaged, InvalidArtifact
from srlm_contract.jsonl import write_rows
from srlm_contract.keys import canonical_json, sha256
from srlm_contract.rows import SeedExample
from srlm_contract.tasks import ArtifactRef, SourceRef

STAGE, KEY = "generate", "0123456789abcdef"
Pod = Callable[..., ArtifactStore]
Write = Callable[..., Path]


def data_keys(store: Store) -> list[str]:
    return [info.key for info in store.list_objects(f"artifacts/{STAGE}/{KEY}/parts/")]


def flip_bit(store: Store, key: str) -> None:
    data = bytearray(store.get(key).data)
    data[len(data) // 2] ^= 1
    store.put(key, bytes(data))


def test_commit_then_lookup(pod: Pod, write: Write, store: Store) -> None:
    artifacts = pod("pod-a")
    assert artifacts.lookup(STAGE, KEY) is None
    source = SourceRef(uri="hf://m", revision="abc")
    prompts = ArtifactRef(stage="prompts", key="abcdef01", content_digest="sha256:" + "0" * 64)
    done = artifacts.commit(
        STAGE,
        KEY,
        Produced(
            write({"rows.jsonl": b"{}\n", "sub/more.jsonl": b"{}\n{}\n"}),
            inputs={"model": source, "prompts": prompts},
            parameters={"temperature": 0.7},
            rows=3,
            statistics={"lengths": {"short": 2}},
            versions={"vllm": "0.32.0"},
        ),
    )
    assert done.won
    found = pod("pod-b").lookup(STAGE, KEY)
    assert found == done.manifest
    assert found is not None
    assert [(f.path, f.size, f.part) for f in found.files] == [
        ("rows.jsonl", 3, "pod-a"),
        ("sub/more.jsonl", 6, "pod-a"),
    ]
    assert data_keys(store) == [
        f"artifacts/{STAGE}/{KEY}/parts/pod-a/rows.jsonl",
        f"artifacts/{STAGE}/{KEY}/parts/pod-a/sub/more.jsonl",
    ]
    assert found.inputs == {"model": source, "prompts": prompts}
    assert artifacts.manifest_uri(STAGE, KEY).endswith(f"artifacts/{STAGE}/{KEY}/manifest.json")


def test_manifest_on_the_wire(pod: Pod, write: Write, store: Store) -> None:
    pod().commit(STAGE, KEY, Produced(write({"a.jsonl": b"1"}), rows=1))
    manifest = json.loads(store.get(layout.manifest_key(STAGE, KEY)).data)
    assert set(manifest) == {
        "schemaVersion", "stage", "key", "contentDigest", "files", "inputs", "parameters", "rows",
        "statistics", "versions", "producer", "timings", "shards", "checksum",
    }  # fmt: skip
    assert set(manifest["files"][0]) == {"path", "size", "sha256", "part"}
    assert manifest["producer"]["podUid"] == "pod-a"


def test_content_digest_depends_on_the_files_only(pod: Pod, write: Write) -> None:
    one = pod("pod-a").commit(STAGE, KEY, Produced(write({"a": b"1", "b": b"2"}), statistics={"seconds": 1}))
    same = pod("pod-b").commit(STAGE, KEY + "0", Produced(write({"b": b"2", "a": b"1"}), statistics={"seconds": 2}))
    other = pod("pod-c").commit(STAGE, KEY + "1", Produced(write({"a": b"1", "c": b"2"})))
    assert one.manifest.content_digest == same.manifest.content_digest
    assert one.manifest.content_digest != other.manifest.content_digest


def test_a_late_writer_neither_overwrites_nor_mixes(pod: Pod, write: Write, store: Store) -> None:
    first = pod("pod-a").commit(STAGE, KEY, Produced(write({"rows.jsonl": b"first"})))
    zombie = pod("pod-z").commit(STAGE, KEY, Produced(write({"rows.jsonl": b"second"})))
    assert not zombie.won
    assert zombie.manifest == first.manifest
    assert data_keys(store) == [f"artifacts/{STAGE}/{KEY}/parts/pod-a/rows.jsonl"]


def test_one_of_racing_committers_wins(pod: Pod, write: Write, store: Store, tmp_path: Path) -> None:
    folders = {f"pod-{i}": write({"rows.jsonl": b"by %d" % i}) for i in range(6)}
    with ThreadPoolExecutor(6) as pool:
        done = list(pool.map(lambda uid: pod(uid).commit(STAGE, KEY, Produced(folders[uid])), folders))
    winners = [c for c in done if c.won]
    assert len(winners) == 1
    assert {c.manifest.content_digest for c in done} == {winners[0].manifest.content_digest}
    pod("reader").fetch(winners[0].manifest.ref, tmp_path / "got")
    part = winners[0].manifest.files[0].part
    assert (tmp_path / "got" / "rows.jsonl").read_bytes() == b"by %d" % int(part[-1])
    assert data_keys(store) == [f"artifacts/{STAGE}/{KEY}/parts/{part}/rows.jsonl"], "losers clean up"


def test_committing_twice_from_one_pod_keeps_the_files(pod: Pod, write: Write, tmp_path: Path) -> None:
    artifacts = pod()
    folder = write({"rows.jsonl": b"rows"})
    artifacts.commit(STAGE, KEY, Produced(folder))
    again = artifacts.commit(STAGE, KEY, Produced(folder))
    assert not again.won
    artifacts.fetch(again.manifest.ref, tmp_path / "got")
    assert (tmp_path / "got" / "rows.jsonl").read_bytes() == b"rows"


def test_fetch_gives_equal_bytes(pod: Pod, write: Write, tmp_path: Path) -> None:
    files = {f"f{i}.jsonl": b"%d" % i * 100 for i in range(20)} | {"deep/er/big": b"x" * (9 * 2**20)}
    ref = pod().commit(STAGE, KEY, Produced(write(files))).manifest.ref
    pod("reader").fetch(ref, tmp_path / "got")
    got = {p.relative_to(tmp_path / "got").as_posix(): p for p in (tmp_path / "got").rglob("*") if p.is_file()}
    assert {path: p.read_bytes() for path, p in got.items()} == files


def test_fetch_only_some(pod: Pod, write: Write, tmp_path: Path) -> None:
    ref = pod().commit(STAGE, KEY, Produced(write({"a": b"1", "b": b"2"}))).manifest.ref
    pod().fetch(ref, tmp_path / "got", only=["b"])
    assert [p.name for p in (tmp_path / "got").iterdir()] == ["b"]
    with pytest.raises(ArtifactDamaged, match="no file c"):
        pod().fetch(ref, tmp_path / "got", only=["c"])


@pytest.mark.parametrize("harm", ["flip", "cut", "remove"])
def test_damaged_file_is_named_and_not_handed_out(
    pod: Pod, write: Write, store: Store, tmp_path: Path, harm: str
) -> None:
    ref = pod().commit(STAGE, KEY, Produced(write({"rows.jsonl": b"0123456789"}))).manifest.ref
    [name] = data_keys(store)
    match harm:
        case "flip":
            flip_bit(store, name)
        case "cut":
            store.put(name, b"01234")
        case "remove":
            store.delete([name])
    with pytest.raises(ArtifactDamaged, match=rf"{STAGE}/{KEY} is damaged: rows.jsonl") as caught:
        pod("reader").fetch(ref, tmp_path / "got")
    assert caught.value.artifact is not None
    assert (caught.value.artifact.stage, caught.value.artifact.key) == (STAGE, KEY)
    assert (caught.value.exit_code, caught.value.reason) == (65, "InputDamaged")
    assert list((tmp_path / "got").iterdir()) == []


@pytest.mark.parametrize("harm", ["remove", "nonsense", "edit", "swap"])
def test_damaged_manifest(pod: Pod, write: Write, store: Store, tmp_path: Path, harm: str) -> None:
    artifacts = pod()
    ref = artifacts.commit(STAGE, KEY, Produced(write({"rows.jsonl": b"0123456789"}))).manifest.ref
    manifest = layout.manifest_key(STAGE, KEY)
    match harm:
        case "remove":
            store.delete([manifest])
        case "nonsense":
            store.put(manifest, b"{]")
        case "edit":
            store.put(manifest, store.get(manifest).data.replace(b'"size":10', b'"size":11'))
        case "swap":
            other = artifacts.commit(STAGE, KEY + "00", Produced(write({"rows.jsonl": b"other"}))).manifest
            store.put(manifest, other.to_bytes())
    with pytest.raises(ArtifactDamaged) as caught:
        pod("reader").fetch(ref, tmp_path / "got")
    assert caught.value.artifact is not None
    assert caught.value.artifact.key == KEY


def test_another_artifact_than_expected(pod: Pod, write: Write, tmp_path: Path) -> None:
    ref = pod().commit(STAGE, KEY, Produced(write({"rows.jsonl": b"0"}))).manifest.ref
    expected = ref.model_copy(update={"content_digest": "sha256:" + "1" * 64})
    with pytest.raises(ArtifactDamaged, match="expected sha256:111"):
        pod().fetch(expected, tmp_path / "got")


@pytest.mark.parametrize("path", ["../escape", "/absolute", "a/../../b", ".", "a//b", "x" * 248])
def test_planted_paths_are_refused(pod: Pod, write: Write, store: Store, tmp_path: Path, path: str) -> None:
    ref = pod().commit(STAGE, KEY, Produced(write({"rows.jsonl": b"0"}))).manifest.ref
    manifest = layout.manifest_key(STAGE, KEY)
    body = json.loads(store.get(manifest).data)
    del body["checksum"]
    body["files"][0]["path"] = path
    store.put(manifest, canonical_json({**body, "checksum": sha256(canonical_json(body))}))
    with pytest.raises(ArtifactDamaged, match="not a path inside the artifact"):
        pod().fetch(ref, tmp_path / "got")


def test_a_manifest_with_a_file_that_is_a_folder_too_is_damaged(
    pod: Pod, write: Write, store: Store, tmp_path: Path
) -> None:
    ref = pod().commit(STAGE, KEY, Produced(write({"a": b"0", "b": b"1"}))).manifest.ref
    manifest = layout.manifest_key(STAGE, KEY)
    body = json.loads(store.get(manifest).data)
    del body["checksum"]
    body["files"][1]["path"] = "a/b"
    store.put(manifest, canonical_json({**body, "checksum": sha256(canonical_json(body))}))
    with pytest.raises(ArtifactDamaged, match="'a' is a file and a folder"):
        pod().fetch(ref, tmp_path / "got")


def test_a_manifest_that_is_nested_too_deeply_is_damaged(pod: Pod, write: Write, store: Store, tmp_path: Path) -> None:
    ref = pod().commit(STAGE, KEY, Produced(write({"a": b"0"}))).manifest.ref
    store.put(layout.manifest_key(STAGE, KEY), b"[" * 200_000)
    with pytest.raises(ArtifactDamaged, match="nested too deeply"):
        pod().fetch(ref, tmp_path / "got")


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        (["."], "not a path inside an artifact"),
        (["../a"], "not a path inside an artifact"),
        (["x" * 248], "not a path inside an artifact"),
        (["ü" * 124], "not a path inside an artifact"),
        (["a", "a/b"], "'a' is a file and a folder"),
    ],
)
def test_names_that_no_reader_could_take_are_not_committed(
    pod: Pod, tmp_path: Path, paths: list[str], said: str
) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"0")
    with pytest.raises(InvalidArtifact, match=said):
        pod().commit(STAGE, KEY, Produced(dict.fromkeys(paths, file)))


def test_the_longest_name(pod: Pod, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"0")
    ref = pod().commit(STAGE, KEY, Produced({"x" * 247: file})).manifest.ref
    pod("reader").fetch(ref, tmp_path / "got")
    assert (tmp_path / "got" / ("x" * 247)).read_bytes() == b"0"


@pytest.mark.parametrize("harm", ["flip", "remove", "manifest", "no manifest"])
def test_repair(pod: Pod, write: Write, store: Store, tmp_path: Path, harm: str) -> None:
    ref = pod("pod-a").commit(STAGE, KEY, Produced(write({"rows.jsonl": b"0123456789"}))).manifest.ref
    match harm:
        case "flip":
            flip_bit(store, data_keys(store)[0])
        case "remove":
            store.delete(data_keys(store))
        case "manifest":
            flip_bit(store, layout.manifest_key(STAGE, KEY))
        case "no manifest":
            store.delete([layout.manifest_key(STAGE, KEY)])
    producer = pod("pod-b")
    assert producer.already(STAGE, KEY, repair=True) is None
    done = producer.commit(STAGE, KEY, Produced(write({"rows.jsonl": b"0123456789"})), repair=True)
    assert done.won
    assert done.manifest.content_digest == ref.content_digest
    pod("reader").fetch(ref, tmp_path / "got")
    assert pod("pod-c").already(STAGE, KEY, repair=True) == done.manifest


def test_repair_leaves_an_intact_artifact(pod: Pod, write: Write) -> None:
    first = pod("pod-a").commit(STAGE, KEY, Produced(write({"rows.jsonl": b"first"}))).manifest
    assert pod("pod-b").already(STAGE, KEY, repair=True) == first
    done = pod("pod-c").commit(STAGE, KEY, Produced(write({"rows.jsonl": b"second"})), repair=True)
    assert not done.won
    assert done.manifest == first


def test_one_of_two_repairs_wins(pod: Pod, write: Write, store: Store) -> None:
    pod("pod-a").commit(STAGE, KEY, Produced(write({"rows.jsonl": b"0123456789"})))
    flip_bit(store, data_keys(store)[0])
    first, second = pod("pod-b"), pod("pod-c")
    assert first.already(STAGE, KEY, repair=True) is None
    assert second.already(STAGE, KEY, repair=True) is None
    won = first.commit(STAGE, KEY, Produced(write({"rows.jsonl": b"by b"})), repair=True)
    lost = second.commit(STAGE, KEY, Produced(write({"rows.jsonl": b"by c"})), repair=True)
    assert won.won
    assert not lost.won
    assert lost.manifest == won.manifest


def test_without_repair_a_damaged_manifest_is_an_error(pod: Pod, write: Write, store: Store) -> None:
    pod("pod-a").commit(STAGE, KEY, Produced(write({"rows.jsonl": b"0"})))
    store.put(layout.manifest_key(STAGE, KEY), b"not json")
    with pytest.raises(ArtifactDamaged, match="cannot be read"):
        pod("pod-b").already(STAGE, KEY)


def test_rows(pod: Pod, tmp_path: Path) -> None:
    rows = [SeedExample(id=str(i), prompt=f"p{i} é", answer="a\nb") for i in range(7)]
    files = {f"ift-{i}.jsonl": tmp_path / f"{i}" for i in range(2)}
    assert write_rows(files["ift-0.jsonl"], rows[:4]) == 4
    assert write_rows(files["ift-1.jsonl"], rows[4:]) == 3
    (tmp_path / "other").write_bytes(b"not rows")
    ref = pod().commit(STAGE, KEY, Produced({**files, "other.bin": tmp_path / "other"})).manifest.ref
    assert list(pod("reader").read_rows(ref, "ift-*.jsonl", SeedExample)) == rows
    with pytest.raises(ArtifactDamaged, match="no file missing"):
        list(pod("reader").read_rows(ref, "missing-*.jsonl", SeedExample))


def test_damaged_rows_are_found_before_the_first_row(pod: Pod, store: Store, tmp_path: Path) -> None:
    write_rows(tmp_path / "rows", [SeedExample(id=str(i), prompt="p", answer="a") for i in range(100)])
    ref = pod().commit(STAGE, KEY, Produced({"rows.jsonl": tmp_path / "rows"})).manifest.ref
    data = store.get(data_keys(store)[0]).data
    store.put(data_keys(store)[0], data[:-4] + b"b" + data[-3:])
    rows = pod("reader").read_rows(ref, "rows.jsonl", SeedExample)
    with pytest.raises(ArtifactDamaged, match="SHA-256"):
        next(rows)


def test_rows_of_another_kind_name_the_line(pod: Pod, tmp_path: Path) -> None:
    (tmp_path / "rows").write_text('{"id":"1","prompt":"p","answer":"a"}\n{"id":"2"}\n')
    ref = pod().commit(STAGE, KEY, Produced({"rows.jsonl": tmp_path / "rows"})).manifest.ref
    with pytest.raises(ArtifactDamaged, match=r"rows.jsonl line 2: prompt: Field required"):
        list(pod().read_rows(ref, "rows.jsonl", SeedExample))


def test_a_model_is_safetensors_only(pod: Pod, write: Write, store: Store, tmp_path: Path) -> None:
    folder = write(
        {
            "model.safetensors": b"weights",
            "config.json": b"{}",
            "tokenizer.model": b"spm",
            "training_args.bin": b"pickle",
            "optimizer.pt": b"pickle",
            "checkpoint-2/model.safetensors": b"older",
        }
    )
    done = pod().commit("train", KEY, Produced(folder, model=True)).manifest
    assert [f.path for f in done.files] == ["config.json", "model.safetensors", "tokenizer.model"]
    with pod("reader").model(done.ref, None, tmp_path / "work") as got:
        assert (got / "model.safetensors").read_bytes() == b"weights"


def test_a_model_without_weights_is_refused(pod: Pod, write: Write) -> None:
    with pytest.raises(InvalidArtifact, match="safetensors"):
        pod().commit("train", KEY, Produced(write({"pytorch_model.bin": b"pickle", "config.json": b"{}"}), model=True))


def test_a_planted_pickle_is_refused(pod: Pod, write: Write, tmp_path: Path) -> None:
    ref = pod().commit("train", KEY, Produced(write({"a.safetensors": b"1", "pytorch_model.bin": b"2"}))).manifest.ref
    with pytest.raises(InvalidArtifact, match=r"pytorch_model\.bin"), pod().model(ref, None, tmp_path):
        pass


@pytest.mark.parametrize(("stage", "key"), [("Generate", KEY), ("generate", "../up"), ("a/b", KEY), ("generate", "")])
def test_names_that_are_no_path(pod: Pod, stage: str, key: str) -> None:
    with pytest.raises(InvalidArtifact):
        pod().lookup(stage, key)


def test_manifest_reads_its_own_bytes(pod: Pod, write: Write) -> None:
    done = pod().commit(STAGE, KEY, Produced(write({"a": b"1"}), statistics={"mean": 3.0, "rate": 0.25}, rows=1))
    assert Manifest.from_bytes(done.manifest.to_bytes()) == done.manifest


def test_any_changed_bit_of_a_manifest_shows(pod: Pod, write: Write) -> None:
    data = pod().commit(STAGE, KEY, Produced(write({"a": b"1"}), statistics={"pairs": 7})).manifest.to_bytes()
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 1
        with pytest.raises(ValueError, match=r"."):
            Manifest.from_bytes(bytes(changed))
