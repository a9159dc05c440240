"""Shards commit in any order, any number of times, and exactly one top manifest comes out."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.artifacts.conftest import run_identity
from srlm_contract.artifacts import layout
from srlm_contract.artifacts.artifacts import ArtifactStore
from srlm_contract.artifacts.commits import Produced
from srlm_contract.artifacts.layout import shard_file
from srlm_contract.artifacts.manifest import Manifest, Producer, sum_statistics
from srlm_contract.artifacts.store import Store
from srlm_contract.errors import ArtifactDamaged, InvalidArtifact
from support.memory_store import MemoryStore

STAGE, KEY = "judge", "0123456789abcdef"
Pod = Callable[..., ArtifactStore]


def commit(artifacts: ArtifactStore, folder: Path, shard: int, shards: int, **options: bool) -> Manifest | None:
    path = folder / f"{shard}-{shards}"
    path.write_text(f"shard {shard}\n")
    produced = Produced(
        {shard_file("judgements", shard, shards): path},
        parameters={"samples": 3},
        rows=shard + 1,
        statistics={"parsed": shard, "scores": {str(shard % 2): 1}},
        versions={"vllm": "0.32.0"},
    )
    return artifacts.commit_shard(STAGE, KEY, shard, shards, produced, **options)


def test_the_last_shard_completes_the_artifact(pod: Pod, tmp_path: Path, store: Store) -> None:
    assert commit(pod("pod-1"), tmp_path, 1, 3) is None
    assert commit(pod("pod-0"), tmp_path, 0, 3) is None
    assert pod().lookup(STAGE, KEY) is None
    done = commit(pod("pod-2"), tmp_path, 2, 3)
    assert done is not None
    assert pod().lookup(STAGE, KEY) == done
    assert (done.shards, done.rows) == (3, 6)
    assert done.statistics == {"parsed": 3, "scores": {"0": 2, "1": 1}}
    assert [(f.path, f.part) for f in done.files] == [
        (f"judgements-0000{i}-of-00003.jsonl", f"pod-{i}") for i in range(3)
    ]
    assert done.parameters == {"samples": 3}
    pod("reader").fetch(done.ref, tmp_path / "got")
    assert (tmp_path / "got" / "judgements-00002-of-00003.jsonl").read_text() == "shard 2\n"
    assert store.head(f"artifacts/{STAGE}/{KEY}/shards/1-of-3.json") is not None


def test_shards_at_the_same_time(pod: Pod, tmp_path: Path, store: Store) -> None:
    with ThreadPoolExecutor(6) as pool:
        done = list(pool.map(lambda i: commit(pod(f"pod-{i}"), tmp_path, i, 6), range(6)))
    found = pod().lookup(STAGE, KEY)
    assert found is not None
    assert found.shards == 6
    assert {m.content_digest for m in done if m is not None} == {found.content_digest}


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_order_repeats_and_restarts(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Pods of every shard come in any order, some twice, some die between shard and top manifest."""
    folder = tmp_path_factory.mktemp("any-order")
    shards = data.draw(st.integers(1, 5))
    order = data.draw(
        st.permutations(list(range(shards)) + data.draw(st.lists(st.integers(0, shards - 1), max_size=4)))
    )
    store = MemoryStore()
    for turn, shard in enumerate(order):
        artifacts = ArtifactStore(store, Producer(run=run_identity(), pod_uid=f"pod-{turn}"), scratch=folder)
        ready, top = artifacts.already_shard(STAGE, KEY, shard, shards)
        if not ready:
            assert top is None
            if data.draw(st.booleans()):  # dies after its shard manifest
                commit(artifacts, folder, shard, shards)
                store.delete([layout.manifest_key(STAGE, KEY)])
            else:
                commit(artifacts, folder, shard, shards)
    last = ArtifactStore(store, Producer(run=run_identity(), pod_uid="last"), scratch=folder)
    ready, top = last.already_shard(STAGE, KEY, 0, shards)
    assert ready
    assert top is not None
    assert top.rows == sum(range(1, shards + 1))
    assert len({f.path for f in top.files}) == shards
    last.fetch(top.ref, folder / "got")


def test_shards_of_different_numbers_do_not_mix(pod: Pod, tmp_path: Path) -> None:
    assert commit(pod("a"), tmp_path, 0, 2) is None
    assert commit(pod("b"), tmp_path, 1, 3) is None
    assert commit(pod("c"), tmp_path, 2, 3) is None
    done = commit(pod("d"), tmp_path, 0, 3)
    assert done is not None
    late = commit(pod("e"), tmp_path, 1, 2)
    assert late == done, "the first complete set is the artifact"


def test_a_zombie_shard_changes_nothing(pod: Pod, tmp_path: Path, store: Store) -> None:
    commit(pod("a"), tmp_path, 0, 2)
    commit(pod("zombie"), tmp_path, 0, 2)
    done = commit(pod("b"), tmp_path, 1, 2)
    assert done is not None
    assert [f.part for f in done.files] == ["a", "b"]
    assert list(store.list_objects(f"artifacts/{STAGE}/{KEY}/parts/zombie/")) == []


def test_a_restarted_pod_puts_the_missing_top_manifest(pod: Pod, tmp_path: Path, store: Store) -> None:
    commit(pod("a"), tmp_path, 0, 2)
    done = commit(pod("b"), tmp_path, 1, 2)
    assert done is not None
    store.delete([layout.manifest_key(STAGE, KEY)])
    ready, top = pod("c").already_shard(STAGE, KEY, 1, 2)
    assert ready
    assert top is not None
    assert top.content_digest == done.content_digest


@pytest.mark.parametrize("harm", ["data", "shard manifest", "gone"])
@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0]])
def test_repair_makes_only_the_damaged_shard_again(
    pod: Pod, tmp_path: Path, store: Store, harm: str, order: list[int]
) -> None:
    for i in range(3):
        commit(pod(f"pod-{i}"), tmp_path, i, 3)
    before = pod().lookup(STAGE, KEY)
    assert before is not None
    shard_manifest = layout.shard_key(STAGE, KEY, 1, 3)
    match harm:
        case "data":
            store.put(f"artifacts/{STAGE}/{KEY}/parts/pod-1/{before.files[1].path}", b"damaged")
        case "shard manifest":
            store.put(shard_manifest, b"nonsense")
        case "gone":
            store.delete([shard_manifest])
    made_again = []
    for i in order:
        artifacts = pod(f"repair-{i}")
        ready, _ = artifacts.already_shard(STAGE, KEY, i, 3, repair=True)
        if not ready:
            made_again.append(i)
            commit(artifacts, tmp_path, i, 3, repair=True)
    assert made_again == [1]
    after = pod().lookup(STAGE, KEY)
    assert after is not None
    assert after.content_digest == before.content_digest
    assert [f.part for f in after.files] == ["pod-0", "repair-1", "pod-2"]
    pod("reader").fetch(before.ref, tmp_path / "got")


def test_repair_of_a_top_manifest_alone(pod: Pod, tmp_path: Path, store: Store) -> None:
    for i in range(2):
        commit(pod(f"pod-{i}"), tmp_path, i, 2)
    store.put(layout.manifest_key(STAGE, KEY), b"nonsense")
    ready, top = pod("repair").already_shard(STAGE, KEY, 0, 2, repair=True)
    assert ready
    assert top is not None
    assert pod().lookup(STAGE, KEY) == top


def test_repair_with_another_number_of_shards(pod: Pod, tmp_path: Path, store: Store) -> None:
    for i in range(2):
        commit(pod(f"pod-{i}"), tmp_path, i, 2)
    before = pod().lookup(STAGE, KEY)
    assert before is not None
    assert pod("r").already_shard(STAGE, KEY, 0, 3, repair=True) == (True, before), "intact"
    store.put(f"artifacts/{STAGE}/{KEY}/parts/pod-1/{before.files[1].path}", b"damaged")
    for i in range(3):
        artifacts = pod(f"repair-{i}")
        assert artifacts.already_shard(STAGE, KEY, i, 3, repair=True) == (False, None)
        commit(artifacts, tmp_path, i, 3, repair=True)
    after = pod().lookup(STAGE, KEY)
    assert after is not None
    assert after.shards == 3
    pod("reader").fetch(after.ref, tmp_path / "got")


def test_damaged_sibling_without_repair(pod: Pod, tmp_path: Path, store: Store) -> None:
    commit(pod("a"), tmp_path, 0, 2)
    store.put(layout.shard_key(STAGE, KEY, 0, 2), b"nonsense")
    with pytest.raises(ArtifactDamaged, match=STAGE):
        commit(pod("b"), tmp_path, 1, 2)


def test_shard_numbers(pod: Pod, tmp_path: Path) -> None:
    with pytest.raises(InvalidArtifact, match="shard 2 of 2"):
        commit(pod(), tmp_path, 2, 2)


def test_sum_statistics() -> None:
    parts = [{"n": 1, "by": {"a": 1}, "kind": "x"}, {"n": 2.5, "by": {"a": 2, "b": 1}, "kind": "x"}]
    assert sum_statistics(parts) == {"n": 3.5, "by": {"a": 3, "b": 1}, "kind": "x"}
    assert sum_statistics([]) == {}
    with pytest.raises(ValueError, match="'kind' cannot be summed"):
        sum_statistics([{"kind": "x"}, {"kind": "y"}])
