"""Pods as the Job controller sees them, and the pods it makes. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from srlm_local.store.clock import parse_time
from srlm_local.store.values import copy

Object = dict[str, Any]
FINALIZER = "batch.kubernetes.io/job-tracking"
INDEX = "batch.kubernetes.io/job-completion-index"
FAILURE_COUNT = "batch.kubernetes.io/job-index-failure-count"
MAX_GENERATE_NAME = 58


def phase(pod: Object) -> str:
    """The pod's phase; Pending when there is no status yet."""
    return str((pod.get("status") or {}).get("phase", "Pending"))


def deleted(pod: Object) -> bool:
    """Whether its deletion has begun."""
    return "deletionTimestamp" in pod["metadata"]


def tracked(pod: Object) -> bool:
    """Whether it has not been counted yet."""
    return FINALIZER in pod["metadata"].get("finalizers", [])


def active(pod: Object) -> bool:
    """Neither ended nor being deleted."""
    return phase(pod) not in ("Succeeded", "Failed") and not deleted(pod)


def terminating(pod: Object) -> bool:
    """Being deleted and not stopped yet."""
    return deleted(pod) and phase(pod) not in ("Succeeded", "Failed")


def ready(pod: Object) -> bool:
    """Whether its Ready condition holds."""
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def is_indexed(job: Object) -> bool:
    """Whether pods have completion indexes."""
    return bool(job["spec"].get("completionMode") == "Indexed")


def per_index(job: Object) -> bool:
    """Whether failures are limited for each index."""
    return job["spec"].get("backoffLimitPerIndex") is not None


def index_of(pod: Object) -> int:
    """The completion index, -1 when there is none."""
    text = (pod["metadata"].get("annotations") or {}).get(INDEX, "")
    return int(text) if text.isdecimal() else -1


def failure_count(pod: Object) -> int:
    """How often its index had failed when the pod was made."""
    return int((pod["metadata"].get("annotations") or {}).get(FAILURE_COUNT, "0"))


def finish_time(pod: Object) -> datetime:
    """When the pod ended: from its containers, else its Ready condition, else its deletion."""
    status = pod.get("status") or {}
    times = [s["state"].get("terminated", {}).get("finishedAt") for s in status.get("containerStatuses") or []]
    if times and all(times):
        return max(parse_time(time) for time in times)
    for condition in status.get("conditions") or []:
        if condition["type"] == "Ready" and condition["status"] == "False" and condition.get("lastTransitionTime"):
            return parse_time(condition["lastTransitionTime"])
    metadata = pod["metadata"]
    if "deletionTimestamp" in metadata:
        grace = metadata.get("deletionGracePeriodSeconds") or 0
        return parse_time(metadata["deletionTimestamp"]) - timedelta(seconds=grace)
    return parse_time(metadata["creationTimestamp"])


def make_pod(job: Object, index: int | None, failures: int | None) -> Object:
    """A new pod of the Job; `failures` are those of its index so far, where they are limited for each index."""
    template = copy(job["spec"]["template"])
    metadata = template.setdefault("metadata", {})
    name = job["metadata"]["name"]
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": job["metadata"]["uid"]}
    pod: Object = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": f"{name}-",
            "namespace": job["metadata"]["namespace"],
            "labels": metadata.get("labels") or {},
            "annotations": metadata.get("annotations") or {},
            "finalizers": [*(metadata.get("finalizers") or []), FINALIZER],
            "ownerReferences": [{**owner, "controller": True, "blockOwnerDeletion": True}],
        },
        "spec": template["spec"],
    }
    if index is None:
        return pod
    suffix = f"-{index}-"
    pod["metadata"]["generateName"] = name[: MAX_GENERATE_NAME - len(suffix)] + suffix
    pod["metadata"]["labels"][INDEX] = pod["metadata"]["annotations"][INDEX] = str(index)
    if failures is not None:
        pod["metadata"]["annotations"][FAILURE_COUNT] = str(failures)
    pod["spec"]["hostname"] = f"{name}-{index}"
    for container in [*(pod["spec"].get("initContainers") or []), *pod["spec"]["containers"]]:
        env = container.get("env") or []
        if not any(entry["name"] == "JOB_COMPLETION_INDEX" for entry in env):
            source = {"fieldRef": {"fieldPath": f"metadata.labels['{INDEX}']"}}
            container["env"] = [*env, {"name": "JOB_COMPLETION_INDEX", "valueFrom": source}]
    return pod
