"""moto's objects with their values in files: nothing here ever holds a whole value in memory.

moto keeps a value in a spooled temporary file, reads all of it for each (ranged) GET and joins the parts of
an upload in memory. `install` puts subclasses of its two classes in their place. An object of several
parts stays in the files of its parts, so joining them moves no bytes.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from moto.core.model_instances import model_data
from moto.s3 import models
from moto.s3.exceptions import EntityTooSmall, InvalidPart, InvalidPartOrder, MalformedXML
from moto.settings import S3_UPLOAD_PART_MIN_SIZE

PIECE_BYTES = 1024 * 1024


class Segment(NamedTuple):
    """The bytes [start, stop) of a file; files never change once written."""

    path: Path
    start: int
    stop: int


class FileValue:
    """Stands in for `bytes` where moto handles an object's value: length, slices, reading in pieces."""

    def __init__(self, segments: Iterable[Segment], *, md5: str | None = None, spare: bool = False) -> None:
        """md5: hex, if known. spare: the files belong to nobody, who stores them may keep them."""
        self.segments = list(segments)
        self.md5 = md5
        self.spare = spare

    def __len__(self) -> int:
        return sum(s.stop - s.start for s in self.segments)

    def __getitem__(self, part: slice) -> FileValue:
        first, last, _ = part.indices(len(self))
        found: list[Segment] = []
        for path, start, stop in self.segments:
            begin, end = start + max(first, 0), min(stop, start + last)
            if begin < end:
                found.append(Segment(path, begin, end))
            first, last = first - (stop - start), last - (stop - start)
        return FileValue(found)

    def open(self) -> Iterator[bytes]:
        """The bytes in pieces; the files are open when this returns, so removing them does no harm."""
        with ExitStack() as stack:
            files = [(stack.enter_context(s.path.open("rb")), s) for s in self.segments]
            held = stack.pop_all()

        def pieces() -> Iterator[bytes]:
            with held:
                for file, (_, start, stop) in files:
                    file.seek(start)
                    while start < stop:
                        piece = file.read(min(PIECE_BYTES, stop - start))
                        if not piece:
                            raise OSError(f"{file.name} is shorter than its record says")
                        start += len(piece)
                        yield piece

        return pieces()


class Disk:
    """The folder of all data files. `garbage` is removed by `sweep`, after the records no longer name it."""

    def __init__(self) -> None:
        self.folder = Path()
        self.garbage: list[Path] = []

    def new(self) -> Path:
        """A path for a new data file."""
        return self.folder / uuid.uuid4().hex

    def keep(self, value: FileValue | bytes) -> list[Segment]:
        """Files that hold `value` and belong to the caller alone; files in use get another name (link)."""
        if isinstance(value, bytes):
            path = self.new()
            path.write_bytes(value)
            value = FileValue([Segment(path, 0, len(value))], spare=True)
        if not value.spare:
            links = [(s, s._replace(path=self.new())) for s in value.segments]
            for segment, link in links:
                os.link(segment.path, link.path)
            return [link for _, link in links]
        value.spare = False
        return value.segments

    def drop(self, segments: Iterable[Segment]) -> None:
        """Marks files that their owner no longer needs."""
        self.garbage += [s.path for s in segments]

    def sweep(self) -> None:
        """Removes what was dropped."""
        while self.garbage:
            self.garbage.pop().unlink(missing_ok=True)


DISK = Disk()


class DiskKey(models.FakeKey):  # type: ignore[misc]
    """An object, or a part of an upload, whose value lies in files of its own."""

    _files: list[Segment]
    _etag: str | None
    disposed: bool

    @property
    def value(self) -> FileValue:
        return FileValue(self._files, md5=self._etag if self._etag and "-" not in self._etag else None)

    @value.setter
    def value(self, new_value: FileValue | bytes) -> None:
        DISK.drop(getattr(self, "_files", []))
        known = new_value.md5 if isinstance(new_value, FileValue) else None
        self._files = DISK.keep(new_value)
        self._etag = self._etag or known
        self.contentsize = sum(s.stop - s.start for s in self._files)

    @property
    def files(self) -> list[Segment]:
        """The files that hold the value, in order."""
        return self._files

    @property
    def etag(self) -> str:
        if self._etag is None:
            digest = hashlib.md5(usedforsecurity=False)
            for piece in FileValue(self._files).open():
                digest.update(piece)
            self._etag = digest.hexdigest()
        return f'"{self._etag}"'

    def dispose(self, garbage: bool = False) -> None:
        if not self.disposed:
            self._value_buffer.close()
            DISK.drop(self._files)
            self._files = []
        self.disposed = True

    def give_away(self) -> FileValue:
        """The value; its files no longer belong to this object."""
        given = FileValue(self._files, spare=True)
        self._files = []
        return given

    def __del__(self) -> None:
        """Nothing: moto would warn, and files of objects still stored must outlive the process."""


class DiskMultipart(models.FakeMultipart):  # type: ignore[misc]
    """An unfinished upload that remembers when it began and joins its parts without moving bytes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.initiated = datetime.now(UTC)

    def complete(self, body: Iterable[tuple[int, str]]) -> tuple[FileValue, str, None]:
        """(value, ETag, no checksum of the whole); the rules of moto's method, and the order of parts."""
        parts: list[DiskKey] = []
        for number, etag in body:
            part = self.parts.get(number)
            if part is None or part.etag.strip('"') != etag.strip('"'):
                raise InvalidPart()
            if parts and number <= int(parts[-1].name):
                raise InvalidPartOrder()
            if parts and parts[-1].size < S3_UPLOAD_PART_MIN_SIZE:
                raise EntityTooSmall()
            parts.append(part)
        if not parts:
            raise MalformedXML
        digests = b"".join(bytes.fromhex(part.etag.strip('"')) for part in parts)
        etag = hashlib.md5(digests, usedforsecurity=False).hexdigest()
        segments = [s for part in parts for s in part.give_away().segments]
        return FileValue(segments, spare=True), f"{etag}-{len(parts)}", None


def install(folder: Path) -> None:
    """Puts the classes in the place of moto's, for this process; data files go to `folder`."""
    DISK.folder = folder
    models.FakeKey, models.FakeMultipart = DiskKey, DiskMultipart
    for model in model_data["s3"].values():
        # moto lists every instance ever made, for its dashboard: with that, memory would only grow.
        model.instances_tracked = deque(maxlen=0)
