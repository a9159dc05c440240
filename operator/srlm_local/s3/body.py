"""Receives a request body into a file: bounded memory, digests on the way, aws-chunked undone."""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from aiohttp import StreamReader, web

from srlm_local.s3.errors import S3Error

CHUNK_BYTES = 1024 * 1024
UNSIGNED = {"UNSIGNED-PAYLOAD", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"}


@dataclass(frozen=True)
class Received:
    """What arrived: bytes written, and their MD5 in hex (the ETag of a plain object)."""

    size: int
    md5: str


async def receive(request: web.Request, path: Path) -> Received:
    """Writes the body of a PUT to `path` and checks every digest its headers or trailers give.

    Raises S3Error and removes the file when the body is short or a digest differs.
    """
    with ExitStack() as stack:
        stack.callback(path.unlink, missing_ok=True)
        received = await _receive(request, path)
        stack.pop_all()
        return received


async def _receive(request: web.Request, path: Path) -> Received:
    declared = request.headers.get("x-amz-content-sha256", "")
    chunked = declared.startswith("STREAMING-") or "aws-chunked" in request.headers.get(
        "Content-Encoding", ""
    )
    expected = {k.lower(): v for k, v in request.headers.items() if k.lower().startswith("x-amz-checksum-")}
    trailers: dict[str, str] = {}
    pieces = (
        _decode_chunks(request.content, trailers) if chunked else request.content.iter_chunked(CHUNK_BYTES)
    )
    signed = bool(declared) and declared not in UNSIGNED and not chunked
    named = " ".join(expected) + request.headers.get("x-amz-trailer", "").lower()
    sha256 = hashlib.sha256() if signed or "checksum-sha256" in named else None
    sha1 = hashlib.sha1(usedforsecurity=False) if "checksum-sha1" in named else None
    md5, crc32, size = hashlib.md5(usedforsecurity=False), 0, 0
    with path.open("wb") as file:
        async for piece in pieces:
            file.write(piece)
            size += len(piece)
            md5.update(piece)
            if sha256:
                sha256.update(piece)
            if sha1:
                sha1.update(piece)
            if "checksum-crc32" in named:
                crc32 = zlib.crc32(piece, crc32)
    length = request.headers.get("x-amz-decoded-content-length", request.headers.get("Content-Length"))
    if length is not None and int(length) != size:
        raise S3Error("IncompleteBody", f"{size} bytes arrived of the {length} announced.")
    if signed and sha256 and sha256.hexdigest() != declared:
        raise S3Error("XAmzContentSHA256Mismatch")
    expected.update(trailers)
    computed = {"x-amz-checksum-crc32": _base64(crc32.to_bytes(4, "big"))}
    if sha256:
        computed["x-amz-checksum-sha256"] = _base64(sha256.digest())
    if sha1:
        computed["x-amz-checksum-sha1"] = _base64(sha1.digest())
    for name, value in computed.items():
        if name in expected and expected[name] != value:
            algorithm = name.removeprefix("x-amz-checksum-").upper()
            raise S3Error(
                "BadDigest", f"The {algorithm} you specified did not match the calculated checksum."
            )
    if request.headers.get("Content-MD5", _base64(md5.digest())) != _base64(md5.digest()):
        raise S3Error("BadDigest", "The Content-MD5 you specified did not match what we received.")
    return Received(size, md5.hexdigest())


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


async def _decode_chunks(content: StreamReader, trailers: dict[str, str]) -> AsyncIterator[bytes]:
    """Undoes aws-chunked: `<hex size>[;chunk-signature=...]CRLF bytes CRLF`, a chunk of 0, trailer lines."""
    while True:
        header = (await content.readuntil(b"\r\n")).split(b";")[0].strip()
        try:
            left = int(header, 16)
        except ValueError:
            raise S3Error("IncompleteBody", "The aws-chunked body has a malformed chunk header.") from None
        if left == 0:
            break
        while left:
            piece = await content.read(min(left, CHUNK_BYTES))
            if not piece:
                raise S3Error("IncompleteBody", "The aws-chunked body ended inside a chunk.")
            left -= len(piece)
            yield piece
        await content.readexactly(2)
    while line := (await content.readline()).strip():
        name, _, value = line.decode("latin-1").partition(":")
        trailers[name.strip().lower()] = value.strip()
