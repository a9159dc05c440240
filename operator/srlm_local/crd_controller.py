"""What becomes of custom resources when their definition is deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from srlm_local.custom import CLEANUP, CRDS, types_of
from srlm_local.request import Request

if TYPE_CHECKING:
    from srlm_local.cluster import Cluster

Object = dict[str, Any]


class CrdController:
    """Deletes the instances of a terminating definition, then lets it go."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def run(self) -> None:
        storage = self._cluster.storage
        watcher = storage.watcher(storage.version)
        try:
            self.sync()
            while True:
                await watcher.wait()
                if watcher.poll():
                    self.sync()
        finally:
            watcher.close()

    def sync(self) -> None:
        """One round over all definitions. Safe to repeat."""
        for crd in self._cluster.list(CRDS):
            if "deletionTimestamp" in crd["metadata"] and CLEANUP in (crd["metadata"].get("finalizers") or []):
                self._clean(crd)

    def _clean(self, crd: Object) -> None:
        cluster = self._cluster
        rt = types_of(crd)[0]
        self._terminating(crd, "InstanceDeletionInProgress", "CustomResource deletion is in progress")
        for obj in cluster.storage.list(rt.storage):
            meta = obj["metadata"]
            if "deletionTimestamp" not in meta:
                cluster.delete(rt, meta["name"], meta.get("namespace", ""), propagation="Background")
        if cluster.storage.list(rt.storage):
            return
        left = [name for name in crd["metadata"]["finalizers"] if name != CLEANUP]
        cluster.patch(CRDS, crd["metadata"]["name"], {"metadata": {"finalizers": left or None}})

    def _terminating(self, crd: Object, reason: str, message: str) -> None:
        conditions = crd["status"]["conditions"]
        have = next((c for c in conditions if c["type"] == "Terminating"), None)
        if have is not None and have["reason"] == reason:
            return
        made = {"type": "Terminating", "status": "True", "lastTransitionTime": self._cluster.timestamp(),
                "reason": reason, "message": message}
        crd["status"]["conditions"] = [*(c for c in conditions if c["type"] != "Terminating"), made]
        self._cluster.write(self._cluster.type_of(CRDS), crd, Request())
