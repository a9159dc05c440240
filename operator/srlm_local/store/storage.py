"""Objects with one version counter and a history: what etcd is to a real API server.

    storage = Storage(clock)
    change = storage.put("pods", "default", "a", obj)    # the next resourceVersion, an ADDED or MODIFIED
    storage.remove("pods", "default", "a")               # the next resourceVersion, a DELETED
    watcher = storage.watcher("pods", since=17)          # every change after version 17, none lost
    storage.hooks.append(journal.write)                  # called with each Change before anyone sees it

A resource is named as kubectl names it: `pods`, `jobs.batch`, `selfrewardingruns.selfrewarding.dev`.
Nothing here knows what an object means; `cluster.Cluster` does, and is what controllers use.
Objects in here are never changed in place: who takes one out must copy it before changing it.
Everything runs on one asyncio loop and no method that writes awaits, so every write is atomic.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from srlm_local.store.errors import expired

Object = dict[str, Any]
Objects = list[Object]
Key = tuple[str, str]
"""(namespace, name); the namespace of cluster-scoped objects is the empty string."""

FIRST_VERSION = 100
"""The counter starts here and not at 0, so that clients meet versions that are too old, as in real life."""


@dataclass(frozen=True)
class Change:
    """One write. `type` is ADDED, MODIFIED or DELETED; `previous` is what was there before."""

    version: int
    type: str
    resource: str
    namespace: str
    name: str
    object: Object
    previous: Object | None


class Storage:
    """All objects of the cluster."""

    def __init__(self, history_limit: int = 20_000) -> None:
        self.version = FIRST_VERSION
        self.hooks: list[Callable[[Change], None]] = []
        self._objects: dict[str, dict[Key, Object]] = {}
        self._history: list[Change] = []
        self._compacted = FIRST_VERSION
        self._history_limit = history_limit
        self._wakeups: dict[asyncio.Event, None] = {}
        """In the order they came, so that a test with a clock of its own sees the same each time."""

    def get(self, resource: str, namespace: str, name: str) -> Object | None:
        """The stored object itself (copy before changing) or None."""
        return self._objects.get(resource, {}).get((namespace, name))

    def list(self, resource: str, namespace: str | None = None) -> Objects:
        """Stored objects ordered by (namespace, name); of all namespaces if None."""
        found = self._objects.get(resource, {})
        return [found[key] for key in sorted(found) if namespace is None or key[0] == namespace]

    def list_at(self, resource: str, namespace: str | None, version: int) -> Objects:
        """The list as it was at an earlier version. Raises 410 if the history does not reach back so far."""
        changes = self.changes_since(version)
        found = dict(self._objects.get(resource, {}))
        for change in reversed(changes):
            if change.resource != resource:
                continue
            key = (change.namespace, change.name)
            if change.previous is None:
                found.pop(key, None)
            else:
                found[key] = change.previous
        return [found[key] for key in sorted(found) if namespace is None or key[0] == namespace]

    def put(self, resource: str, namespace: str, name: str, obj: Object) -> Object:
        """Writes under the next version, which is put into the object's metadata; returns what is stored."""
        previous = self.get(resource, namespace, name)
        version = self.version + 1
        stored = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(version)}}
        kind = "ADDED" if previous is None else "MODIFIED"
        self._commit(Change(version, kind, resource, namespace, name, stored, previous))
        return stored

    def remove(self, resource: str, namespace: str, name: str, last: Object | None = None) -> Object:
        """Removes an object; watchers see `last`, or what was stored, with the version of the removal."""
        previous = self._objects[resource][(namespace, name)]
        version = self.version + 1
        final = last or previous
        shown = {**final, "metadata": {**final["metadata"], "resourceVersion": str(version)}}
        self._commit(Change(version, "DELETED", resource, namespace, name, shown, previous))
        return shown

    def _commit(self, change: Change) -> None:
        for hook in self.hooks:
            hook(change)
        self._apply(change)
        self._history.append(change)
        if len(self._history) > self._history_limit:
            self.compact(self._history[len(self._history) // 2].version)
        for event in self._wakeups:
            event.set()

    def _apply(self, change: Change) -> None:
        objects = self._objects.setdefault(change.resource, {})
        key = (change.namespace, change.name)
        if change.type == "DELETED":
            objects.pop(key, None)
        else:
            objects[key] = change.object
        self.version = change.version

    def restore(self, version: int, objects: Sequence[tuple[str, str, str, Object]]) -> None:
        """Puts back (resource, namespace, name, object) as of `version`; the history before it is gone."""
        self._objects = {}
        for resource, namespace, name, obj in objects:
            self._objects.setdefault(resource, {})[(namespace, name)] = obj
        self.version = version
        self._history = []
        self._compacted = version

    def compact(self, version: int) -> None:
        """Forgets the history up to and including `version`; watches from before it get 410."""
        self._history = [change for change in self._history if change.version > version]
        self._compacted = max(self._compacted, version)

    def changes_since(self, version: int) -> Sequence[Change]:
        """All changes after `version`, in order. Raises 410 Expired if some of them are forgotten."""
        if version < self._compacted:
            raise expired(f"too old resource version: {version} ({self._compacted})")
        return self._history[bisect_right(self._history, version, key=lambda change: change.version) :]

    def watcher(self, since: int) -> Watcher:
        """Reads on from `since`; raises 410 at once if that is forgotten. Close it when done."""
        self.changes_since(since)
        return Watcher(self, since)

    def attach(self, event: asyncio.Event) -> None:
        """Has `event` set after every write."""
        self._wakeups[event] = None

    def detach(self, event: asyncio.Event) -> None:
        self._wakeups.pop(event, None)


class Watcher:
    """A position in the history. It keeps no queue of its own, so a slow reader costs no memory."""

    def __init__(self, storage: Storage, since: int) -> None:
        self.version = since
        self._storage = storage
        self._event = asyncio.Event()
        storage.attach(self._event)

    def poll(self) -> Sequence[Change]:
        """What happened since the last call; raises 410 if the reader was too slow and history was dropped."""
        self._event.clear()
        changes = self._storage.changes_since(self.version)
        self.version = max(self.version, self._storage.version)
        return changes

    async def wait(self, seconds: float | None = None) -> bool:
        """Returns True once there may be something to poll, False after so many `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        self._storage.detach(self._event)


async def keep(storage: Storage, matters: Callable[[Change], bool], act: Callable[[], object]) -> None:
    """Calls `act` now and after every burst of changes of which one matters, until cancelled: a controller's loop."""
    watcher = storage.watcher(storage.version)
    try:
        act()
        while True:
            await watcher.wait()
            if any(matters(change) for change in watcher.poll()):
                act()
    finally:
        watcher.close()
