"""Namespaces: what they are given at creation, and how they empty themselves when deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from srlm_contract.schema import FieldError
from srlm_local import pod_security
from srlm_local.errors import ApiError
from srlm_local.request import Request
from srlm_local.storage import Change
from srlm_local.strategy import Strategy

if TYPE_CHECKING:
    from srlm_local.cluster import Cluster
    from srlm_local.resources import ResourceType

Object = dict[str, Any]
ROOT_CA = "kube-root-ca.crt"


class NamespaceStrategy(Strategy):
    name_rule = "namespace"
    returns_deleted = True

    def default(self, obj: Object) -> None:
        labels = obj["metadata"].setdefault("labels", {})
        if obj["metadata"].get("name"):
            labels["kubernetes.io/metadata.name"] = obj["metadata"]["name"]

    def prepare(self, cluster: Cluster, obj: Object, old: Object | None, request: Request) -> None:
        if old is None:
            obj["spec"] = {"finalizers": ["kubernetes"]}
            obj["status"] = {"phase": "Active"}
        else:
            obj["spec"] = old["spec"]

    def validate(self, obj: Object, old: Object | None) -> list[FieldError]:
        return pod_security.check_namespace(obj, old)

    def complete(self, cluster: Cluster, obj: Object, old: Object | None, request: Request) -> None:
        pod_security.warn_about_existing(cluster, obj, old, request)

    def begin_deletion(self, cluster: Cluster, obj: Object) -> bool:
        """Deletion only marks the namespace: the controller below removes it once it is empty."""
        if obj["metadata"]["name"] in ("default", "kube-system", "kube-public"):
            raise forbidden_namespace(obj["metadata"]["name"])
        if "deletionTimestamp" not in obj["metadata"]:
            obj["metadata"]["deletionTimestamp"] = cluster.timestamp()
            obj["status"] = {**(obj.get("status") or {}), "phase": "Terminating"}
        return True


class NamespaceController:
    """Makes the default ServiceAccount and the root CA ConfigMap, and deletes what is in a terminating namespace."""

    def __init__(self, cluster: Cluster, authority: str = "") -> None:
        self._cluster = cluster
        self._authority = authority
        self._emptying = False

    async def run(self) -> None:
        cluster = self._cluster
        watcher = cluster.storage.watcher(cluster.storage.version)
        try:
            self.sync()
            while True:
                await watcher.wait()
                if any(self._matters(change) for change in watcher.poll()):
                    self.sync()
        finally:
            watcher.close()

    def _matters(self, change: Change) -> bool:
        if self._emptying or change.resource == "namespaces":
            return True
        return change.type == "DELETED" and change.resource in ("serviceaccounts", "configmaps")

    def sync(self) -> None:
        """One round over all namespaces. Safe to repeat."""
        namespaces = self._cluster.list("namespaces")
        self._emptying = any("deletionTimestamp" in namespace["metadata"] for namespace in namespaces)
        for namespace in namespaces:
            if "deletionTimestamp" in namespace["metadata"]:
                self._empty(namespace)
            else:
                self._furnish(namespace["metadata"]["name"])

    def _furnish(self, name: str) -> None:
        cluster = self._cluster
        if cluster.storage.get("serviceaccounts", name, "default") is None:
            cluster.create("serviceaccounts", {"metadata": {"name": "default"}}, name)
        if cluster.storage.get("configmaps", name, ROOT_CA) is None:
            cluster.create("configmaps", {"metadata": {"name": ROOT_CA}, "data": {"ca.crt": self._authority}}, name)

    def _empty(self, namespace: Object) -> None:
        cluster, name = self._cluster, namespace["metadata"]["name"]
        types = [rt for rt in cluster.registry.all() if rt.namespaced and not rt.stored_as]
        pods_first = sorted(types, key=lambda rt: rt.name != "pods")
        for rt in _one_version_each(pods_first):
            if rt.name != "pods" and cluster.storage.list("pods", name):
                break
            for obj in cluster.storage.list(rt.storage, name):
                if "deletionTimestamp" not in obj["metadata"]:
                    cluster.delete(rt, obj["metadata"]["name"], name, propagation="Background")
        remaining = {
            rt.name: left for rt in _one_version_each(types) if (left := cluster.storage.list(rt.storage, name))
        }
        if remaining:
            # A pod deleted without grace counts as gone, though a finalizer may keep it and the rest behind it.
            stuck = remaining.get("pods") and all(_without_grace(pod) for pod in remaining["pods"])
            self._report(namespace, {} if stuck else remaining)
            return
        stored = cluster.storage.get("namespaces", "", name)
        if stored is not None and not (stored["metadata"].get("finalizers") or []):
            rt = cluster.type_of("namespaces")
            if stored["spec"].get("finalizers"):
                stored = cluster.write(rt, {**stored, "spec": {}}, Request())
            cluster.erase(rt, stored)

    def _report(self, namespace: Object, remaining: dict[str, list[Object]]) -> None:
        finalizers: dict[str, int] = {}
        for objects in remaining.values():
            for obj in objects:
                for name in obj["metadata"].get("finalizers") or []:
                    finalizers[name] = finalizers.get(name, 0) + 1
        counts = ", ".join(f"{rt} has {len(objects)} resource instances" for rt, objects in sorted(remaining.items()))
        waits = ", ".join(f"{name} in {count} resource instances" for name, count in sorted(finalizers.items()))
        wanted = [
            (
                "NamespaceDeletionDiscoveryFailure",
                "False",
                "ResourcesDiscovered",
                "All resources successfully discovered",
            ),
            (
                "NamespaceDeletionGroupVersionParsingFailure",
                "False",
                "ParsedGroupVersions",
                "All legacy kube types successfully parsed",
            ),
            (
                "NamespaceDeletionContentFailure",
                "False",
                "ContentDeleted",
                "All content successfully deleted, may be waiting on finalization",
            ),
            ("NamespaceContentRemaining", "True", "SomeResourcesRemain", f"Some resources are remaining: {counts}")
            if remaining
            else ("NamespaceContentRemaining", "False", "ContentRemoved", "All content successfully removed"),
        ]
        if waits:
            wanted.append(
                (
                    "NamespaceFinalizersRemaining",
                    "True",
                    "SomeFinalizersRemain",
                    f"Some content in the namespace has finalizers remaining: {waits}",
                )
            )
        else:
            wanted.append(
                (
                    "NamespaceFinalizersRemaining",
                    "False",
                    "ContentHasNoFinalizers",
                    "All content-preserving finalizers finished",
                )
            )
        have = {c["type"]: c for c in (namespace.get("status") or {}).get("conditions") or []}
        now = self._cluster.timestamp()
        conditions = []
        for kind, status, reason, message in wanted:
            before = have.get(kind) or {}
            since = before["lastTransitionTime"] if before.get("status") == status else now
            conditions.append(
                {"type": kind, "status": status, "lastTransitionTime": since, "reason": reason, "message": message}
            )
        after = {"phase": "Terminating", "conditions": conditions}
        if after != namespace.get("status"):
            rt = self._cluster.type_of("namespaces")
            self._cluster.write(rt, {**namespace, "status": after}, Request())


def _without_grace(pod: Object) -> bool:
    return bool(pod["metadata"].get("deletionGracePeriodSeconds") == 0)


def _one_version_each(types: list[ResourceType]) -> list[ResourceType]:
    return list({rt.storage: rt for rt in reversed(types)}.values())[::-1]


def forbidden_namespace(name: str) -> ApiError:
    """The namespaces that are always there cannot be deleted."""
    why = "this namespace may not be deleted"
    return ApiError(403, "Forbidden", f'namespaces "{name}" is forbidden: {why}', {"name": name, "kind": "namespaces"})
