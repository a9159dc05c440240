"""What every store does, whichever it is."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from contract.artifacts.conftest import STORES, opened
from contract.artifacts.quirks import OLD_STORE
from srlm_contract.artifacts.store import Store
from srlm_contract.errors import NotFound, PreconditionFailed


@pytest.fixture(params=[*STORES, "old"])
def store(request: pytest.FixtureRequest) -> Store:
    """Also one that is as particular as old ones are."""
    if request.param != "old":
        return opened(request, request.param)
    request.getfixturevalue("s3").quirks = OLD_STORE
    old: Store = request.getfixturevalue("open_s3")(conditional=True, if_match="Unquoted")
    return old


def test_what_is_put_is_got(store: Store) -> None:
    info = store.put("a/b.json", b"hello")
    blob = store.get("a/b.json")
    assert blob.data == b"hello"
    assert (blob.info.key, blob.info.size, blob.info.etag) == ("a/b.json", 5, info.etag)
    assert abs(blob.info.modified - datetime.now(UTC)) < timedelta(minutes=5)
    assert store.head("a/b.json") == blob.info


def test_empty_object(store: Store, tmp_path: Path) -> None:
    store.put("empty", b"")
    assert store.get("empty").data == b""
    assert store.get_range("empty", 0, 10) == b""
    assert store.download_file("empty", tmp_path / "empty").size == 0
    assert (tmp_path / "empty").read_bytes() == b""


def test_missing_object(store: Store, tmp_path: Path) -> None:
    assert store.head("none") is None
    with pytest.raises(NotFound, match="none does not exist"):
        store.get("none")
    with pytest.raises(NotFound):
        store.get_range("none", 0, 1)
    with pytest.raises(NotFound):
        store.download_file("none", tmp_path / "none")


@pytest.mark.parametrize(("start", "length", "expected"), [(0, 3, b"012"), (7, 9, b"789"), (10, 4, b""), (99, 4, b"")])
def test_ranges(store: Store, start: int, length: int, expected: bytes) -> None:
    store.put("digits", b"0123456789")
    assert store.get_range("digits", start, length) == expected


def test_put_if_none_match(store: Store) -> None:
    store.put("once", b"first", if_none_match=True)
    with pytest.raises(PreconditionFailed):
        store.put("once", b"second", if_none_match=True)
    assert store.get("once").data == b"first"


def test_put_if_match(store: Store) -> None:
    old = store.put("replaced", b"first").etag
    store.put("replaced", b"second", if_match=old)
    with pytest.raises(PreconditionFailed):
        store.put("replaced", b"third", if_match=old)
    assert store.get("replaced").data == b"second"


def test_put_if_match_without_object(store: Store) -> None:
    with pytest.raises((PreconditionFailed, NotFound)):
        store.put("gone", b"data", if_match='"0123"')
    assert store.head("gone") is None


def test_one_of_many_racing_writers_wins(store: Store) -> None:
    def attempt(number: int) -> bool:
        try:
            store.put("race", b"writer %d" % number, if_none_match=True)
        except PreconditionFailed:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(attempt, range(24)))
    assert won.count(True) == 1
    assert store.get("race").data == b"writer %d" % won.index(True)


@pytest.mark.parametrize("size", [0, 1, 5 * 2**20 - 1, 5 * 2**20, 5 * 2**20 + 1, 10 * 2**20, 12 * 2**20 + 7])
def test_files_of_any_size(store: Store, tmp_path: Path, size: int) -> None:
    block = hashlib.sha256(str(size).encode()).digest()
    data = (block * (size // len(block) + 1))[:size]
    (tmp_path / "out").write_bytes(data)
    sent = store.upload_file(tmp_path / "out", "folder/file")
    assert (sent.size, sent.sha256) == (size, hashlib.sha256(data).hexdigest())
    assert store.download_file("folder/file", tmp_path / "in") == sent
    assert (tmp_path / "in").read_bytes() == data


@pytest.mark.parametrize("size", [10, 11 * 2**20])
def test_conditional_upload(store: Store, tmp_path: Path, size: int) -> None:
    (tmp_path / "first").write_bytes(b"1" * size)
    (tmp_path / "second").write_bytes(b"2" * size)
    store.upload_file(tmp_path / "first", "file", if_none_match=True)
    with pytest.raises(PreconditionFailed):
        store.upload_file(tmp_path / "second", "file", if_none_match=True)
    assert store.get_range("file", 0, 1) == b"1"
    assert store.abort_uploads("", datetime.now(UTC) + timedelta(days=1)) == 0, "the losing upload is dropped"


def test_a_shorter_file_replaces_what_was_at_the_path(store: Store, tmp_path: Path) -> None:
    store.put("file", b"new")
    (tmp_path / "file").write_bytes(b"something longer")
    store.download_file("file", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"new"


def test_listing_is_by_prefix_and_sorted(store: Store) -> None:
    for key in ("b/2", "a/1", "b/1", "b/10", "bb/1"):
        store.put(key, key.encode())
    assert [info.key for info in store.list_objects("b/")] == ["b/1", "b/10", "b/2"]
    assert [info.size for info in store.list_objects("a/")] == [3]
    assert list(store.list_objects("zz")) == []


def test_delete(store: Store) -> None:
    for key in ("a", "b", "c"):
        store.put(key, b"")
    store.delete(["a", "c", "never"])
    store.delete([])
    assert [info.key for info in store.list_objects("")] == ["b"]


def test_probe(store: Store) -> None:
    assert store.probe().conditional
    assert list(store.list_objects("")) == [], "the probe leaves nothing behind"


def test_uri_names_the_object(store: Store) -> None:
    assert store.uri("a/b").endswith("a/b")
    assert "://" in store.uri("a/b")
