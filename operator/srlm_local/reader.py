"""Reading the cluster in process: objects, lists and watches. `cluster.Cluster` adds the writes."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from typing import Any

from srlm_local import errors
from srlm_local.clock import Clock, SystemClock, to_seconds
from srlm_local.jsontools import copy
from srlm_local.request import Request
from srlm_local.resources import Registry, ResourceType
from srlm_local.selectors import Predicate, both, field_selector, label_selector
from srlm_local.storage import Change, Object, Objects, Storage
from srlm_local.strategies import strategy_for
from srlm_local.strategy import Strategy


class Reader:
    """See `cluster.Cluster`."""

    def __init__(self, *, clock: Clock | None = None, storage: Storage | None = None, seed: int | None = None) -> None:
        self.clock: Clock = clock or SystemClock()
        self.storage = storage or Storage()
        self.registry = Registry()
        self.random = random.Random(seed)  # noqa: S311 - names and UIDs need not be secret
        self.log_reader: Callable[[Object, dict[str, str]], Any] | None = None
        """Set by the pod runner: (pod, query) -> text or an async iterator of bytes; serves pods/log."""
        self.webhooks: list[Callable[[ResourceType, Object, Request], None]] = []
        """Stand-ins for admission webhooks: called with every new object, they raise ApiError to refuse it."""

    def type_of(self, resource: str | ResourceType) -> ResourceType:
        return resource if isinstance(resource, ResourceType) else self.registry.named(resource)

    def strategy(self, rt: ResourceType) -> Strategy:
        return strategy_for(rt)

    def get(self, resource: str | ResourceType, name: str, namespace: str = "") -> Object:
        """A copy of the object. Raises ApiError 404."""
        return copy(self._stored(self.type_of(resource), namespace, name))

    def find(self, resource: str | ResourceType, name: str, namespace: str = "") -> Object | None:
        """As `get`, but None if there is no such object."""
        rt = self.type_of(resource)
        found = self.storage.get(rt.storage, namespace if rt.namespaced else "", name)
        return None if found is None else copy(found)

    def list(
        self,
        resource: str | ResourceType,
        namespace: str | None = None,
        *,
        labels: str = "",
        fields: str = "",
    ) -> Objects:
        """Copies of all objects that match, ordered by namespace and name; of all namespaces if None."""
        rt = self.type_of(resource)
        match = self.predicate(rt, labels, fields)
        return [copy(obj) for obj in self.storage.list(rt.storage, namespace or None) if match(obj)]

    @property
    def version(self) -> int:
        """The newest resourceVersion: `list` and then `watch(since=version)`, without awaiting in between."""
        return self.storage.version

    def timestamp(self) -> str:
        """The time as it is written into objects."""
        return to_seconds(self.clock.now())

    def predicate(self, rt: ResourceType, labels: str = "", fields: str = "") -> Predicate:
        extra = tuple(f["jsonPath"].lstrip(".") for f in (rt.crd or {}).get("selectableFields", ()))
        return both(
            label_selector(labels) if labels else None,
            field_selector(fields, rt.name, extra) if fields else None,
        )

    async def watch(
        self,
        resource: str | ResourceType,
        namespace: str | None = None,
        *,
        since: int | None = None,
        labels: str = "",
        fields: str = "",
    ) -> AsyncIterator[tuple[str, Object]]:
        """(type, object) for every change after `since`; None begins with everything there is as ADDED.

        With selectors, an object that begins to match is ADDED and one that no longer does is DELETED.
        Raises ApiError 410 if `since` is too old. Ends only by cancellation or `aclose`.
        """
        rt = self.type_of(resource)
        match = self.predicate(rt, labels, fields)
        watcher = self.storage.watcher(self.storage.version if since is None else since)
        try:
            if since is None:
                for obj in self.list(rt, namespace, labels=labels, fields=fields):
                    yield "ADDED", obj
            while True:
                for change in watcher.poll():
                    if seen := seen_as(change, rt, namespace, match):
                        yield seen[0], copy(seen[1])
                await watcher.wait()
        finally:
            watcher.close()

    def _stored(self, rt: ResourceType, namespace: str, name: str) -> Object:
        found = self.storage.get(rt.storage, namespace if rt.namespaced else "", name)
        if found is None:
            raise errors.not_found(rt.plural, rt.group, name)
        return found


def seen_as(change: Change, rt: ResourceType, namespace: str | None, match: Predicate) -> tuple[str, Object] | None:
    """What a watch with this namespace and selector sees of a change: (type, object) or nothing."""
    if change.resource != rt.storage or (namespace and change.namespace != namespace):
        return None
    before = change.previous is not None and match(change.previous)
    if change.type == "DELETED":
        return ("DELETED", change.object) if before else None
    now = match(change.object)
    if now:
        return ("MODIFIED" if before else "ADDED"), change.object
    if before and change.previous is not None:
        version = change.object["metadata"]["resourceVersion"]
        last = {**change.previous, "metadata": {**change.previous["metadata"], "resourceVersion": version}}
        return "DELETED", last
    return None
