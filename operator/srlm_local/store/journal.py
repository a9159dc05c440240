"""Persistence: every write is in an SQLite database before anyone sees it; a restart reads it back.

    journal = Journal.open(folder, cluster)     # restores what is there, then follows all writes
    journal.close()

A write that a crash cut short was acknowledged to nobody, and SQLite forgets it. Writes survive the death of the
process; after a power failure the last ones may be lost.
"""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path

from srlm_local.store.cluster import Cluster
from srlm_local.store.storage import Change

VERSIONS_SKIPPED = 1000
"""A restart jumps ahead by so many versions, so that none that was lost with a power failure is given twice."""
_SCHEMA = """
    PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;
    CREATE TABLE IF NOT EXISTS objects (resource, namespace, name, object, PRIMARY KEY (resource, namespace, name));
    CREATE TABLE IF NOT EXISTS version (version);
"""


class JournalDamaged(Exception):
    """The database cannot be read; the message names the file and says what to do."""


class Journal:
    """The open journal of one cluster."""

    def __init__(self, file: Path, cluster: Cluster) -> None:
        self._cluster = cluster
        self._database = sqlite3.connect(file, isolation_level=None)
        self._database.executescript(_SCHEMA)

    @classmethod
    def open(cls, folder: Path, cluster: Cluster) -> Journal:
        """Restores `cluster` from `folder` (made if missing) and keeps writing there. Raises JournalDamaged."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = folder / "objects.sqlite"
        # Objects hold Secrets: the file, and those that SQLite puts beside it, are for their owner only.
        os.close(os.open(file, os.O_WRONLY | os.O_CREAT, 0o600))
        try:
            journal = cls(file, cluster)
            journal._restore()
        except (sqlite3.DatabaseError, ValueError) as error:
            raise JournalDamaged(f"{file} cannot be read ({error}); remove its folder to begin anew") from error
        cluster.storage.hooks.append(journal._write)
        return journal

    def close(self) -> None:
        """Stops following the cluster."""
        if self._write in self._cluster.storage.hooks:
            self._cluster.storage.hooks.remove(self._write)
            self._database.close()

    def _write(self, change: Change) -> None:
        key = (change.resource, change.namespace, change.name)
        self._database.execute("BEGIN")
        if change.type == "DELETED":
            self._database.execute("DELETE FROM objects WHERE (resource, namespace, name) = (?, ?, ?)", key)
        else:
            text = json.dumps(change.object, separators=(",", ":"), ensure_ascii=False)
            self._database.execute("INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?)", (*key, text))
        self._database.execute("UPDATE version SET version = ?", (change.version,))
        self._database.execute("COMMIT")

    def _restore(self) -> None:
        """Reads everything into the cluster, unless there is nothing."""
        found = self._database.execute("SELECT version FROM version").fetchone()
        if found is None:
            self._database.execute("INSERT INTO version VALUES (0)")
            return
        rows = self._database.execute("SELECT * FROM objects").fetchall()
        cluster = self._cluster
        cluster.storage.restore(found[0] + VERSIONS_SKIPPED, [(*key, json.loads(text)) for *key, text in rows])
        for rt in cluster.registry.all():
            for obj in cluster.storage.list(rt.name):
                rt.rules.after(cluster, obj, None)
