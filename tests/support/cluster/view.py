"""What a test sees of its namespace: all objects as watches tell them, and everything that ever happened."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest

from srlm_operator.cluster.client import EVENTS, JOBS, PODS, RUNS, SERVICES, Resource
from support.cluster.admin import Admin, Object

LIMIT_SECONDS = 90
KINDS = {"runs": RUNS, "jobs": JOBS, "pods": PODS, "services": SERVICES, "events": EVENTS}


@dataclass(frozen=True)
class Change:
    """One event of a watch: ADDED, MODIFIED or DELETED."""

    kind: str
    type: str
    object: Object


@dataclass
class View:
    """Objects by kind and name. `history` begins when the view starts."""

    admin: Admin
    namespace: str
    kinds: Mapping[str, Resource] = field(default_factory=lambda: KINDS)
    objects: dict[str, dict[str, Object]] = field(default_factory=dict)
    history: list[Change] = field(default_factory=list)
    looks: int = 0
    """Grows with everything that may be a reason to look again."""
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def start(self) -> None:
        for kind, resource in self.kinds.items():
            listing = await self.admin.list(resource, self.namespace)
            self.objects[kind] = {obj["metadata"]["name"]: obj for obj in listing.items}
            follow = self._follow(kind, resource, listing.resource_version)
            self._tasks.append(asyncio.create_task(follow, name=f"view of {kind}"))

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def poke(self) -> None:
        """Look again, although nothing may have changed in the cluster."""
        self.looks += 1
        async with self._changed:
            self._changed.notify_all()

    async def change(self, since: int) -> None:
        """Wait until there is more to look at than at `looks` of then."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.looks > since)

    async def until(self, what: Callable[[], Any], seconds: float = LIMIT_SECONDS) -> Any:
        """Wait until `what` gives something true after some change."""
        try:
            async with asyncio.timeout(seconds), self._changed:
                while not (found := what()):
                    for task in self._tasks:
                        if task.done():
                            task.result()
                    await self._changed.wait()
                return found
        except TimeoutError:
            pytest.fail(f"not reached in {seconds} s\n{self.describe()}")

    def describe(self) -> str:
        """Runs, Jobs and pods in a few lines, for a test that failed."""
        found = [(kind, name, obj) for kind, objects in self.objects.items() for name, obj in objects.items()]
        return "\n".join(f"{kind} {name}: {json.dumps(obj.get('status', {}))[-3000:]}" for kind, name, obj in found)

    def added(self, kind: str) -> list[str]:
        """Names of all objects that were ever created."""
        return [c.object["metadata"]["name"] for c in self.history if (c.kind, c.type) == (kind, "ADDED")]

    async def _follow(self, kind: str, resource: Resource, version: str) -> None:
        while True:
            try:
                async for event in self.admin.watch(resource, self.namespace, version):
                    obj = event["object"]
                    if event["type"] == "ERROR":
                        # A server that took up another definition does not know what was before.
                        if obj.get("code") != 410:
                            raise RuntimeError(f"watch of {kind} ended: {obj.get('message')}")
                        version = await self._list_again(kind, resource)
                        break
                    version = obj["metadata"]["resourceVersion"]
                    if event["type"] != "BOOKMARK":
                        await self._take(Change(kind, event["type"], obj))
            except (aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError):
                continue  # a server may end watches at any time, as when a definition changes

    async def _list_again(self, kind: str, resource: Resource) -> str:
        """Take what a watch has missed, of each object its last version. Returns the version to go on from."""
        listing = await self.admin.list(resource, self.namespace)
        found = {obj["metadata"]["name"]: obj for obj in listing.items}
        for name, old in list(self.objects[kind].items()):
            if name not in found or found[name]["metadata"]["uid"] != old["metadata"]["uid"]:
                await self._take(Change(kind, "DELETED", old))
        for name, obj in found.items():
            known = self.objects[kind].get(name)
            if known is None:
                await self._take(Change(kind, "ADDED", obj))
            elif known["metadata"]["resourceVersion"] != obj["metadata"]["resourceVersion"]:
                await self._take(Change(kind, "MODIFIED", obj))
        return listing.resource_version

    async def _take(self, change: Change) -> None:
        name = change.object["metadata"]["name"]
        if change.type == "DELETED":
            self.objects[change.kind].pop(name, None)
        else:
            self.objects[change.kind][name] = change.object
        self.history.append(change)
        await self.poke()


@asynccontextmanager
async def viewing(admin: Admin, namespace: str, kinds: Mapping[str, Resource] = KINDS) -> AsyncIterator[View]:
    """A view of a namespace, or of cluster-scoped kinds (empty namespace)."""
    view = View(admin, namespace, kinds)
    await view.start()
    try:
        yield view
    finally:
        await view.stop()
