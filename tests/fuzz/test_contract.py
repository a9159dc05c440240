"""What lies in the store, in SRLM_TASK, and in termination messages: a value, or our own error that says where."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from contract.artifacts.conftest import artifacts_of, run_identity
from fuzz.strategies import bytes_like, examples, texts
from srlm_contract.artifacts import layout, reader
from srlm_contract.artifacts.commits import Produced
from srlm_contract.artifacts.manifest import CheckpointManifest, Manifest, ShardManifest
from srlm_contract.artifacts.retention import add_refs, removable
from srlm_contract.errors import ArtifactDamaged, InvalidTask, StoreUnavailable
from srlm_contract.jsonl import iter_rows
from srlm_contract.keys import canonical_json, sha256
from srlm_contract.progress import Progress, parse_progress
from srlm_contract.rows import Candidate
from srlm_contract.tasks import JudgeParams, RunIdentity, StageResult, StageTask, StorageLocation
from srlm_operator.jobs.shards import parse_ranges
from srlm_operator.plan.outcomes import parse_error, parse_result, storage_errors
from srlm_operator.values import PodView
from srlm_stages.run import read_task, shard_index
from support.memory_store import MemoryStore

STAGE, KEY = "judge", "0123456789abcdef"


def made_manifests(tmp: Any) -> list[Any]:
    store = MemoryStore()
    (tmp / "rows").write_bytes(b"{}\n")
    artifacts = artifacts_of(store, tmp)
    artifacts.commit_shard(STAGE, KEY, 0, 2, Produced({"part-0": tmp / "rows"}, rows=1, statistics={"a": {"b": 1}}))
    artifacts.commit_shard(STAGE, KEY, 1, 2, Produced({"part-1": tmp / "rows"}, rows=1))
    artifacts.commit_checkpoint(STAGE, KEY, 3, {"state": tmp / "rows"})
    found = [json.loads(data) for name, data in store.objects.items() if name.endswith(".json")]
    for body in found:
        body.pop("checksum")
    return found


def test_manifests(tmp_path: Any) -> None:
    originals = made_manifests(tmp_path)

    @examples(150)
    @given(
        data=bytes_like(originals),
        signed=st.booleans(),
        kind=st.sampled_from((Manifest, ShardManifest, CheckpointManifest)),
    )
    def check(data: bytes, signed: bool, kind: Any) -> None:
        if signed:  # changed by somebody who knows of the checksum
            try:
                body = json.loads(data)
                data = canonical_json({**body, "checksum": sha256(canonical_json(body))})
            except (ValueError, TypeError, RecursionError):
                return
        try:
            found = reader.parse_manifest(data, kind, STAGE, KEY, "s3://b/m.json")
        except ArtifactDamaged as error:
            assert error.exit_code == 65
            assert "s3://b/m.json" in str(error)
            assert len(str(error)) < 3000
        else:
            assert (found.stage, found.key) == (STAGE, KEY)

    check()


REFS = [
    {"schemaVersion": 1, "runs": {"uid-a": [{"stage": "judge", "key": KEY, "contentDigest": "sha256:" + "0" * 64}]}},
    {"schemaVersion": 2, "runs": {"uid-a": {"uses": [KEY]}}, "more": [1, [2, [3]]]},
]


@examples(150)
@given(data=bytes_like(REFS))
def test_references_of_other_runs_and_ones_own(data: bytes) -> None:
    store = MemoryStore()
    store.put(layout.refs_key("training", "other"), data)
    try:
        assert removable(store, run_identity(), "DeleteAll") == []
    except StoreUnavailable as error:
        assert (error.exit_code, "runs/training/other/refs.json" in str(error)) == (75, True)
    store.put(layout.refs_key("training", "run"), data)
    try:
        add_refs(store, run_identity(), [])
    except StoreUnavailable as error:
        assert "runs/training/run/refs.json" in str(error)


TASKS = [
    StageTask(
        stage="judge",
        run=RunIdentity(namespace="n", name="r", uid="u"),
        key=KEY,
        params=JudgeParams(samples=2),
        shards=3,
        shard_indexes=(1, 2),
        storage=StorageLocation(uri="s3://bucket/prefix"),
    ).wire()
]


@examples(200)
@given(data=bytes_like(TASKS), index=texts)
def test_tasks(data: bytes, index: str) -> None:
    text = data.decode("utf-8", "surrogateescape")  # as the environment is read
    try:
        task = read_task("judge", {"SRLM_TASK": text})
        assert 0 <= shard_index(task, {"JOB_COMPLETION_INDEX": index}) < task.shards
    except InvalidTask as error:
        assert error.exit_code == 64
        assert (
            "SRLM_TASK" in str(error) or "JOB_COMPLETION_INDEX" in str(error) or "the task is for stage" in str(error)
        )
        str(error).encode()


RESULTS = [
    {"stage": "judge", "key": KEY, "contentDigest": "sha256:" + "0" * 64, "statistics": {"a": 1.0}, "warnings": ["w"]},
    {"stage": "preflight", "committed": [{"node": "1/judge", "key": KEY, "contentDigest": "x", "statistics": {}}]},
    {"stage": "train", "error": {"reason": "Crashed", "message": "m"}, "storageErrors": 3},
    {"error": {"reason": "Crashed", "message": "m"}},
]  # fmt: skip


@examples(200)
@given(data=bytes_like(RESULTS))
@example(data=b'{"stage": "preflight", "committed": [{"node": "x/judge", "key": "a", "contentDigest": "b"}]}')
@example(data=b'{"stage": "preflight", "committed": 7}')
@example(data=b'{"stage": "train", "statistics": {"a": 1' + b"0" * 400 + b"}}")
def test_termination_messages(data: bytes) -> None:
    message = data.decode("utf-8", "replace")
    found = parse_result(message)
    assert found is None or isinstance(found, StageResult)
    pod = PodView(name="p", uid="u", job="j", index=0, phase="Failed", message=message, exit_code=1)
    assert isinstance(parse_error(pod).message, str)
    assert storage_errors([pod]) >= 0


PROGRESS_LINES = st.from_regex(r"PROGRESS \w{0,8} (rows=\S{0,9}|eta=\S{0,9}|tok/s=\S{0,5}|loss=\S{0,5}| ){0,5}")


@examples(150)
@given(line=st.one_of(texts, PROGRESS_LINES))
def test_progress_lines(line: str) -> None:
    found = parse_progress([line, "x"])
    assert found is None or isinstance(found, Progress)


@examples(200)
@given(text=st.one_of(texts, st.text("0123456789-,²٣ ", max_size=30)))
@example(text="0-99999999999")
@example(text=",".join(["0-999999999"] * 1000))
def test_lists_of_shards(text: str) -> None:
    assert len(parse_ranges(text)) <= 100_000


def test_rows(tmp_path: Any) -> None:
    original = {"id": "0" * 16, "prompt": "1" * 16, "text": "t", "tokens": 1, "truncated": False}

    @examples(150)
    @given(data=bytes_like([original]))
    def check(data: bytes) -> None:
        (tmp_path / "rows.jsonl").write_bytes(data)
        try:
            list(iter_rows(tmp_path / "rows.jsonl", Candidate))
        except ArtifactDamaged as error:
            assert (error.exit_code, "rows.jsonl line" in str(error)) == (65, True)

    check()
