"""Garbage collection: dependents follow their owners, in the background, in the foreground, or not at all."""

from __future__ import annotations

import logging
from typing import Any

from srlm_local.store.cluster import Cluster
from srlm_local.store.deletion import FOREGROUND, ORPHAN
from srlm_local.store.errors import ApiError
from srlm_local.store.resources import ResourceType
from srlm_local.store.storage import Change, keep

Object = dict[str, Any]
log = logging.getLogger(__name__)


class GarbageCollector:
    """Looks at every object after every burst of changes: simple, and fast enough for one machine."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def run(self) -> None:
        await keep(self._cluster.storage, _matters, self.settle)

    def settle(self) -> None:
        """Repeats rounds until nothing changes any more."""
        before = -1
        while before != self._cluster.version:
            before = self._cluster.version
            try:
                self._round()
            except ApiError as error:
                log.warning("garbage collection: %s", error)
                return

    def _round(self) -> None:
        cluster = self._cluster
        objects = [(rt, obj) for rt in cluster.registry.stored() for obj in cluster.storage.list(rt.name)]
        alive = {obj["metadata"]["uid"]: obj for _, obj in objects}
        dependents: dict[str, list[tuple[ResourceType, Object]]] = {}
        for rt, obj in objects:
            for owner in obj["metadata"].get("ownerReferences") or []:
                dependents.setdefault(owner["uid"], []).append((rt, obj))
        for rt, obj in objects:
            meta = obj["metadata"]
            if "deletionTimestamp" in meta:
                finalizers = meta.get("finalizers") or []
                if ORPHAN in finalizers:
                    self._orphan(rt, obj, dependents.get(meta["uid"], []))
                elif FOREGROUND in finalizers:
                    self._foreground(rt, obj, dependents.get(meta["uid"], []))
            elif meta.get("ownerReferences"):
                self._collect(rt, obj, alive)

    def _orphan(self, rt: ResourceType, owner: Object, dependents: list[tuple[ResourceType, Object]]) -> None:
        uid = owner["metadata"]["uid"]
        for kind, dependent in dependents:
            references = [r for r in dependent["metadata"]["ownerReferences"] if r["uid"] != uid]
            self._patch(kind, dependent, {"ownerReferences": references or None})
        self._drop_finalizer(rt, owner, ORPHAN)

    def _foreground(self, rt: ResourceType, owner: Object, dependents: list[tuple[ResourceType, Object]]) -> None:
        uid = owner["metadata"]["uid"]
        blocking = False
        for kind, dependent in dependents:
            reference = next(r for r in dependent["metadata"]["ownerReferences"] if r["uid"] == uid)
            blocking |= bool(reference.get("blockOwnerDeletion"))
            if "deletionTimestamp" not in dependent["metadata"]:
                self._delete(kind, dependent, "Foreground")
        if not blocking:
            self._drop_finalizer(rt, owner, FOREGROUND)

    def _collect(self, rt: ResourceType, obj: Object, alive: dict[str, Object]) -> None:
        """Deletes what has no owner left; references to owners that are gone are cut from what has others."""
        references = obj["metadata"]["ownerReferences"]
        solid = [r for r in references if self._exists(r, obj, alive)]
        if solid:
            if len(solid) < len(references):
                self._patch(rt, obj, {"ownerReferences": solid})
            return
        finalizers = obj["metadata"].get("finalizers") or []
        policy = "Orphan" if ORPHAN in finalizers else "Foreground" if FOREGROUND in finalizers else "Background"
        self._delete(rt, obj, policy)

    def _exists(self, reference: Object, obj: Object, alive: dict[str, Object]) -> bool:
        owner = alive.get(reference["uid"])
        if owner is None:
            return False
        namespace = owner["metadata"].get("namespace")
        # A namespaced owner counts only for its own namespace, and only under its own name and kind.
        return bool(
            (namespace is None or namespace == obj["metadata"].get("namespace"))
            and owner["metadata"]["name"] == reference["name"]
            and owner["kind"] == reference["kind"]
        )

    def _patch(self, rt: ResourceType, obj: Object, metadata: Object) -> None:
        meta = obj["metadata"]
        patch = {"metadata": {"uid": meta["uid"], **metadata}}
        self._quietly(lambda: self._cluster.patch(rt, meta["name"], patch, meta.get("namespace", "")))

    def _drop_finalizer(self, rt: ResourceType, obj: Object, finalizer: str) -> None:
        left = [name for name in obj["metadata"]["finalizers"] if name != finalizer]
        self._patch(rt, obj, {"finalizers": left or None})

    def _delete(self, rt: ResourceType, obj: Object, policy: str) -> None:
        meta = obj["metadata"]
        self._quietly(
            lambda: self._cluster.delete(
                rt, meta["name"], meta.get("namespace", ""), propagation=policy, uid=meta["uid"]
            )
        )

    def _quietly(self, act: Any) -> None:
        """What changed since the round began is left to the next one."""
        try:
            act()
        except ApiError as error:
            if error.code not in (404, 409):
                raise


def _matters(change: Change) -> bool:
    """Whether a change can have consequences: something went, is going, or has got other owners."""
    meta = change.object["metadata"]
    if change.type == "DELETED" or "deletionTimestamp" in meta:
        return True
    before = change.previous["metadata"].get("ownerReferences") if change.previous else None
    return bool(meta.get("ownerReferences") != before)


class PodGarbageCollector:
    """Marks deleted pods that never had a node as Failed: nobody else would ever finish them."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def run(self) -> None:
        await keep(self._cluster.storage, lambda change: change.resource == "pods", self.sync)

    def sync(self) -> None:
        for pod in self._cluster.storage.list("pods"):
            lost = "deletionTimestamp" in pod["metadata"] and not pod["spec"].get("nodeName")
            if lost and pod["status"].get("phase") not in ("Succeeded", "Failed"):
                status = {**pod["status"], "phase": "Failed", "observedGeneration": pod["metadata"]["generation"]}
                self._cluster.write(self._cluster.type_of("pods"), {**pod, "status": status})
