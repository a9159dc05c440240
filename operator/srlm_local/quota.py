"""ResourceQuota: what a namespace may hold, and how much it does."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from srlm_local.errors import forbidden
from srlm_local.quantity import format_like, parse_quantity
from srlm_local.request import Request
from srlm_local.resources import ResourceType

if TYPE_CHECKING:
    from srlm_local.cluster import Cluster

Object = dict[str, Any]
Usage = dict[str, Decimal]
QUOTAS = "resourcequotas"
_COUNTED = ("pods", "services", "secrets", "configmaps", "persistentvolumeclaims", "resourcequotas")
_SHORT = {"cpu": "requests.cpu", "memory": "requests.memory", "ephemeral-storage": "requests.ephemeral-storage"}


def usage_of(rt: ResourceType, obj: Object) -> Usage:
    """What one object uses, by the names that quotas have for it. Finished pods use nothing."""
    found: Usage = {f"count/{rt.name}": Decimal(1)}
    if rt.name == "pods":
        if (obj.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
            return found
        for kind in ("requests", "limits"):
            for name, amount in _pod_resources(obj["spec"], kind).items():
                found[f"{kind}.{name}"] = amount
                if kind == "requests" and name in _SHORT:
                    found[name] = amount
    if rt.name in _COUNTED:
        found[rt.name] = Decimal(1)
    return found


def _pod_resources(spec: Object, kind: str) -> Usage:
    """The sum over containers, or the largest init container if that is more."""
    total: Usage = {}
    for container in spec.get("containers") or []:
        for name, amount in ((container.get("resources") or {}).get(kind) or {}).items():
            total[name] = total.get(name, Decimal(0)) + (parse_quantity(amount) or Decimal(0))
    for container in spec.get("initContainers") or []:
        for name, amount in ((container.get("resources") or {}).get(kind) or {}).items():
            total[name] = max(total.get(name, Decimal(0)), parse_quantity(amount) or Decimal(0))
    return total


def used(cluster: Cluster, namespace: str, hard: dict[str, str]) -> Usage:
    """What all objects of a namespace use of the given names."""
    total = {name: Decimal(0) for name in hard}
    for rt in {rt.storage: rt for rt in cluster.registry.all() if rt.namespaced and not rt.stored_as}.values():
        if not _tracks(rt, hard):
            continue
        for obj in cluster.storage.list(rt.storage, namespace):
            for name, amount in usage_of(rt, obj).items():
                if name in total:
                    total[name] += amount
    return total


def _tracks(rt: ResourceType, hard: dict[str, str]) -> bool:
    if rt.name == "pods":
        return True
    return f"count/{rt.name}" in hard or (rt.name in _COUNTED and rt.name in hard)


def admit(cluster: Cluster, rt: ResourceType, obj: Object, request: Request) -> None:
    """Refuses what would exceed a quota (403), and charges what does not."""
    namespace = obj["metadata"].get("namespace", "")
    charges = []
    for quota in cluster.list(QUOTAS, namespace) if namespace else []:
        hard = (quota.get("spec") or {}).get("hard") or {}
        if not _tracks(rt, hard):
            continue
        asked = {name: amount for name, amount in usage_of(rt, obj).items() if name in hard}
        if rt.name == "pods":
            _require(obj, quota["metadata"]["name"], hard)
        have = used(cluster, namespace, hard)
        over = [name for name in sorted(asked) if have[name] + asked[name] > (parse_quantity(hard[name]) or 0)]
        if over:
            lists = [
                ",".join(f"{name}={format_like(values[name])}" for name in over)
                for values in (asked, have, {name: parse_quantity(hard[name]) or Decimal(0) for name in over})
            ]
            why = (
                f"exceeded quota: {quota['metadata']['name']}, requested: {lists[0]}, used: {lists[1]}, "
                f"limited: {lists[2]}"
            )
            raise forbidden(rt.plural, rt.group, obj["metadata"].get("name", ""), why)
        if asked:
            charges.append((quota, {name: have[name] + asked.get(name, Decimal(0)) for name in hard}))
    for quota, now in charges:
        _store(cluster, quota, now, request)


def _require(pod: Object, quota: str, hard: dict[str, str]) -> None:
    """A quota of cpu or memory makes requests or limits of it mandatory in every container."""
    missing: dict[str, list[str]] = {}
    for name in hard:
        kind, _, resource = _SHORT.get(name, name).partition(".")
        if kind not in ("requests", "limits") or resource not in ("cpu", "memory"):
            continue
        for container in pod["spec"].get("containers") or []:
            if resource not in ((container.get("resources") or {}).get(kind) or {}):
                missing.setdefault(name, []).append(container["name"])
    if missing:
        listed = "; ".join(f"{name} for: {','.join(names)}" for name, names in sorted(missing.items()))
        why = f"failed quota: {quota}: must specify {listed}"
        raise forbidden("pods", "", pod["metadata"].get("name", ""), why)


def _store(cluster: Cluster, quota: Object, now: Usage, request: Request) -> None:
    hard = quota["spec"]["hard"]
    status = {"hard": dict(hard), "used": {name: format_like(amount) for name, amount in now.items()}}
    if quota.get("status") != status:
        cluster.write(cluster.type_of(QUOTAS), {**quota, "status": status}, Request(dry_run=request.dry_run))


class QuotaController:
    """Keeps the status of quotas true, as objects come and go."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def run(self) -> None:
        storage = self._cluster.storage
        watcher = storage.watcher(storage.version)
        try:
            self.sync({obj["metadata"]["namespace"] for obj in storage.list(QUOTAS)})
            while True:
                await watcher.wait()
                self.sync({change.namespace for change in watcher.poll()})
        finally:
            watcher.close()

    def sync(self, namespaces: set[str]) -> None:
        for namespace in sorted(namespaces - {""}):
            for quota in self._cluster.list(QUOTAS, namespace):
                hard = (quota.get("spec") or {}).get("hard") or {}
                _store(self._cluster, quota, used(self._cluster, namespace, hard), Request())
