"""Models on the node, by content digest, on a volume that outlives the pod.

    <root>/<digest>/files/...        the model
    <root>/<digest>/complete.json    sizes and times of its files
    <root>/<digest>.lock             held shared by readers, exclusively by whoever fills or evicts

Safe to share between pods and to delete at any time: an entry appears by rename once it is whole, and one
whose files changed since is fetched again. When it would grow beyond its bound, the entries used least
recently go, except those in use.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from srlm_contract.errors import InvalidArtifact

_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


class ModelCache:
    """Models by content digest below `root`, at most about `max_bytes` of them."""

    def __init__(self, root: Path, max_bytes: int) -> None:
        self.root = root
        self.max_bytes = max_bytes

    @contextmanager
    def get(self, content_digest: str, fill: Callable[[Path], None]) -> Iterator[Path]:
        """Folder of the model with this digest; `fill(folder)` writes it when it is not there yet.

        It stays while the `with` block runs, also in other processes' eyes. When the volume is full after
        everything unused has gone, OSError (ENOSPC) is raised.
        """
        match = _DIGEST.fullmatch(content_digest)
        if not match:
            raise InvalidArtifact(f"{content_digest!r} is no content digest; write sha256:<64 hex digits>")
        entry = self.root / match[1]
        self.root.mkdir(parents=True, exist_ok=True)
        while True:
            # Readers share the lock: a pod that waits for others must not keep them from their model.
            with self._locked(entry, fcntl.LOCK_SH):
                if _complete(entry):
                    os.utime(entry / "complete.json")
                    yield entry / "files"
                    return
            # Between the two locks another process may have filled it, and before the next look one may evict it.
            with self._locked(entry, fcntl.LOCK_EX):
                if not _complete(entry):
                    self._fill(entry, fill)

    def size(self) -> int:
        """Bytes of all complete entries."""
        return sum(_entry_bytes(entry) for entry in self._entries())

    def evict(self, keep: Path | None = None, limit: int | None = None) -> None:
        """Removes entries used least recently until `limit` (max_bytes) is met; those in use stay."""
        limit = self.max_bytes if limit is None else limit
        total = self.size()
        for entry in self._entries():
            if total <= limit:
                return
            if entry == keep:
                continue
            size = _entry_bytes(entry)
            try:
                with self._locked(entry, fcntl.LOCK_EX | fcntl.LOCK_NB):
                    _remove(entry)
            except BlockingIOError:
                continue
            total -= size

    def _fill(self, entry: Path, fill: Callable[[Path], None]) -> None:
        _remove(entry)
        self._sweep()
        try:
            self._write(entry, fill)
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
                raise
            self.evict(keep=entry, limit=0)
            self._write(entry, fill)
        self.evict(keep=entry)

    def _write(self, entry: Path, fill: Callable[[Path], None]) -> None:
        new = self.root / f"{entry.name}.{uuid.uuid4().hex}.new"
        try:
            (new / "files").mkdir(parents=True)
            fill(new / "files")
            (new / "complete.json").write_text(json.dumps(_fingerprint(new / "files")))
            new.rename(entry)
        finally:
            shutil.rmtree(new, ignore_errors=True)

    def _entries(self) -> list[Path]:
        """Complete entries, least recently used first."""
        found = []
        for entry in self.root.glob("?" * 64):
            try:
                found.append(((entry / "complete.json").stat().st_mtime_ns, entry))
            except FileNotFoundError:
                continue
        return [entry for _, entry in sorted(found)]

    def _sweep(self) -> None:
        """Removes what a killed process left half written: nobody holds the lock of its entry."""
        for left in (*self.root.glob("*.new"), *self.root.glob("*.gone")):
            entry = self.root / left.name.split(".")[0]
            try:
                with self._locked(entry, fcntl.LOCK_EX | fcntl.LOCK_NB):
                    shutil.rmtree(left, ignore_errors=True)
            except BlockingIOError:
                continue

    @contextmanager
    def _locked(self, entry: Path, kind: int) -> Iterator[None]:
        """Holds `<entry>.lock`. Raises BlockingIOError with LOCK_NB when somebody else does."""
        path = entry.with_suffix(".lock")
        while True:
            self.root.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(handle, kind)
                if not _same_file(handle, path):
                    # Somebody deleted the cache meanwhile: this lock guards nothing any more.
                    continue
                yield
                return
            finally:
                os.close(handle)


def _same_file(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _fingerprint(folder: Path) -> dict[str, list[int]]:
    """Size and modification time of every file: a change since the fetch shows without reading it all."""
    files = sorted(path for path in folder.rglob("*") if path.is_symlink() or path.is_file())
    return {p.relative_to(folder).as_posix(): [p.lstat().st_size, p.lstat().st_mtime_ns] for p in files}


def _complete(entry: Path) -> bool:
    try:
        return bool(json.loads((entry / "complete.json").read_text()) == _fingerprint(entry / "files"))
    except (FileNotFoundError, ValueError):
        return False


def _entry_bytes(entry: Path) -> int:
    try:
        return sum(size for size, _ in json.loads((entry / "complete.json").read_text()).values())
    except (FileNotFoundError, ValueError):
        return 0


def _remove(entry: Path) -> None:
    """Renames first, so that nobody sees half an entry."""
    gone = entry.with_suffix(f".{uuid.uuid4().hex}.gone")
    try:
        entry.rename(gone)
    except FileNotFoundError:
        return
    shutil.rmtree(gone, ignore_errors=True)
