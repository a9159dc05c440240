"""Pods: what the server adds at creation, what may change later, and how they go."""

from __future__ import annotations

from typing import Any

from srlm_local.kinds.pod_spec import containers, default_pod_spec, validate_pod_spec, validate_pod_update
from srlm_local.store.errors import forbidden
from srlm_local.store.resources import Rules, View
from srlm_operator.crd.schema import FieldError

Object = dict[str, Any]
MOUNTED_AT = "/var/run/secrets/kubernetes.io/serviceaccount"
_CRITICAL = {"system-node-critical": 2000001000, "system-cluster-critical": 2000000000}


class PodRules(Rules):
    returns_deleted = True
    keeps_status = True

    def default(self, obj: Object) -> None:
        spec = obj.setdefault("spec", {})
        default_pod_spec(spec)
        spec.setdefault("enableServiceLinks", True)
        for container in containers(spec):
            resources = container["resources"]
            if limits := resources.get("limits"):
                resources["requests"] = {**limits, **(resources.get("requests") or {})}

    def prepare(self, view: View, obj: Object, old: Object | None) -> None:
        if old is None:
            obj["status"] = {"phase": "Pending", "qosClass": qos_class(obj["spec"])}

    def admit(self, view: View, obj: Object) -> None:
        spec, name = obj["spec"], obj["metadata"].get("name", "")
        if runtime := spec.get("runtimeClassName"):
            raise forbidden("pods", "", name, f'pod rejected: RuntimeClass "{runtime}" not found')
        _service_account(view, obj)
        if chosen := spec.get("priorityClassName"):
            found = view.find("priorityclasses.scheduling.k8s.io", chosen)
            if found is None and chosen not in _CRITICAL:
                raise forbidden("pods", "", name, f"no PriorityClass with name {chosen} was found")
            spec["priority"] = _CRITICAL.get(chosen, (found or {}).get("value", 0))
        spec.setdefault("priority", 0)
        spec.setdefault("preemptionPolicy", "PreemptLowerPriority")
        given = spec.setdefault("tolerations", [])
        for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"):
            if not any(t.get("key") in (key, None, "") and t.get("effect") in ("NoExecute", None, "") for t in given):
                given.append({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300})

    def validate(self, obj: Object, old: Object | None, before: list[FieldError]) -> list[FieldError]:
        return validate_pod_spec(obj["spec"], "spec") if old is None else validate_pod_update(obj, old)

    def grace_period(self, obj: Object, asked: int | None) -> int | None:
        spec = obj["spec"]
        if not spec.get("nodeName") or (obj.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
            return 0
        period = asked if asked is not None else spec.get("terminationGracePeriodSeconds", 30)
        return 1 if period < 0 else int(period)


def qos_class(spec: Object) -> str:
    """Guaranteed, Burstable or BestEffort, from cpu and memory of all containers."""
    guaranteed, any_set = True, False
    for container in containers(spec):
        resources = container.get("resources") or {}
        limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
        for name in ("cpu", "memory"):
            any_set |= name in limits or name in requests
            guaranteed &= name in limits and requests.get(name, limits[name]) == limits[name]
    return "Guaranteed" if any_set and guaranteed else "Burstable" if any_set else "BestEffort"


def _service_account(view: View, pod: Object) -> None:
    """The account must be there; its token is mounted unless the pod or the account refuses it."""
    spec, meta = pod["spec"], pod["metadata"]
    name = spec.setdefault("serviceAccountName", "default")
    spec["serviceAccount"] = name
    account = view.find("serviceaccounts", name, meta["namespace"])
    if account is None:
        why = f'error looking up service account {meta["namespace"]}/{name}: serviceaccount "{name}" not found'
        raise forbidden("pods", "", meta.get("name", ""), why)
    if "imagePullSecrets" not in spec and account.get("imagePullSecrets"):
        spec["imagePullSecrets"] = account["imagePullSecrets"]
    automount = spec.get("automountServiceAccountToken", account.get("automountServiceAccountToken", True))
    every = containers(spec)
    bare = [c for c in every if not any(m["mountPath"] == MOUNTED_AT for m in c.get("volumeMounts") or [])]
    if not automount or not bare:
        return
    volume = view.generate_name("kube-api-access-")
    for container in bare:
        mount = {"name": volume, "readOnly": True, "mountPath": MOUNTED_AT}
        container.setdefault("volumeMounts", []).append(mount)
    namespace = {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
    sources = [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [namespace]}},
    ]
    spec.setdefault("volumes", []).append({"name": volume, "projected": {"sources": sources, "defaultMode": 420}})
