"""A store in a dictionary: what the contract tests of real stores pass, at once and open to tampering."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from srlm_contract.artifacts.store import Blob, FileDigest, ObjectInfo, Probe, run_probe
from srlm_contract.errors import NotFound, PreconditionFailed


class MemoryStore:
    """A store in a dictionary. `objects` may be tampered with."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.uploads: dict[str, datetime] = {}
        """Unfinished uploads by key."""
        self._modified: dict[str, datetime] = {}
        self._lock = threading.Lock()

    def uri(self, key: str) -> str:
        return f"memory://{key}"

    def head(self, key: str) -> ObjectInfo | None:
        data = self.objects.get(key)
        return None if data is None else self._info(key, data)

    def get(self, key: str) -> Blob:
        data = self.objects.get(key)
        if data is None:
            raise NotFound(f"{self.uri(key)} does not exist")
        return Blob(data, self._info(key, data))

    def get_range(self, key: str, start: int, length: int) -> bytes:
        return self.get(key).data[start : start + length]

    def put(self, key: str, data: bytes, *, if_none_match: bool = False, if_match: str | None = None) -> ObjectInfo:
        with self._lock:
            old = self.objects.get(key)
            if if_none_match and old is not None:
                raise PreconditionFailed(f"{self.uri(key)} exists already")
            if if_match is not None and (old is None or _etag(old) != if_match):
                raise PreconditionFailed(f"{self.uri(key)} changed since it was read")
            self.objects[key] = bytes(data)
            self._modified[key] = datetime.now(UTC)
        return self._info(key, data)

    def upload_file(self, path: Path, key: str, *, if_none_match: bool = False) -> FileDigest:
        data = path.read_bytes()
        self.put(key, data, if_none_match=if_none_match)
        return FileDigest(len(data), hashlib.sha256(data).hexdigest())

    def download_file(self, key: str, path: Path) -> FileDigest:
        data = self.get(key).data
        path.write_bytes(data)
        return FileDigest(len(data), hashlib.sha256(data).hexdigest())

    def list_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        for key, data in sorted(self.objects.items()):
            if key.startswith(prefix):
                yield self._info(key, data)

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            self.objects.pop(key, None)

    def abort_uploads(self, prefix: str, older_than: datetime) -> int:
        old = [k for k, begun in self.uploads.items() if k.startswith(prefix) and begun < older_than]
        for key in old:
            del self.uploads[key]
        return len(old)

    def probe(self) -> Probe:
        return run_probe(
            self,
            lambda key, data, etag, form: self.put(key, data, if_none_match=etag is None, if_match=etag),
        )

    def _info(self, key: str, data: bytes) -> ObjectInfo:
        return ObjectInfo(key, len(data), _etag(data), self._modified.get(key, datetime.now(UTC)))


def _etag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]
