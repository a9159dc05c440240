"""Namespaces: what they are given at creation, and how they empty themselves when deleted."""

from __future__ import annotations

from typing import Any

from srlm_local.store import names
from srlm_local.store.cluster import Cluster
from srlm_local.store.errors import forbidden
from srlm_local.store.resources import Rules, View
from srlm_local.store.storage import Change, keep

Object = dict[str, Any]
ALWAYS_THERE = ("default", "kube-system", "kube-public", "kube-node-lease")


class NamespaceRules(Rules):
    returns_deleted = True
    keeps_status = True
    valid_name = staticmethod(names.dns_label)

    def default(self, obj: Object) -> None:
        obj["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = obj["metadata"].get("name", "")

    def prepare(self, view: View, obj: Object, old: Object | None) -> None:
        obj["spec"] = {"finalizers": ["kubernetes"]} if old is None else old["spec"]
        if old is None:
            obj["status"] = {"phase": "Active"}

    def begin_deletion(self, view: View, obj: Object) -> bool:
        """Deletion only marks the namespace: the controller below removes it once it is empty."""
        if obj["metadata"]["name"] in ALWAYS_THERE:
            raise forbidden("namespaces", "", obj["metadata"]["name"], "this namespace may not be deleted")
        if "deletionTimestamp" not in obj["metadata"]:
            obj["metadata"]["deletionTimestamp"] = view.timestamp()
            obj["status"] = {**(obj.get("status") or {}), "phase": "Terminating"}
        return True


class NamespaceController:
    """Makes the default ServiceAccount, and deletes what is in a terminating namespace."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._emptying = False

    async def run(self) -> None:
        await keep(self._cluster.storage, self._matters, self.sync)

    def _matters(self, change: Change) -> bool:
        if self._emptying or change.resource == "namespaces":
            return True
        return change.type == "DELETED" and change.resource == "serviceaccounts"

    def sync(self) -> None:
        """One round over all namespaces. Safe to repeat."""
        namespaces = self._cluster.list("namespaces")
        self._emptying = any("deletionTimestamp" in namespace["metadata"] for namespace in namespaces)
        for namespace in namespaces:
            if "deletionTimestamp" in namespace["metadata"]:
                self._empty(namespace)
            elif self._cluster.storage.get("serviceaccounts", namespace["metadata"]["name"], "default") is None:
                account = {"metadata": {"name": "default"}}
                self._cluster.create("serviceaccounts", account, namespace["metadata"]["name"])

    def _empty(self, namespace: Object) -> None:
        """Pods first, and the rest only once they are gone, as the real controller does it."""
        cluster, name = self._cluster, namespace["metadata"]["name"]
        types = [rt for rt in cluster.registry.stored() if rt.namespaced]
        for rt in sorted(types, key=lambda rt: rt.name != "pods"):
            if rt.name != "pods" and cluster.storage.list("pods", name):
                return
            for obj in cluster.storage.list(rt.name, name):
                if "deletionTimestamp" not in obj["metadata"]:
                    cluster.delete(rt, obj["metadata"]["name"], name, propagation="Background")
        stored = cluster.storage.get("namespaces", "", name)
        empty = not any(cluster.storage.list(rt.name, name) for rt in types)
        if empty and stored is not None and not stored["metadata"].get("finalizers"):
            cluster.erase(cluster.type_of("namespaces"), {**stored, "spec": {}})
