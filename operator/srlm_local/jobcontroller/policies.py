"""What ends a Job: failure policy, limits and deadline. Pure.

Each returns a condition without its times, or None. Interim conditions (SuccessCriteriaMet,
FailureTarget) come first; `final` turns them into Complete or Failed once no pod is left terminating.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from srlm_local.jobcontroller.pods import failure_count, phase
from srlm_local.store.clock import parse_time

Object = dict[str, Any]


def condition(kind: str, reason: str, message: str) -> Object:
    """A condition that holds."""
    return {"type": kind, "status": "True", "reason": reason, "message": message}


COMPLETE = condition("SuccessCriteriaMet", "CompletionsReached", "Reached expected number of succeeded pods")


def find(job: Object, kind: str) -> Object | None:
    """The Job's condition of that type if it is true."""
    conditions: list[Object] = (job.get("status") or {}).get("conditions") or []
    return next((c for c in conditions if c["type"] == kind and c["status"] == "True"), None)


def finished(job: Object) -> bool:
    """Whether the Job is Complete or Failed."""
    return find(job, "Complete") is not None or find(job, "Failed") is not None


def final(interim: Object) -> Object:
    """Complete for SuccessCriteriaMet, Failed for FailureTarget."""
    kind = {"SuccessCriteriaMet": "Complete", "FailureTarget": "Failed"}[interim["type"]]
    return condition(kind, interim["reason"], interim["message"])


def match_failure(job: Object, pod: Object) -> tuple[str, str]:
    """(action, message) of the first rule of podFailurePolicy that matches the pod; Count where none does."""
    policy = job["spec"].get("podFailurePolicy") or {}
    name = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
    for number, rule in enumerate(policy.get("rules") or []):
        action = rule["action"]
        if rule.get("onExitCodes") is not None:
            status = _matching_exit(pod, rule["onExitCodes"])
            if status is None:
                continue
            code = status["state"]["terminated"]["exitCode"]
            message = (
                f"Container {status['name']} for pod {name} failed with exit code {code} "
                f"matching {action} rule at index {number}"
            )
        else:
            found = _matching_condition(pod, rule.get("onPodConditions") or [])
            if found is None:
                continue
            message = f"Pod {name} has condition {found} matching {action} rule at index {number}"
        return action, message
    return "Count", ""


def counts(job: Object, pod: Object) -> bool:
    """Whether a failed pod counts as a failure."""
    return match_failure(job, pod)[0] != "Ignore"


def _matching_exit(pod: Object, rule: Object) -> Object | None:
    status = pod.get("status") or {}
    for entry in [*(status.get("containerStatuses") or []), *(status.get("initContainerStatuses") or [])]:
        if rule.get("containerName") not in (None, entry["name"]):
            continue
        code = entry.get("state", {}).get("terminated", {}).get("exitCode", 0)
        if code and (code in rule["values"]) == (rule["operator"] == "In"):
            return dict(entry)
    return None


def _matching_condition(pod: Object, patterns: list[Object]) -> str | None:
    for entry in (pod.get("status") or {}).get("conditions") or []:
        for pattern in patterns:
            if entry["type"] == pattern["type"] and entry["status"] == pattern.get("status", "True"):
                return str(entry["type"])
    return None


def failure(job: Object, pods: list[Object], failures: int, now: datetime) -> Object | None:
    """FailureTarget for reasons that concern the Job as a whole."""
    for pod in pods:
        action, message = match_failure(job, pod) if phase(pod) == "Failed" else ("", "")
        if action == "FailJob":
            return condition("FailureTarget", "PodFailurePolicy", message)
    limit = job["spec"]["backoffLimit"]
    if failures > limit:
        return condition("FailureTarget", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
    if (left := deadline_in(job, now)) is not None and left <= 0:
        return condition("FailureTarget", "DeadlineExceeded", "Job was active longer than specified deadline")
    return None


def deadline_in(job: Object, now: datetime) -> float | None:
    """Seconds until activeDeadlineSeconds is over; None without one, before the start and while suspended."""
    started = (job.get("status") or {}).get("startTime")
    seconds = job["spec"].get("activeDeadlineSeconds")
    if seconds is None or started is None or job["spec"].get("suspend"):
        return None
    return float(seconds) - (now - parse_time(started)).total_seconds()


def index_failed(job: Object, pod: Object) -> bool:
    """Whether this failed pod is the end of its index."""
    return counts(job, pod) and failure_count(pod) >= int(job["spec"]["backoffLimitPerIndex"])


def index_failure(job: Object, failed_indexes: set[int], succeeded: set[int]) -> Object | None:
    """FailureTarget for failed indexes when none is left to run."""
    if failed_indexes and len(failed_indexes) + len(succeeded) >= job["spec"]["completions"]:
        return condition("FailureTarget", "FailedIndexes", "Job has failed indexes")
    return None
