"""Pods: what the server adds at creation, what may change later, and how they go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from srlm_contract.schema import FieldError
from srlm_local.errors import ApiError, forbidden
from srlm_local.pod_defaults import default_pod
from srlm_local.pod_validation import validate_pod_spec, validate_pod_update
from srlm_local.request import Request
from srlm_local.strategy import Strategy

if TYPE_CHECKING:
    from srlm_local.cluster import Cluster

Object = dict[str, Any]
MOUNTED_AT = "/var/run/secrets/kubernetes.io/serviceaccount"
_NOT_READY, _UNREACHABLE = "node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"


class PodStrategy(Strategy):
    returns_deleted = True

    def default(self, obj: Object) -> None:
        default_pod(obj.setdefault("spec", {}))
        status = obj.get("status") or {}
        for condition in status.get("conditions") or []:
            condition.setdefault("lastProbeTime", None)
        for group in ("initContainerStatuses", "containerStatuses"):
            for container in status.get(group) or []:
                container.setdefault("state", {})
                container.setdefault("lastState", {})

    def prepare(self, cluster: Cluster, obj: Object, old: Object | None, request: Request) -> None:
        if old is None:
            obj["status"] = {"phase": "Pending", "qosClass": qos_class(obj["spec"])}

    def admit(self, cluster: Cluster, obj: Object, old: Object | None, request: Request) -> None:
        if old is not None:
            return
        if runtime := obj["spec"].get("runtimeClassName"):
            why = f'pod rejected: RuntimeClass "{runtime}" not found'
            raise forbidden("pods", "", obj["metadata"].get("name", ""), why)
        _service_account(cluster, obj)
        _priority(cluster, obj)
        _tolerations(obj["spec"])

    def validate(self, obj: Object, old: Object | None) -> list[FieldError]:
        if old is None:
            return validate_pod_spec(obj["spec"], "spec")
        return validate_pod_update(obj, old)

    def grace_period(self, obj: Object, asked: int | None) -> int | None:
        spec = obj["spec"]
        if not spec.get("nodeName") or (obj.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
            return 0
        period = asked if asked is not None else spec.get("terminationGracePeriodSeconds", 30)
        return 1 if period < 0 else int(period)


def qos_class(spec: Object) -> str:
    """Guaranteed, Burstable or BestEffort, from cpu and memory of all containers."""
    guaranteed, any_set = True, False
    for container in [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]:
        resources = container.get("resources") or {}
        limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
        for name in ("cpu", "memory"):
            any_set |= name in limits or name in requests
            guaranteed &= name in limits and requests.get(name, limits[name]) == limits[name]
    return "Guaranteed" if any_set and guaranteed else "Burstable" if any_set else "BestEffort"


def _service_account(cluster: Cluster, pod: Object) -> None:
    spec, meta = pod["spec"], pod["metadata"]
    name = spec.setdefault("serviceAccountName", "default")
    spec["serviceAccount"] = name
    account = cluster.find("serviceaccounts", name, meta["namespace"])
    if account is None:
        why = f'error looking up service account {meta["namespace"]}/{name}: serviceaccount "{name}" not found'
        raise forbidden("pods", "", meta.get("name", ""), why)
    if "imagePullSecrets" not in spec and account.get("imagePullSecrets"):
        spec["imagePullSecrets"] = account["imagePullSecrets"]
    automount = spec.get("automountServiceAccountToken", account.get("automountServiceAccountToken", True))
    if not automount:
        return
    containers = [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]
    bare = [c for c in containers if not any(m["mountPath"] == MOUNTED_AT for m in c.get("volumeMounts") or [])]
    if not bare:
        return
    volume = cluster.generate_name("kube-api-access-")
    for container in bare:
        mount = {"name": volume, "readOnly": True, "mountPath": MOUNTED_AT}
        container.setdefault("volumeMounts", []).append(mount)
    sources = [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {
            "downwardAPI": {
                "items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]
            }
        },
    ]
    spec.setdefault("volumes", []).append({"name": volume, "projected": {"sources": sources, "defaultMode": 420}})


def _priority(cluster: Cluster, pod: Object) -> None:
    spec = pod["spec"]
    name = spec.get("priorityClassName", "")
    value, policy = 0, "PreemptLowerPriority"
    if name in ("system-node-critical", "system-cluster-critical"):
        value = 2000001000 if name == "system-node-critical" else 2000000000
    elif name:
        found = cluster.find("priorityclasses.scheduling.k8s.io", name)
        if found is None:
            raise forbidden("pods", "", pod["metadata"].get("name", ""), f"no PriorityClass with name {name} was found")
        value, policy = found.get("value", 0), found.get("preemptionPolicy", policy)
    else:
        classes = [c for c in cluster.list("priorityclasses.scheduling.k8s.io") if c.get("globalDefault")]
        if classes:
            chosen = min(classes, key=lambda c: c.get("value", 0))
            spec["priorityClassName"] = chosen["metadata"]["name"]
            value, policy = chosen.get("value", 0), chosen.get("preemptionPolicy", policy)
    if spec.get("priority", value) != value:
        why = (
            f"the integer value of priority ({spec['priority']}) must not be provided in pod spec; priority admission "
            f"controller computed {value} from the given PriorityClass name"
        )
        raise forbidden("pods", "", pod["metadata"].get("name", ""), why)
    spec["priority"] = value
    spec.setdefault("preemptionPolicy", policy)


def _tolerations(spec: Object) -> None:
    given = spec.setdefault("tolerations", [])
    for key in (_NOT_READY, _UNREACHABLE):
        if not any(t.get("key") in (key, None, "") and t.get("effect") in ("NoExecute", None, "") for t in given):
            given.append({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300})


def bind(cluster: Cluster, name: str, namespace: str, node: str) -> Object:
    """Assigns a pod to a node. Raises 409 if it has one, as it can be bound only once."""
    rt = cluster.type_of("pods")
    pod = cluster.get(rt, name, namespace)
    if pod["spec"].get("nodeName"):
        raise ApiError(
            409,
            "Conflict",
            f'Operation cannot be fulfilled on pods/binding "{name}": pod {name} is already assigned to node '
            f'"{pod["spec"]["nodeName"]}"',
            {"name": name, "kind": "pods/binding"},
        )
    if "deletionTimestamp" in pod["metadata"]:
        raise ApiError(
            409,
            "Conflict",
            f'Operation cannot be fulfilled on pods/binding "{name}": pod {name} is being deleted, cannot be '
            "assigned to a host",
            {"name": name, "kind": "pods/binding"},
        )
    pod["spec"]["nodeName"] = node
    conditions = [c for c in pod["status"].get("conditions") or [] if c["type"] != "PodScheduled"]
    scheduled = {
        "type": "PodScheduled",
        "status": "True",
        "lastProbeTime": None,
        "lastTransitionTime": cluster.timestamp(),
    }
    pod["status"]["conditions"] = [*conditions, scheduled]
    return cluster.write(rt, pod, Request())
