"""Moves files of any size to and from S3: parts in parallel, memory bounded, SHA-256 on the way.

The digest is taken over the very bytes that are sent or arrive, in order, by the calling thread, while
worker threads keep the network and the disk busy. Memory: (workers + 2) buffers of one part.
"""

from __future__ import annotations

import hashlib
import os
import random
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Generic, Self, TypeVar

from botocore.exceptions import ClientError

from srlm_contract.errors import PreconditionFailed, StoreError, StoreUnavailable

from .s3_count import RequestErrors
from .s3_errors import Rejected, SendAgain, translated
from .s3_md5 import content_md5
from .s3_pace import Clock, Pace, PacedBody, read_body
from .store import FileDigest

MAX_PARTS = 10_000
R = TypeVar("R")


@dataclass(frozen=True)
class TransferSettings:
    """How files move."""

    part_bytes: int = 16 * 1024 * 1024
    """Size of a part; S3 refuses parts under 5 MiB, except the last."""
    workers: int = 8
    attempts: int = 5
    """Tries of one part's body; requests that fail as a whole are retried by botocore."""
    backoff_seconds: float = 0.5
    clock: Clock = time.monotonic
    """For the floor of throughput."""

    def part_size(self, size: int) -> int:
        """Bytes of a part for an object of `size` bytes, so that 10,000 parts are enough."""
        return max(self.part_bytes, -(-size // MAX_PARTS))

    def pause(self, attempt: int) -> None:
        """Waits before another try. Full jitter keeps parallel parts from coming back all at once."""
        time.sleep(random.uniform(0, self.backoff_seconds * 2**attempt))  # noqa: S311 - no secret


def repeated(settings: TransferSettings, send: Callable[[], R]) -> R:
    """Sends a request again while the store asks for that."""
    for attempt in range(settings.attempts - 1):
        try:
            return send()
        except SendAgain:
            settings.pause(attempt)
    return send()


@dataclass(frozen=True)
class S3Object:
    """One object at one client."""

    client: Any
    bucket: str
    key: str
    errors: RequestErrors = field(default_factory=RequestErrors)
    """Told of answers that broke off."""

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}/{self.key}"

    @property
    def address(self) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": self.key}


class Pipeline(Generic[R]):
    """Work on buffers in threads; results come back in the order of submission.

    At most workers + 2 buffers exist, so a slow consumer or a slow network bounds the reader.
    """

    def __init__(self, workers: int, buffer_bytes: int, on_done: Callable[[R], object]) -> None:
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="transfer")
        self._limit = workers + 2
        self._buffer_bytes = buffer_bytes
        self._on_done = on_done
        self._free: list[bytearray] = []
        self._pending: deque[tuple[bytearray, Future[R]]] = deque()

    def buffer(self) -> bytearray:
        """A buffer to fill and submit; waits for the oldest work when all are in use."""
        while self._pending and (len(self._pending) >= self._limit or self._pending[0][1].done()):
            self._finish_oldest()
        return self._free.pop() if self._free else bytearray(self._buffer_bytes)

    def submit(self, buffer: bytearray, work: Callable[[], R]) -> None:
        self._pending.append((buffer, self._pool.submit(work)))

    def _finish_oldest(self) -> None:
        buffer, future = self._pending.popleft()
        self._on_done(future.result())
        self._free.append(buffer)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            while kind is None and self._pending:
                self._finish_oldest()
        finally:
            self._pool.shutdown(cancel_futures=True)


def head_of(target: S3Object) -> dict[str, Any]:
    """The header fields of an object. Raises NotFound."""
    try:
        with translated(target.uri, "read"):
            answer: dict[str, Any] = target.client.head_object(**target.address)
            return answer
    except Rejected:
        # An answer to HEAD has no body that could say why, such as that the credentials have run out.
        with translated(target.uri, "read"):
            target.client.get_object(**target.address, Range="bytes=0-0")["Body"].close()
        raise


def read_range(target: S3Object, etag: str, start: int, view: memoryview, settings: TransferSettings) -> None:
    """Fills `view` from byte `start`. A body that ends early, breaks off or crawls is continued where it stopped."""
    done, slow = 0, None
    for attempt in range(settings.attempts):
        pace = Pace(target.uri, settings.clock)
        with translated(target.uri, "read"):
            done += _read_some(target, etag, start + done, view[done:], pace)
        if done == len(view):
            return
        slow = pace.slow
        settings.pause(attempt)
    raise slow or StoreUnavailable(f"cannot read {target.uri}: the answer kept ending early, at byte {start + done}")


def _read_some(target: S3Object, etag: str, start: int, view: memoryview, pace: Pace) -> int:
    """Bytes read before the body ended, broke off or crawled: the caller goes on from there."""
    span = f"bytes={start}-{start + len(view) - 1}"
    answer = target.client.get_object(**target.address, Range=span, IfMatch=etag)
    body = answer["Body"]
    try:
        if not answer.get("ContentRange", "").startswith(f"bytes {start}-"):
            raise StoreUnavailable(f"cannot read {target.uri}: asked for {span}, got {answer.get('ContentRange')}")
        done = read_body(body, view, pace)
    finally:
        body.close()
    if done < len(view):
        target.errors.add()
    return done


def read_whole(target: S3Object, settings: TransferSettings) -> tuple[bytes, dict[str, Any]]:
    """A small object with one request, and the answer's header fields. Raises NotFound."""
    slow = None
    for attempt in range(settings.attempts):
        pace = Pace(target.uri, settings.clock)
        with translated(target.uri, "read"):
            answer: dict[str, Any] = target.client.get_object(**target.address)
            data = bytearray(int(answer["ContentLength"]))
        try:
            if read_body(answer["Body"], memoryview(data), pace) == len(data):
                return bytes(data), answer
        finally:
            answer["Body"].close()
        target.errors.add()
        slow = pace.slow
        settings.pause(attempt)
    raise slow or StoreUnavailable(f"cannot read {target.uri}: the answer kept ending early")


def download(target: S3Object, path: Path, settings: TransferSettings) -> FileDigest:
    """Writes the object to `path`. Raises NotFound, and StoreUnavailable when it changed meanwhile."""
    head = head_of(target)
    with translated(target.uri, "read"):
        size, etag = int(head["ContentLength"]), str(head["ETag"])
    part = settings.part_size(size)
    digest = hashlib.sha256()
    with path.open("wb") as out:

        def fetch(start: int, view: memoryview) -> memoryview:
            read_range(target, etag, start, view, settings)
            os.pwrite(out.fileno(), view, start)
            return view

        workers = min(settings.workers, -(-size // part) or 1)
        try:
            with Pipeline(workers, min(part, size), digest.update) as pipeline:
                for start in range(0, size, part):
                    buffer = pipeline.buffer()
                    view = memoryview(buffer)[: min(part, size - start)]
                    pipeline.submit(buffer, partial(fetch, start, view))
        except PreconditionFailed as error:
            raise StoreUnavailable(f"cannot read {target.uri}: it changed while it was read; try again") from error
    return FileDigest(size, digest.hexdigest())


def upload_parts(target: S3Object, path: Path, settings: TransferSettings, condition: dict[str, str]) -> FileDigest:
    """Writes a file as a multipart upload, which is dropped again when anything fails.

    condition: for the completing call, such as {"IfNoneMatch": "*"}.
    """
    size = path.stat().st_size
    part = settings.part_size(size)
    digest = hashlib.sha256()
    with translated(target.uri, "write"):
        upload = target.client.create_multipart_upload(**target.address)["UploadId"]

    def send(number: int, view: memoryview) -> dict[str, Any]:
        about = {**target.address, "UploadId": upload, "PartNumber": number, "ContentMD5": content_md5(view)}

        def once() -> dict[str, Any]:
            body = PacedBody(view, target.uri, settings.clock)
            with translated(target.uri, "write"):
                return {"PartNumber": number, "ETag": target.client.upload_part(**about, Body=body)["ETag"]}

        return repeated(settings, once)

    parts: list[dict[str, Any]] = []
    try:
        with (
            path.open("rb", buffering=0) as source,
            Pipeline(settings.workers, part, parts.append) as pipeline,
        ):
            for number, start in enumerate(range(0, size, part), 1):
                buffer = pipeline.buffer()
                view = memoryview(buffer)[: min(part, size - start)]
                _fill(source, view, path)
                pipeline.submit(buffer, partial(send, number, view))
                digest.update(view)  # while it is sent; the buffer is reused by this thread only
        with translated(target.uri, "write"):
            _complete(target, upload, parts, size, condition)
    except BaseException:
        with suppress(StoreError), translated(target.uri, "drop the upload of"):
            target.client.abort_multipart_upload(**target.address, UploadId=upload)
        raise
    return FileDigest(size, digest.hexdigest())


def _fill(source: BinaryIO, view: memoryview, path: Path) -> None:
    done = 0
    while done < len(view):
        count = source.readinto(view[done:])  # type: ignore[attr-defined]  # a raw file has it
        if not count:
            raise OSError(f"{path} became shorter while it was uploaded")
        done += count


def _complete(target: S3Object, upload: str, parts: list[dict[str, Any]], size: int, condition: dict[str, str]) -> None:
    try:
        target.client.complete_multipart_upload(
            **target.address, UploadId=upload, MultipartUpload={"Parts": parts}, **condition
        )
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") != "NoSuchUpload":
            raise
        # A completing call whose answer got lost is sent again by botocore and then finds no upload.
        head = target.client.head_object(**target.address)
        if int(head["ContentLength"]) != size or not str(head["ETag"]).strip('"').endswith(f"-{len(parts)}"):
            raise
