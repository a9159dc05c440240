"""What keeps a pod from starting, told as scheduler and kubelet tell it; the checks are the pod runner's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from srlm_local.podrunner import environment, volumes
from srlm_local.podrunner.environment import pull_error
from srlm_local.podrunner.status import NODE, container_status, waiting, with_condition
from srlm_local.store.clock import to_seconds
from srlm_local.store.cluster import Cluster
from srlm_local.store.events import record

Object = dict[str, Any]


def blocked(cluster: Cluster, pod: Object, folder: Path) -> bool:
    """Write down why the pod cannot start. False when it can."""
    lacking = _lacking(cluster, pod)
    if lacking and not pod["spec"].get("nodeName"):
        _unschedulable(cluster, pod, f"0/1 nodes are available: 1 Insufficient {lacking}.")
        return True
    if not pod["spec"].get("nodeName"):
        pod = cluster.bind(pod["metadata"]["name"], pod["metadata"]["namespace"], NODE)

    def lookup(resource: str, name: str) -> Object | None:
        return cluster.find(resource, name, pod["metadata"]["namespace"])

    try:
        volumes.prepare(pod, folder / pod["metadata"]["uid"], folder / "claims", lookup)
    except volumes.MountError as problem:
        _wait(cluster, pod, "ContainerCreating", "")
        record(cluster, pod, "Warning", "FailedMount", str(problem), "kubelet")
        return True
    for container in pod["spec"]["containers"]:
        problem = pull_error(container["image"])
        if problem is not None:
            text = f'Back-off pulling image "{container["image"]}": ErrImagePull: {problem}'
            _wait(cluster, pod, "ImagePullBackOff", text)
            return True
        try:
            environment.variables(pod, container, lookup)
        except environment.ConfigError as error:
            _wait(cluster, pod, "CreateContainerConfigError", str(error))
            return True
    return False


def _lacking(cluster: Cluster, pod: Object) -> str:
    """The extended resource that the node has too little of."""
    has = cluster.get("nodes", NODE)["status"]["allocatable"]
    for container in pod["spec"]["containers"]:
        for name, amount in ((container.get("resources") or {}).get("limits") or {}).items():
            if "/" in name and int(has.get(name, 0)) < int(amount):
                return str(name)
    return ""


def _unschedulable(cluster: Cluster, pod: Object, message: str) -> None:
    old = pod.get("status") or {}
    if any(c["type"] == "PodScheduled" and c.get("message") == message for c in old.get("conditions") or ()):
        return
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": message,
        "lastTransitionTime": to_seconds(cluster.clock.now()),
    }
    cluster.update("pods", {**pod, "status": with_condition(old, condition)}, subresource="status")


def _wait(cluster: Cluster, pod: Object, reason: str, message: str) -> None:
    state = waiting(reason, message)
    statuses = [container_status(container, state) for container in pod["spec"]["containers"]]
    old = pod.get("status") or {}
    started = old.get("startTime") or to_seconds(cluster.clock.now())
    status = {**old, "phase": "Pending", "startTime": started, "containerStatuses": statuses}
    if status != old:
        cluster.update("pods", {**pod, "status": status}, subresource="status")
