"""Definitions are established when they are new, and their instances deleted when they go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from srlm_local.custom import CLEANUP, CRDS, types_of
from srlm_local.request import Request

if TYPE_CHECKING:
    from srlm_local.cluster import Cluster

Object = dict[str, Any]


class CrdController:
    """Accepts the names of new definitions; deletes the instances of terminating ones, then lets them go."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._waiting = False

    async def run(self) -> None:
        storage = self._cluster.storage
        watcher = storage.watcher(storage.version)
        try:
            self.sync()
            while True:
                await watcher.wait()
                # Instances matter only while a definition waits for them to go.
                if any(change.resource == CRDS or self._waiting for change in watcher.poll()):
                    self.sync()
        finally:
            watcher.close()

    def sync(self) -> None:
        """One round over all definitions. Safe to repeat."""
        self._waiting = any("deletionTimestamp" in crd["metadata"] for crd in self._cluster.storage.list(CRDS))
        for crd in self._cluster.list(CRDS):
            if "deletionTimestamp" in crd["metadata"] and CLEANUP in (crd["metadata"].get("finalizers") or []):
                self._clean(crd)
            elif not (crd["status"].get("conditions") or []):
                self._establish(crd)

    def _establish(self, crd: Object) -> None:
        now = self._cluster.timestamp()
        crd["status"]["conditions"] = [
            {
                "type": "NamesAccepted",
                "status": "True",
                "lastTransitionTime": now,
                "reason": "NoConflicts",
                "message": "no conflicts found",
            },
            {
                "type": "Established",
                "status": "True",
                "lastTransitionTime": now,
                "reason": "InitialNamesAccepted",
                "message": "the initial names have been accepted",
            },
        ]
        crd["status"]["acceptedNames"] = dict(crd["spec"]["names"])
        self._cluster.write(self._cluster.type_of(CRDS), crd, Request())

    def _clean(self, crd: Object) -> None:
        cluster = self._cluster
        rt = types_of({**crd, "status": {"acceptedNames": crd["spec"]["names"]}})[0]
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
        conditions = crd["status"].get("conditions") or []
        have = next((c for c in conditions if c["type"] == "Terminating"), None)
        if have is not None and have["reason"] == reason:
            return
        made = {
            "type": "Terminating",
            "status": "True",
            "lastTransitionTime": self._cluster.timestamp(),
            "reason": reason,
            "message": message,
        }
        crd["status"]["conditions"] = [*(c for c in conditions if c["type"] != "Terminating"), made]
        self._cluster.write(self._cluster.type_of(CRDS), crd, Request())
