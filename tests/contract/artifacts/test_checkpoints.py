"""Resume points of training: the newest usable one of this run is found; the rest goes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from srlm_contract.artifacts import layout
from srlm_contract.artifacts.artifacts import ArtifactStore
from srlm_contract.artifacts.commits import Produced
from srlm_contract.artifacts.store import Store

STAGE, KEY = "train", "0123456789abcdef"
Pod = Callable[..., ArtifactStore]
Write = Callable[..., Path]


def test_newest_is_fetched(pod: Pod, write: Write, tmp_path: Path) -> None:
    for step in (2, 10, 9):
        pod().commit_checkpoint(STAGE, KEY, step, write({"optimizer.pt": b"state %d" % step}))
    assert pod("pod-b").latest_checkpoint(STAGE, KEY, tmp_path / "got") == 10
    assert (tmp_path / "got" / "optimizer.pt").read_bytes() == b"state 10"


def test_none_at_first(pod: Pod, tmp_path: Path) -> None:
    assert pod().latest_checkpoint(STAGE, KEY, tmp_path / "got") is None


def test_damaged_ones_are_skipped(pod: Pod, write: Write, store: Store, tmp_path: Path) -> None:
    for step in (1, 2, 3):
        pod().commit_checkpoint(STAGE, KEY, step, write({"a": b"a", "state": b"state %d" % step}))
    store.put(layout.checkpoint_key(STAGE, KEY, 3), b"nonsense")
    store.delete([f"artifacts/{STAGE}/{KEY}/parts/pod-a/checkpoints/2/state"])
    assert pod().latest_checkpoint(STAGE, KEY, tmp_path / "got") == 1
    assert (tmp_path / "got" / "state").read_bytes() == b"state 1"


def test_only_the_run_that_wrote_it_reads_it(pod: Pod, write: Write, tmp_path: Path) -> None:
    pod("a", run="one").commit_checkpoint(STAGE, KEY, 5, write({"optimizer.pt": b"one"}))
    assert pod("b", run="two").latest_checkpoint(STAGE, KEY, tmp_path / "two") is None
    pod("b", run="two").commit_checkpoint(STAGE, KEY, 5, write({"optimizer.pt": b"two"}))
    assert pod("c", run="one").latest_checkpoint(STAGE, KEY, tmp_path / "one") == 5
    assert (tmp_path / "one" / "optimizer.pt").read_bytes() == b"one"


def test_a_later_attempt_replaces_a_step(pod: Pod, write: Write, store: Store, tmp_path: Path) -> None:
    pod("a").commit_checkpoint(STAGE, KEY, 5, write({"state": b"old"}))
    pod("b").commit_checkpoint(STAGE, KEY, 5, write({"state": b"new"}))
    assert pod("c").latest_checkpoint(STAGE, KEY, tmp_path / "got") == 5
    assert (tmp_path / "got" / "state").read_bytes() == b"new"


def test_a_damaged_step_is_replaced(pod: Pod, write: Write, store: Store, tmp_path: Path) -> None:
    pod("a").commit_checkpoint(STAGE, KEY, 5, write({"state": b"old"}))
    store.put(layout.checkpoint_key(STAGE, KEY, 5), b"nonsense")
    pod("b").commit_checkpoint(STAGE, KEY, 5, write({"state": b"new"}))
    assert pod("b").latest_checkpoint(STAGE, KEY, tmp_path / "got") == 5


def test_deleting_keeps_the_newest(pod: Pod, write: Write, store: Store, tmp_path: Path) -> None:
    for step in (1, 2, 3):
        pod().commit_checkpoint(STAGE, KEY, step, write({"state": b"state %d" % step}))
    pod().delete_checkpoints(STAGE, KEY, keep=1)
    left = [info.key for info in store.list_objects("artifacts/")]
    prefix = f"artifacts/{STAGE}/{KEY}"
    assert left == [f"{prefix}/checkpoints/3/manifest.json", f"{prefix}/parts/pod-a/checkpoints/3/state"]
    pod().delete_checkpoints(STAGE, KEY)
    assert list(store.list_objects("artifacts/")) == []


def test_checkpoints_do_not_disturb_the_model(pod: Pod, write: Write, store: Store, tmp_path: Path) -> None:
    trainer = pod()
    trainer.commit_checkpoint(STAGE, KEY, 1, write({"model.safetensors": b"half"}))
    done = trainer.commit(STAGE, KEY, Produced(write({"model.safetensors": b"whole"}), model=True)).manifest
    trainer.delete_checkpoints(STAGE, KEY)
    trainer.fetch(done.ref, tmp_path / "got")
    assert (tmp_path / "got" / "model.safetensors").read_bytes() == b"whole"
