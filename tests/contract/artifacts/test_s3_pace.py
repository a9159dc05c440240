"""Transfers that crawl: ended, tried again, told with exit code 75. The clock is the test's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from contract.artifacts.conftest import FAST
from contract.artifacts.faulty_s3 import FaultyS3
from srlm_contract.artifacts.s3 import S3Store
from srlm_contract.artifacts.s3_pace import PATIENCE, SLOWEST, Pace, PacedBody, TooSlow, read_body
from srlm_contract.errors import StoreUnavailable

MIB = 1024 * 1024
OpenS3 = Callable[..., S3Store]


class Hands:
    """A clock: every look at it finds `step` seconds gone, `times` times, and none from then on."""

    def __init__(self, step: float, times: int = 1_000_000_000) -> None:
        self.now, self.step, self.left = 0.0, step, times

    def __call__(self) -> float:
        self.left -= 1
        self.now += self.step if self.left >= 0 else 0.0
        return self.now


def crawling(store: S3Store, step: float, times: int = 1_000_000_000) -> S3Store:
    store.transfer = replace(FAST, workers=1, clock=Hands(step, times))
    return store


@pytest.mark.parametrize(("bytes_a_second", "ends"), [(SLOWEST, False), (SLOWEST - 1, True), (0, True)])
def test_the_floor(bytes_a_second: int, ends: bool) -> None:
    clock = Hands(1.0)
    pace = Pace("s3://b/k", clock)
    for _ in range(int(PATIENCE) - 1):
        pace.moved(bytes_a_second)
    if ends:
        with pytest.raises(TooSlow, match=r"the transfer of s3://b/k crawls: \d+ bytes in 60 s"):
            pace.moved(bytes_a_second)
    else:
        assert pace.moved(bytes_a_second) == SLOWEST


def test_a_burst_at_the_beginning_pays_for_one_minute_only() -> None:
    pace = Pace("s3://b/k", Hands(PATIENCE))
    pace.moved(100 * MIB)
    with pytest.raises(TooSlow):
        pace.moved(1)


def test_a_slow_connection_is_asked_for_less_at_once() -> None:
    asked: list[int] = []

    class Body:
        def readinto(self, view: memoryview) -> int:
            asked.append(len(view))
            return len(view)

    assert read_body(Body(), memoryview(bytearray(40_000)), Pace("s3://b/k", Hands(2.0))) == 40_000
    assert asked[:3] == [16384, 8192, 4096]
    assert min(asked[:-1]) == 1024
    asked.clear()
    read_body(Body(), memoryview(bytearray(2 * MIB)), Pace("s3://b/k", Hands(0.0)))
    assert max(asked) == 512 * 1024


def test_a_body_can_be_sent_again() -> None:
    body = PacedBody(b"0123456789", "s3://b/k", Hands(0.0))
    assert (len(body), body.read(4), body.tell(), body.read(), body.read(1)) == (10, b"0123", 4, b"456789", b"")
    assert (body.seek(0), body.read(None)) == (0, b"0123456789")
    assert (body.seek(-3, 2), body.read(2), body.seek(-1, 1), body.read()) == (7, b"78", 8, b"89")


@pytest.mark.parametrize("size", [200_000, 11 * MIB])
def test_reading(open_s3: OpenS3, tmp_path: Path, size: int) -> None:
    store = open_s3()
    (tmp_path / "file").write_bytes(bytes(range(200)) * (size // 200))
    sent = store.upload_file(tmp_path / "file", "key")
    crawling(store, 30.0)
    for read in (lambda: store.download_file("key", tmp_path / "got"), lambda: store.get("key")):
        with pytest.raises(StoreUnavailable, match=r"crawls: .* check the network to the store, and its load") as found:
            read()
        assert (found.value.exit_code, found.value.reason) == (75, "StorageUnavailable")
    crawling(store, 30.0, times=8)
    assert store.download_file("key", tmp_path / "got") == sent, (
        "another connection went on where the first one crawled"
    )
    assert (tmp_path / "got").read_bytes() == (tmp_path / "file").read_bytes()
    crawling(store, 30.0, times=8)
    assert store.get("key").data == (tmp_path / "file").read_bytes()


@pytest.mark.parametrize("size", [200_000, 11 * MIB])
def test_writing(open_s3: OpenS3, s3: FaultyS3, tmp_path: Path, size: int) -> None:
    store = crawling(open_s3(), 40.0)
    (tmp_path / "file").write_bytes(b"x" * size)
    with pytest.raises(StoreUnavailable, match=r"crawls: .* check the network to the store, and its load") as found:
        store.upload_file(tmp_path / "file", "key")
    assert (found.value.exit_code, found.value.reason) == (75, "StorageUnavailable")
    assert store.head("key") is None
    assert not store.client.list_multipart_uploads(Bucket=store.bucket).get("Uploads")


def test_an_upload_that_crawls_is_sent_again(open_seaweed: Callable[[], S3Store], tmp_path: Path) -> None:
    store = open_seaweed()
    crawled: list[str] = []
    store.transfer = replace(FAST, workers=1, clock=(hands := Hands(0.0)))

    def sign(**_: Any) -> None:
        hands.step = 0.0  # the digest is taken of the body too

    def send(request: Any, **_: Any) -> None:
        crawled.append(request.url)
        hands.step = 30.0 if len(crawled) == 1 else 0.0

    events = store.client.meta.events
    events.register("before-sign.s3.PutObject", sign, unique_id="sign")
    events.register("before-send.s3.PutObject", send, unique_id="send")
    try:
        (tmp_path / "file").write_bytes(b"x" * 200_000)
        sent = store.upload_file(tmp_path / "file", "key")
    finally:
        events.unregister("before-sign.s3.PutObject", unique_id="sign")
        events.unregister("before-send.s3.PutObject", unique_id="send")
    assert len(crawled) == 2
    store.transfer = FAST
    assert store.download_file("key", tmp_path / "got") == sent
