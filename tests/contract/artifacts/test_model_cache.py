"""The model cache on a node: filled once, shared, bounded, and safe to delete at any time."""

from __future__ import annotations

import errno
import multiprocessing
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest

from srlm_contract.artifacts.artifacts import ArtifactStore
from srlm_contract.artifacts.cache import ModelCache
from srlm_contract.artifacts.commits import Produced
from srlm_contract.errors import InvalidArtifact

SIZE = 100


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


def fill(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "model.safetensors").write_bytes(b"w" * (SIZE - 10))
    (folder / "sub" / "config.json").write_bytes(b"c" * 10)


def never(folder: Path) -> None:
    raise AssertionError("it is in the cache")


@pytest.fixture
def cache(tmp_path: Path) -> ModelCache:
    return ModelCache(tmp_path / "cache", max_bytes=3 * SIZE)


def put(cache: ModelCache, number: int) -> None:
    with cache.get(digest(number), fill):
        pass


def has(cache: ModelCache, number: int) -> bool:
    try:
        with cache.get(digest(number), never):
            return True
    except AssertionError:
        return False


def test_filled_once(cache: ModelCache) -> None:
    with cache.get(digest(1), fill) as folder:
        assert (folder / "model.safetensors").stat().st_size == SIZE - 10
    with cache.get(digest(1), never) as folder:
        assert (folder / "sub" / "config.json").read_bytes() == b"c" * 10
    assert cache.size() == SIZE


def test_a_failed_fill_leaves_nothing(cache: ModelCache) -> None:
    def half(folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"w")
        raise RuntimeError("connection lost")

    with pytest.raises(RuntimeError), cache.get(digest(1), half):
        pass
    assert cache.size() == 0
    assert [p for p in cache.root.iterdir() if p.suffix != ".lock"] == []
    put(cache, 1)
    assert has(cache, 1)


@pytest.mark.parametrize("harm", ["change", "remove", "add", "marker"])
def test_a_changed_entry_is_fetched_again(cache: ModelCache, harm: str) -> None:
    put(cache, 1)
    entry = cache.root / digest(1).removeprefix("sha256:")
    match harm:
        case "change":
            (entry / "files" / "model.safetensors").write_bytes(b"v" * (SIZE - 11))
        case "remove":
            (entry / "files" / "model.safetensors").unlink()
        case "add":
            (entry / "files" / "pytorch_model.bin").write_bytes(b"pickle")
        case "marker":
            (entry / "complete.json").write_bytes(b"{")
    with cache.get(digest(1), fill) as folder:
        assert (folder / "model.safetensors").read_bytes() == b"w" * (SIZE - 10)
        assert not (folder / "pytorch_model.bin").exists()


def test_least_recently_used_go_first(cache: ModelCache) -> None:
    for number in (1, 2, 3):
        put(cache, number)
    assert has(cache, 1)
    put(cache, 4)
    assert [has(cache, number) for number in (1, 2, 3, 4)] == [True, False, True, True]
    assert cache.size() == 3 * SIZE


def test_entries_in_use_stay(cache: ModelCache) -> None:
    put(cache, 1)
    with cache.get(digest(1), never) as folder:
        for number in (2, 3, 4, 5):
            put(cache, number)
        assert (folder / "model.safetensors").exists()
    assert has(cache, 1)


def test_a_reader_does_not_keep_others_from_the_model(cache: ModelCache) -> None:
    put(cache, 1)
    with ThreadPoolExecutor(1) as pool, cache.get(digest(1), never) as mine:

        def use() -> Path:
            with cache.get(digest(1), never) as folder:
                return folder

        assert pool.submit(use).result(timeout=60) == mine


def test_one_larger_than_the_bound_still_works(tmp_path: Path) -> None:
    cache = ModelCache(tmp_path, max_bytes=SIZE // 2)
    put(cache, 1)
    with cache.get(digest(2), fill) as folder:
        assert (folder / "model.safetensors").exists()
    assert not has(cache, 1)


def test_a_full_disk_makes_room(cache: ModelCache) -> None:
    for number in (1, 2):
        put(cache, number)
    full = [True]

    def fill_once_there_is_room(folder: Path) -> None:
        if full.pop():
            full.append(False)
            raise OSError(errno.ENOSPC, "No space left on device")
        fill(folder)

    with cache.get(digest(3), fill_once_there_is_room) as folder:
        assert (folder / "model.safetensors").exists()
    assert [has(cache, number) for number in (1, 2, 3)] == [False, False, True]


def test_a_disk_that_stays_full(cache: ModelCache) -> None:
    def no_room(folder: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"), cache.get(digest(1), no_room):
        pass


def test_threads_fill_once(cache: ModelCache) -> None:
    fills: list[int] = []
    barrier = threading.Barrier(6)

    def counted(folder: Path) -> None:
        fills.append(1)
        fill(folder)

    def use(_: int) -> int:
        barrier.wait(timeout=30)
        with cache.get(digest(1), counted) as folder:
            return (folder / "model.safetensors").stat().st_size

    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(use, range(6))) == {SIZE - 10}
    assert len(fills) == 1


def _use_from_process(root: str, number: int) -> bool:
    with ModelCache(Path(root), max_bytes=2 * SIZE).get(digest(number % 4), fill) as folder:
        return (folder / "model.safetensors").read_bytes() == b"w" * (SIZE - 10)


def test_processes_share_it_under_pressure(tmp_path: Path) -> None:
    """Four models, room for two, three processes: whoever holds one sees it whole."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(3, mp_context=context) as pool:
        assert all(pool.map(_use_from_process, [str(tmp_path)] * 60, range(60)))


def test_what_a_killed_process_left_is_swept(cache: ModelCache) -> None:
    put(cache, 1)
    for left in ("new", "gone"):
        (cache.root / f"{2:064x}.abc.{left}" / "files").mkdir(parents=True)
    put(cache, 3)
    assert not list(cache.root.glob("*.new"))
    assert not list(cache.root.glob("*.gone"))


def test_deleting_it_all_at_any_time(cache: ModelCache) -> None:
    put(cache, 1)
    shutil.rmtree(cache.root)
    put(cache, 1)
    assert has(cache, 1)


def test_digest_that_is_none(cache: ModelCache) -> None:
    with pytest.raises(InvalidArtifact, match="content digest"), cache.get("../../etc", fill):
        pass


def test_models_come_from_the_cache(
    pod: Callable[..., ArtifactStore], write: Callable[..., Path], cache: ModelCache, tmp_path: Path
) -> None:
    artifacts = pod()
    ref = artifacts.commit("train", "0123456789", Produced(write({"model.safetensors": b"w"}), model=True)).manifest.ref
    with artifacts.model(ref, cache, tmp_path) as folder:
        assert (folder / "model.safetensors").read_bytes() == b"w"
    artifacts.store.delete(["artifacts/train/0123456789/parts/pod-a/model.safetensors"])
    with artifacts.model(ref, cache, tmp_path) as folder:
        assert (folder / "model.safetensors").read_bytes() == b"w"
