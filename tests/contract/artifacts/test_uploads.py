"""What a killed pod had sent of a large file goes with the next attempt; what a running one sends stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contract.artifacts.conftest import artifacts_of, run_identity
from srlm_contract.artifacts import layout
from srlm_contract.artifacts.commits import Produced
from srlm_contract.artifacts.retention import drop_uploads
from srlm_contract.artifacts.s3 import S3Store
from srlm_contract.errors import StoreUnavailable
from support.memory_store import MemoryStore

MIB = 1024 * 1024
STAGE, KEY = "train", "0123456789abcdef"
OpenS3 = Callable[..., S3Store]

#: Is killed by the kernel once a part has arrived, as a node that runs out of memory kills it.
KILLED = """
import os, signal, sys
from pathlib import Path
from srlm_contract.artifacts.artifacts import ArtifactStore
from srlm_contract.artifacts.commits import Produced
from srlm_contract.artifacts.manifest import Producer
from srlm_contract.artifacts.s3 import S3Store
from srlm_contract.artifacts.s3_transfer import TransferSettings
from srlm_contract.spec.storage import Place
from srlm_contract.tasks import RunIdentity

url, place, file = sys.argv[1:4]
store = S3Store.open(
    Place(uri=place, endpoint_url=url), transfer=TransferSettings(part_bytes=5 * 2**20, workers=1, backoff_seconds=0)
)
store.client.meta.events.register("after-call.s3.UploadPart", lambda **_: os.kill(os.getpid(), signal.SIGKILL))
producer = Producer(run=RunIdentity(namespace="training", name="run", uid="uid-run"), pod_uid="killed")
ArtifactStore(store, producer).commit("train", "0123456789abcdef", Produced({"model.safetensors": Path(file)}))
"""


def unfinished(store: S3Store) -> list[str]:
    """Pods that have unfinished uploads."""
    pages = store.client.list_multipart_uploads(Bucket=store.bucket, Prefix=store.prefix)
    return sorted(str(layout.part_of_key(upload["Key"])) for upload in pages.get("Uploads", ()))


def notes(store: Any) -> list[str]:
    return [info.key for info in store.list_objects("artifacts/") if layout.run_of_upload(info.key)]


def begin(store: S3Store, pod: str, run: str = "run", shard: str = "0-of-1") -> None:
    """What lies there while a pod is sending."""
    key = f"artifacts/{STAGE}/{KEY}/parts/{pod}/model.safetensors"
    store.client.create_multipart_upload(Bucket=store.bucket, Key=store.prefix + key)
    store.put(layout.upload_key(STAGE, KEY, f"uid-{run}", shard), f'{{"podUid":"{pod}"}}'.encode())


@pytest.fixture
def large(tmp_path: Path) -> Path:
    made = tmp_path / "model.safetensors"
    made.write_bytes(b"x" * (11 * MIB))
    return made


@pytest.mark.parametrize("kind", ["s3", "seaweed"])
def test_parts_of_a_killed_pod_go_with_the_next_attempt(
    request: pytest.FixtureRequest, tmp_path: Path, large: Path, kind: str
) -> None:
    store: S3Store = request.getfixturevalue(f"open_{kind}")()
    place = f"s3://{store.bucket}/{store.prefix.rstrip('/')}"
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, store.client.meta.endpoint_url, place, str(large)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert unfinished(store) == ["killed"]
    begin(store, "of-another-run", run="other")
    begin(store, "of-another-shard", shard="1-of-2")
    done = artifacts_of(store, tmp_path, "next").commit(STAGE, KEY, Produced({"model.safetensors": large}))
    assert done.won
    assert unfinished(store) == ["of-another-run", "of-another-shard"]
    assert len(notes(store)) == 2, "our own is gone"
    assert drop_uploads(store, run_identity()) == 1
    assert unfinished(store) == ["of-another-run"]
    assert drop_uploads(store, run_identity("other")) == 1
    assert (unfinished(store), notes(store)) == ([], [])


def test_shards_and_resume_points_tell_their_uploads_too(open_s3: OpenS3, tmp_path: Path, large: Path) -> None:
    store = open_s3()
    begin(store, "old", shard="1-of-2")
    begin(store, "older")
    artifacts = artifacts_of(store, tmp_path, "next")
    artifacts.commit_shard(STAGE, KEY, 1, 2, Produced({"model.safetensors": large}))
    assert unfinished(store) == ["older"]
    artifacts.commit_checkpoint(STAGE, KEY, 5, {"state.safetensors": large})
    assert unfinished(store) == []


def test_a_pod_does_not_drop_what_it_sends_itself(open_s3: OpenS3, tmp_path: Path, large: Path) -> None:
    store = open_s3()
    begin(store, "same")
    artifacts_of(store, tmp_path, "same").commit(STAGE, KEY, Produced({"model.safetensors": large}))
    assert unfinished(store) == ["same"]


def test_small_files_leave_no_note(tmp_path: Path) -> None:
    class Watched(MemoryStore):
        def put(self, key: str, *arguments: Any, **options: Any) -> Any:
            assert not layout.run_of_upload(key)
            return super().put(key, *arguments, **options)

    (tmp_path / "rows").write_bytes(b"{}")
    assert artifacts_of(Watched(), tmp_path).commit(STAGE, KEY, Produced({"rows": tmp_path / "rows"})).won


@pytest.mark.parametrize(
    "note",
    [b"", b"{}", b"[]", b"1", b'{"podUid": 1}', b'{"podUid": "../.."}', b'{"podUid": ""}', b"[" * 100_000, b"\xff"],
)
def test_notes_that_nobody_wrote_drop_nothing(tmp_path: Path, large: Path, note: bytes) -> None:
    store = MemoryStore()
    store.put(layout.upload_key(STAGE, KEY, "uid-run", "0-of-1"), note)
    assert artifacts_of(store, tmp_path).commit(STAGE, KEY, Produced({"model.safetensors": large})).won
    assert notes(store) == []


def test_a_store_that_lists_no_uploads_fails_nothing(tmp_path: Path, large: Path) -> None:
    class Failing(MemoryStore):
        def abort_uploads(self, *arguments: Any) -> int:
            raise StoreUnavailable("down")

    store = Failing()
    store.put(layout.upload_key(STAGE, KEY, "uid-run", "0-of-1"), b'{"podUid": "old"}')
    assert artifacts_of(store, tmp_path).commit(STAGE, KEY, Produced({"model.safetensors": large})).won
