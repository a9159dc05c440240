"""Persistence: every write is appended to a file before anyone sees it; a restart reads it back.

    journal = Journal.open(folder, cluster)     # restores what is there, then follows all writes
    journal.close()

    folder/snapshot.json     {"version": 812, "objects": [[resource, namespace, name, object], ...]}
    folder/journal.jsonl     one write a line: CRC-32 of the rest, a space, {"v", "r", "s", "n", "o"}
                             ("o", the object, is null for a removal)

A line that a crash cut short is dropped: its write had been acknowledged to nobody, as the answer is sent only
after the line is written. Lines survive the death of the process, and with fsync=True a power failure too.
A new snapshot is written beside the old one and renamed, so at any instant one of them is whole; journal lines
that it already contains are recognised by their version.
"""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path
from typing import Any

from srlm_local.store.cluster import Cluster
from srlm_local.store.storage import Change

Object = dict[str, Any]
COMPACT_AFTER_BYTES = 16 * 1024 * 1024
VERSIONS_SKIPPED = 1000
"""A restart jumps ahead by so many versions, so that none that was lost with a power failure is given twice."""


class JournalDamaged(Exception):
    """The files cannot be read back; the message names the file, the line and what to do."""


class Journal:
    """The open journal of one cluster."""

    def __init__(self, folder: Path, cluster: Cluster, *, fsync: bool = False) -> None:
        self._snapshot, self._path = folder / "snapshot.json", folder / "journal.jsonl"
        self._cluster = cluster
        self._fsync = fsync
        self._size = 0
        self._file = -1

    @classmethod
    def open(cls, folder: Path, cluster: Cluster, *, fsync: bool = False) -> Journal:
        """Restores `cluster` from `folder` (made if missing) and keeps writing there. Raises JournalDamaged."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        journal = cls(folder, cluster, fsync=fsync)
        restored = journal._restore()
        # Objects hold Secrets: the files are for their owner only.
        journal._file = os.open(journal._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        journal._size = os.fstat(journal._file).st_size
        if restored:
            journal.compact()
        cluster.storage.hooks.append(journal._write)
        return journal

    def close(self) -> None:
        """Stops following the cluster."""
        if self._file >= 0:
            self._cluster.storage.hooks.remove(self._write)
            os.close(self._file)
            self._file = -1

    def _write(self, change: Change) -> None:
        record = {
            "v": change.version,
            "r": change.resource,
            "s": change.namespace,
            "n": change.name,
            "o": None if change.type == "DELETED" else change.object,
        }
        text = json.dumps(record, separators=(",", ":"), ensure_ascii=False).encode()
        line = b"%08x %b\n" % (zlib.crc32(text), text)
        written = 0
        while written < len(line):
            written += os.write(self._file, line[written:])
        if self._fsync:
            os.fdatasync(self._file)
        self._size += len(line)
        if self._size > COMPACT_AFTER_BYTES:
            # The hook runs before the write is applied: the snapshot lacks it, and the new journal must have it.
            self.compact()
            os.write(self._file, line)
            self._size += len(line)

    def compact(self) -> None:
        """Replaces the snapshot by one of now and empties the journal."""
        storage = self._cluster.storage
        objects = [
            [resource, obj["metadata"].get("namespace", ""), obj["metadata"]["name"], obj]
            for resource in storage.resources()
            for obj in storage.list(resource)
        ]
        fresh = self._snapshot.with_suffix(".new")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump({"version": storage.version, "objects": objects}, file, separators=(",", ":"))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._snapshot)
        os.ftruncate(self._file, 0)
        self._size = 0

    def _restore(self) -> bool:
        """Reads both files into the cluster; False if there was nothing."""
        version, objects = self._read_snapshot()
        for record in self._read_lines():
            if record["v"] <= version:
                continue
            version = record["v"]
            key = (record["r"], record["s"], record["n"])
            if record["o"] is None:
                objects.pop(key, None)
            else:
                objects[key] = record["o"]
        if version == 0:
            return False
        cluster = self._cluster
        cluster.storage.restore(version + VERSIONS_SKIPPED, [(*key, obj) for key, obj in objects.items()])
        for rt in cluster.registry.all():
            for obj in cluster.storage.list(rt.name):
                rt.rules.after(cluster, obj, None)
        return True

    def _read_snapshot(self) -> tuple[int, dict[tuple[str, str, str], Object]]:
        if not self._snapshot.exists():
            return 0, {}
        try:
            found = json.loads(self._snapshot.read_text(encoding="utf-8"))
            return int(found["version"]), {(r, s, n): obj for r, s, n, obj in found["objects"]}
        except (ValueError, KeyError, TypeError) as error:
            raise JournalDamaged(
                f"{self._snapshot} cannot be read ({error}); remove its folder to begin with an empty cluster"
            ) from error

    def _read_lines(self) -> list[Object]:
        if not self._path.exists():
            return []
        records: list[Object] = []
        data = self._path.read_bytes()
        lines = data.split(b"\n")
        good = 0
        for number, line in enumerate(lines, 1):
            if number == len(lines) and not line:
                break
            record = _parse(line) if number < len(lines) else None
            if record is None:
                if number < len(lines) - 1:
                    raise JournalDamaged(
                        f"line {number} of {self._path} is damaged, but lines follow it; restore the file or remove "
                        "its folder to begin with an empty cluster"
                    )
                os.truncate(self._path, good)
                break
            records.append(record)
            good += len(line) + 1
        return records


def _parse(line: bytes) -> Object | None:
    """The record of a line; None if the line is not whole."""
    checksum, _, text = line.partition(b" ")
    try:
        if int(checksum, 16) != zlib.crc32(text):
            return None
        record: Object = json.loads(text)
    except ValueError:
        return None
    return record
