"""What a kubelet writes into a pod's status. Pure."""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]

NODE = "local"


def waiting(reason: str, message: str = "") -> Object:
    """State of a container that does not run yet."""
    return {"waiting": {"reason": reason, **({"message": message} if message else {})}}


def container_status(container: Object, state: Object) -> Object:
    """One entry of containerStatuses."""
    running = "running" in state
    return {
        "name": container["name"],
        "state": state,
        "lastState": {},
        "ready": running,
        "restartCount": 0,
        "image": container.get("image", ""),
        "imageID": "",
        "started": running,
    }


def phase(pod: Object, init: list[Object], main: list[Object], ended: bool) -> str:
    """The pod's phase from its containers; `ended` says that none of them will start again."""
    if ended:
        codes = [s["state"]["terminated"]["exitCode"] for s in main if "terminated" in s["state"]]
        return "Succeeded" if len(codes) == len(main) and not any(codes) else "Failed"
    return "Pending" if any("waiting" in s["state"] for s in main) else "Running"


def conditions(pod: Object, init: list[Object], main: list[Object], ended: bool, now: str) -> list[Object]:
    """The kubelet's conditions merged into those that the pod has; unchanged ones keep their time."""
    final = "PodCompleted" if ended else ""
    initialized = all(s["state"].get("terminated", {}).get("exitCode") == 0 for s in init)
    unready = [s["name"] for s in main if not s["ready"]]
    ready = bool(main) and not unready
    # A container that failed leaves the reason PodFailed, one that ended well PodCompleted.
    if ended and any(s["state"].get("terminated", {}).get("exitCode", 1) for s in main):
        final = "PodFailed"
    why = {"reason": final or "ContainersNotReady"}
    if not final:
        why["message"] = f"containers with unready status: [{' '.join(unready)}]"
    wanted: list[Object] = [
        {"type": "PodReadyToStartContainers", "status": "False" if ended else "True"},
        {"type": "Initialized", "status": "True"} if initialized else _uninitialized(init),
        {"type": "Ready", "status": "True"} if ready else {"type": "Ready", "status": "False", **why},
        {"type": "ContainersReady", "status": "True"}
        if ready
        else {"type": "ContainersReady", "status": "False", **why},
    ]
    old = {c["type"]: c for c in (pod.get("status") or {}).get("conditions") or []}
    merged = []
    for condition in wanted:
        before = old.pop(condition["type"], None)
        same = before is not None and before["status"] == condition["status"]
        time = before["lastTransitionTime"] if same and before else now
        merged.append({"lastProbeTime": None, "lastTransitionTime": time, **condition})
    return merged + list(old.values())


def _uninitialized(init: list[Object]) -> Object:
    names = " ".join(s["name"] for s in init if s["state"].get("terminated", {}).get("exitCode") != 0)
    message = f"containers with incomplete status: [{names}]"
    return {
        "type": "Initialized",
        "status": "False",
        "reason": "ContainersNotInitialized",
        "message": message,
    }


def with_condition(status: Object, condition: Object) -> Object:
    """The status with one condition set or replaced."""
    others = [c for c in status.get("conditions") or [] if c["type"] != condition["type"]]
    return {**status, "conditions": [*others, {"lastProbeTime": None, **condition}]}


def lost(pod: Object, now: str) -> Object:
    """Final status of a pod whose processes ended together with the node: an attempt that costs nothing."""
    message = "the node that ran this pod was stopped and started again"
    old = pod.get("status") or {}
    by_name = {s["name"]: s for s in old.get("containerStatuses") or []}
    statuses = []
    for container in pod["spec"]["containers"]:
        before = by_name.get(container["name"]) or container_status(container, waiting("ContainerCreating"))
        if "terminated" not in before["state"]:
            gone = {
                "exitCode": 137,
                "reason": "ContainerStatusUnknown",
                "message": "The container could not be located when the pod was terminated",
                "startedAt": before["state"].get("running", {}).get("startedAt"),
                "finishedAt": now,
            }
            before = {**before, "state": {"terminated": gone}, "ready": False, "started": False}
        statuses.append(before)
    status = {
        **old,
        "phase": "Failed",
        "reason": "NodeLost",
        "message": message,
        "containerStatuses": statuses,
        "conditions": conditions(pod, [], statuses, True, now),
    }
    disruption = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "TerminationByKubelet",
        "message": message,
        "lastTransitionTime": now,
    }
    return with_condition(status, disruption)
