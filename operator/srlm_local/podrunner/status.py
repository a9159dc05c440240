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


def phase(main: list[Object], ended: bool) -> str:
    """The pod's phase from its containers; `ended` says that none of them will start again."""
    if ended:
        codes = [s["state"]["terminated"]["exitCode"] for s in main if "terminated" in s["state"]]
        return "Succeeded" if len(codes) == len(main) and not any(codes) else "Failed"
    return "Pending" if any("waiting" in s["state"] for s in main) else "Running"


def with_ready(pod: Object, main: list[Object], ended: bool, now: str) -> list[Object]:
    """The pod's conditions with Ready, which keeps its time unless it changes."""
    status = pod.get("status") or {}
    unready = [s["name"] for s in main if not s["ready"]]
    condition: Object = {"type": "Ready", "status": "False" if unready or not main else "True"}
    if ended:
        condition["reason"] = "PodCompleted" if phase(main, ended) == "Succeeded" else "PodFailed"
    elif unready:
        condition["reason"] = "ContainersNotReady"
        condition["message"] = f"containers with unready status: [{' '.join(unready)}]"
    before = next((c for c in status.get("conditions") or [] if c["type"] == "Ready"), {"status": ""})
    condition["lastTransitionTime"] = before["lastTransitionTime"] if before["status"] == condition["status"] else now
    conditions: list[Object] = with_condition(status, condition)["conditions"]
    return conditions


def with_condition(status: Object, condition: Object) -> Object:
    """The status with one condition set or replaced."""
    others = [c for c in status.get("conditions") or [] if c["type"] != condition["type"]]
    return {**status, "conditions": [*others, {"lastProbeTime": None, **condition}]}


def lost(pod: Object, now: str) -> Object:
    """Final status of a pod whose processes ended together with the node: an attempt that costs nothing."""
    message = "the node that ran this pod was stopped and started again"
    old = pod.get("status") or {}
    statuses = []
    for entry in old.get("containerStatuses") or []:
        if "terminated" not in entry["state"]:
            gone = {"exitCode": 137, "reason": "ContainerStatusUnknown", "message": message, "finishedAt": now}
            gone["startedAt"] = entry["state"].get("running", {}).get("startedAt")
            entry = {**entry, "state": {"terminated": gone}, "ready": False, "started": False}
        statuses.append(entry)
    disruption = {"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet"}
    disruption |= {"message": message, "lastTransitionTime": now}
    ended = {"phase": "Failed", "reason": "NodeLost", "message": message, "containerStatuses": statuses}
    conditions = with_ready(pod, statuses, True, now)
    return with_condition({**old, **ended, "conditions": conditions}, disruption)
