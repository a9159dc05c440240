"""Rows of a seed file, whatever it is packed in: JSON lines, a JSON array, Parquet, plain or compressed.

What a file is follows from its first bytes, never from its name. Text may be UTF-8, UTF-16 or UTF-32, with or
without a byte order mark.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import zlib
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, BinaryIO

Row = dict[str, Any]
Located = tuple[str, Row]
"""(where the row stands in its file, the row)."""

GZIP, ZSTD, PARQUET = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PAR1"
BYTE_ORDER_MARK = "\ufeff"
#: First bytes of what is not read, with what it is.
OTHER_KINDS = {
    b"PK\x03\x04": "a zip archive", b"BZh": "a bzip2 file", b"\xfd7zXZ\x00": "an xz file", b"ARROW1": "an Arrow file",
    b"\x80\x04": "a pickle", b"\x80\x05": "a pickle", b"SQLite format 3": "an SQLite data base", b"%PDF": "a PDF",
    b"version https://": "a pointer of Git LFS and not the file itself (git lfs pull)",
}  # fmt: skip
READABLE = "seedData must be JSON lines (one object a line), a JSON array of objects, or Parquet; plain, gzip or zstd"


class SeedDataError(ValueError):
    """The seed data cannot be used; the message names file, line and what to do."""


def read_rows(path: Path) -> Generator[Located, None, None]:
    """The rows of `path` in their order. Raises SeedDataError naming file and line."""
    with path.open("rb") as file:
        head = file.read(16)
    for magic, kind in OTHER_KINDS.items():
        if head.startswith(magic):
            raise SeedDataError(f"{path.name} is {kind}, which cannot be read; {READABLE}")
    if head.startswith(PARQUET):
        yield from _parquet_rows(path)
        return
    yield from _guarded(path, _json_rows(path, head))


def read_text(path: Path) -> str:
    """The whole text of a plain or compressed file, line ends as `\\n`. Raises SeedDataError."""
    with path.open("rb") as file:
        head = file.read(16)
    try:
        with _opened(path, head) as file:
            data = file.read()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise SeedDataError(f"{path.name} is a damaged gzip file ({error}); fetch it again") from error
    try:
        return data.decode(json.detect_encoding(data), "surrogatepass").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise _wrong_encoding(path, f"byte {error.start}", error) from error


def whole_rows(head: bytes, name: str) -> bytes | None:
    """The complete rows at the beginning of a file, as plain UTF-8; None where only a whole file can be read.

    head: the file's first bytes. Raises SeedDataError when there is no complete row among them.
    """
    if head.startswith((PARQUET, ZSTD)):
        return None
    if head.startswith(GZIP):
        try:
            head = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16).decompress(head)
        except zlib.error as error:
            raise SeedDataError(f"{name} is a damaged gzip file ({error}); fetch it again") from error
    text = head.decode(json.detect_encoding(head), "ignore")
    if text.lstrip().startswith("["):
        ends = [0]
        with contextlib.suppress(ValueError, RecursionError):  # cut in the middle of an element, as a beginning is
            ends.extend(end for _, _, end in _elements(text))
        rows, complete = text[: ends[-1]] + "]", ends[-1] > 0
    else:
        lines, newline, _ = text.rpartition("\n")
        rows, complete = lines + newline, bool(newline)
    if not complete:
        raise SeedDataError(f"{name} has no complete row in its first {len(head)} bytes; {READABLE}")
    return rows.encode("utf-8", "surrogatepass")


def _opened(path: Path, head: bytes) -> BinaryIO:
    if head.startswith(GZIP):
        return gzip.open(path, "rb")  # type: ignore[return-value]
    if head.startswith(ZSTD):
        import pyarrow

        packed = pyarrow.CompressedInputStream(pyarrow.OSFile(str(path), "rb"), "zstd")
        try:
            return io.BytesIO(packed.read())
        except OSError as error:
            raise SeedDataError(f"{path.name} is a damaged zstd file ({error}); fetch it again") from error
    return path.open("rb")


def _json_rows(path: Path, head: bytes) -> Iterator[Located]:
    with _opened(path, head) as file:
        start = file.read(4096)
        encoding = json.detect_encoding(start)
        array = start.decode(encoding, "ignore").lstrip().startswith("[")
        file.seek(0)
        yield from _array_rows(path, file, encoding) if array else _line_rows(path, file, encoding)


def _guarded(path: Path, rows: Iterator[Located]) -> Iterator[Located]:
    """`rows`, with damage of a compressed file told as such."""
    where = "its beginning"
    try:
        for where, row in rows:
            yield where, row
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise SeedDataError(f"{path.name} is a damaged gzip file after {where} ({error}); fetch it again") from error


def _line_rows(path: Path, file: BinaryIO, encoding: str) -> Iterator[Located]:
    """JSON lines. Lines are cut after decoding: in UTF-16 the byte of a line end is part of other characters too."""
    number = 0
    try:
        for number, line in enumerate(_lines(file, encoding), 1):
            line = line.lstrip(BYTE_ORDER_MARK)  # files put one after another have one in the middle
            if line.strip():
                yield f"line {number}", _object(_json(line, path, number), path, f"line {number}")
    except UnicodeDecodeError as error:
        raise _wrong_encoding(path, f"line {number + 1}", error) from error


def _lines(file: BinaryIO, encoding: str) -> Iterator[str]:
    if encoding.startswith("utf-8"):  # one by one, so that a wrong byte is found in its line
        for number, line in enumerate(file):
            yield line.decode("utf-8" if number else encoding, "surrogatepass")
        return
    with io.TextIOWrapper(file, encoding, errors="surrogatepass", newline="\n") as lines:
        yield from lines


def _json(line: str, path: Path, number: int) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise SeedDataError(f"{path.name} line {number} is not JSON ({error}); {READABLE}") from error


def _array_rows(path: Path, file: BinaryIO, encoding: str) -> Iterator[Located]:
    """The objects of a JSON array."""
    try:
        text = file.read().decode(encoding, "surrogatepass")
    except UnicodeDecodeError as error:
        raise _wrong_encoding(path, f"byte {error.start}", error) from error
    line, counted, number = 1, 0, 0
    try:
        for number, (start, value, _) in enumerate(_elements(text), 1):
            line += text.count("\n", counted, start)
            counted = start
            where = f"row {number} (line {line})"
            yield where, _object(value, path, where)
    except (json.JSONDecodeError, RecursionError) as error:
        raise SeedDataError(
            f"{path.name} is not a whole JSON array after row {number} ({error}); correct the file or fetch it again"
        ) from error


def _elements(text: str) -> Iterator[tuple[int, Any, int]]:
    """(start, value, end) of the elements of the JSON array `text` one by one. Raises json.JSONDecodeError."""
    decode = json.JSONDecoder().raw_decode
    place = _blank(text, text.index("[") + 1)
    if text[place : place + 1] == "]":
        return
    while True:
        value, end = decode(text, place)
        yield place, value, end
        place = _blank(text, end)
        if text[place : place + 1] == "]":
            after = _blank(text, place + 1)
            if after < len(text):  # as of two files put one after another
                raise json.JSONDecodeError("more after the end of the array", text, after)
            return
        if text[place : place + 1] != ",":
            raise json.JSONDecodeError("expecting ',' or ']'", text, place)
        place = _blank(text, place + 1)


def _blank(text: str, place: int) -> int:
    """Where the next character that is not white space stands."""
    while text[place : place + 1].isspace():
        place += 1
    return place


def _parquet_rows(path: Path) -> Iterator[Located]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise SeedDataError(
            f"{path.name} is Parquet, and this image has no pyarrow; use the image `light` or `cpu`, or JSON lines"
        ) from error
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield f"row {number}", row
    except (pyarrow.ArrowException, OSError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SeedDataError(
            f"{path.name} cannot be read as Parquet after row {number} ({first}); fetch it again"
        ) from error


def _object(value: Any, path: Path, where: str) -> Row:
    if not isinstance(value, dict):
        raise SeedDataError(f"{path.name} {where} is not a JSON object but {type(value).__name__}; {READABLE}")
    return value


def _wrong_encoding(path: Path, where: str, error: UnicodeDecodeError) -> SeedDataError:
    return SeedDataError(f"{path.name} {where} is not {error.encoding} text ({error.reason}); save the file as UTF-8")
