"""Receives a request body into a file: bounded memory, digests checked on the way, aws-chunked undone.

moto reads bodies into memory and leaves the digests that come with them unchecked.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from moto.s3.exceptions import S3ClientError

from srlm_local.s3.disk import PIECE_BYTES, FileValue, Segment

UNSIGNED = {"UNSIGNED-PAYLOAD", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"}


def is_chunked(headers: Mapping[str, str]) -> bool:
    """Whether the body is aws-chunked."""
    return headers.get("x-amz-content-sha256", "").startswith("STREAMING-")


def receive(stream: IO[bytes], headers: Mapping[str, str], path: Path) -> tuple[FileValue, dict[str, str]]:
    """Writes the body to `path`: (value, trailers by lower-case name).

    Raises S3ClientError and removes the file when the body is short or a digest differs.
    """
    try:
        return _receive(stream, headers, path)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _receive(stream: IO[bytes], headers: Mapping[str, str], path: Path) -> tuple[FileValue, dict[str, str]]:
    declared = headers.get("x-amz-content-sha256", "UNSIGNED-PAYLOAD")
    trailers: dict[str, str] = {}
    chunked = is_chunked(headers)
    length = headers.get("x-amz-decoded-content-length") if chunked else headers.get("Content-Length")
    pieces = _dechunked(stream, trailers) if chunked else _pieces(stream, int(length or 0))
    crc32_wanted = "x-amz-checksum-crc32" in headers or "crc32" in headers.get("x-amz-trailer", "")
    sha256_wanted = declared not in UNSIGNED or "sha256" in headers.get("x-amz-trailer", "")
    sha256_wanted = sha256_wanted or "x-amz-checksum-sha256" in headers
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    crc32 = size = 0
    with path.open("wb") as file:
        for piece in pieces:
            file.write(piece)
            size += len(piece)
            md5.update(piece)
            if sha256_wanted:
                sha256.update(piece)
            if crc32_wanted:
                crc32 = zlib.crc32(piece, crc32)
    if size != int(length or 0):
        raise S3ClientError("IncompleteBody", f"{size} bytes arrived of the {length} announced.")
    if not chunked and declared not in UNSIGNED and sha256.hexdigest() != declared:
        raise S3ClientError(
            "XAmzContentSHA256Mismatch", "The 'x-amz-content-sha256' header does not match what was computed."
        )
    computed = {
        "Content-MD5": md5.digest(),
        "x-amz-checksum-crc32": crc32.to_bytes(4, "big"),
        "x-amz-checksum-sha256": sha256.digest(),
    }
    for name, digest in computed.items():
        expected = trailers.get(name) or headers.get(name)
        if expected is not None and expected != base64.b64encode(digest).decode():
            raise S3ClientError("BadDigest", f"The {name} you specified did not match what we received.")
    return FileValue([Segment(path, 0, size)], md5=md5.hexdigest(), spare=True), trailers


def _pieces(stream: IO[bytes], left: int) -> Iterator[bytes]:
    while left and (piece := stream.read(min(left, PIECE_BYTES))):
        left -= len(piece)
        yield piece


def _dechunked(stream: IO[bytes], trailers: dict[str, str]) -> Iterator[bytes]:
    """Undoes aws-chunked: `<hex size>[;chunk-signature=...]CRLF bytes CRLF`, a chunk of 0, trailer lines."""
    while True:
        header = stream.readline(1024).split(b";")[0].strip()
        try:
            size = int(header, 16)
        except ValueError:
            raise S3ClientError("IncompleteBody", "The aws-chunked body has a malformed chunk.") from None
        if size <= 0:
            break
        yield from _pieces(stream, size)
        stream.read(2)
    while line := stream.readline(8192).strip():
        name, _, value = line.decode("latin-1").partition(":")
        trailers[name.strip().lower()] = value.strip()
