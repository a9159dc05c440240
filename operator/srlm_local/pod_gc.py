"""Pods that were deleted before they had a node: nobody else would ever finish them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from srlm_local.request import Request

if TYPE_CHECKING:
    from srlm_local.cluster import Cluster

Object = dict[str, Any]


class PodGarbageCollector:
    """Marks deleted pods without a node as Failed, so that controllers can let go of them."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def run(self) -> None:
        storage = self._cluster.storage
        watcher = storage.watcher(storage.version)
        try:
            self.sync(storage.list("pods"))
            while True:
                await watcher.wait()
                changes = watcher.poll()
                self.sync([c.object for c in changes if c.resource == "pods" and c.type != "DELETED"])
        finally:
            watcher.close()

    def sync(self, pods: list[Object]) -> None:
        rt = self._cluster.type_of("pods")
        for seen in pods:
            meta = seen["metadata"]
            if "deletionTimestamp" not in meta or seen["spec"].get("nodeName"):
                continue
            pod = self._cluster.find(rt, meta["name"], meta["namespace"])
            if pod is None or pod["metadata"]["uid"] != meta["uid"]:
                continue
            if pod["status"].get("phase") in ("Succeeded", "Failed"):
                continue
            pod["status"] |= {"phase": "Failed", "observedGeneration": pod["metadata"].get("generation", 1)}
            self._cluster.write(rt, pod, Request())
