"""The columns of built-in kinds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from srlm_local.ages import age, duration
from srlm_local.clock import parse_time
from srlm_local.jsontools import dig

if TYPE_CHECKING:
    from srlm_local.resources import ResourceType

Object = dict[str, Any]
NONE = "<none>"


@dataclass(frozen=True)
class Column:
    """One column. documented: `Model.field` of the API whose description it has, else `description`."""

    name: str
    cell: Callable[[Object, datetime], Any]
    type: str = "string"
    description: str = ""
    documented: str = ""
    priority: int = 0


def _age(obj: Object, now: datetime) -> str:
    return age(obj["metadata"].get("creationTimestamp"), now)


_NAME = Column("Name", lambda obj, now: obj["metadata"]["name"], documented="V1ObjectMeta.name")
_AGE = Column("Age", _age, documented="V1ObjectMeta.creationTimestamp")


def _at(*path: str | int, default: Any = NONE) -> Callable[[Object, datetime], Any]:
    return lambda obj, now: found if (found := dig(obj, *path)) not in (None, "") else default


def _count(*path: str) -> Callable[[Object, datetime], Any]:
    return lambda obj, now: len(dig(obj, *path) or ())


def _selector(labels: Object | None) -> str:
    return ",".join(f"{key}={value}" for key, value in (labels or {}).items()) or NONE


# ---- Jobs


def _job_status(job: Object, now: datetime) -> str:
    have = {c["type"] for c in dig(job, "status", "conditions") or [] if c.get("status") == "True"}
    for kind, shown in (("Complete", "Complete"), ("Failed", "Failed")):
        if kind in have:
            return shown
    if "deletionTimestamp" in job["metadata"]:
        return "Terminating"
    for kind in ("Suspended", "FailureTarget", "SuccessCriteriaMet"):
        if kind in have:
            return kind
    return "Running"


def _job_completions(job: Object, now: datetime) -> str:
    done, wanted = dig(job, "status", "succeeded") or 0, job["spec"].get("completions")
    if wanted is not None:
        return f"{done}/{wanted}"
    parallel = job["spec"].get("parallelism") or 0
    return f"{done}/1 of {parallel}" if parallel > 1 else f"{done}/1"


def _job_duration(job: Object, now: datetime) -> str:
    start, end = dig(job, "status", "startTime"), dig(job, "status", "completionTime")
    if not start:
        return ""
    return duration(((parse_time(end) if end else now) - parse_time(start)).total_seconds())


def _containers(key: str) -> Callable[[Object, datetime], str]:
    return lambda job, now: ",".join(
        str(c.get(key, "")) for c in dig(job, "spec", "template", "spec", "containers") or []
    )


# ---- Pods


def _pod_ready(pod: Object, now: datetime) -> str:
    statuses = dig(pod, "status", "containerStatuses") or []
    return f"{sum(bool(s.get('ready')) for s in statuses)}/{len(pod['spec'].get('containers') or [])}"


def _pod_status(pod: Object, now: datetime) -> str:
    status = pod.get("status") or {}
    reason = status.get("reason") or status.get("phase") or "Unknown"
    if pod.get("spec", {}).get("schedulingGates"):
        reason = "SchedulingGated"
    for container in reversed(status.get("containerStatuses") or []):
        state = container.get("state") or {}
        waiting, ended = state.get("waiting") or {}, state.get("terminated")
        if waiting.get("reason"):
            reason = waiting["reason"]
        elif ended is not None:
            signal = ended.get("signal")
            reason = ended.get("reason") or (f"Signal:{signal}" if signal else f"ExitCode:{ended.get('exitCode')}")
    if "deletionTimestamp" in pod["metadata"] and status.get("phase") not in ("Succeeded", "Failed"):
        return "Terminating"
    return str(reason)


def _pod_restarts(pod: Object, now: datetime) -> str:
    return str(sum(s.get("restartCount", 0) for s in dig(pod, "status", "containerStatuses") or []))


_POD_CONDITIONS = {
    "Succeeded": ("Succeeded", "The pod has completed successfully."),
    "Failed": ("Failed", "The pod failed."),
}


def row_conditions(rt: ResourceType, obj: Object) -> list[Object]:
    """Rows of finished pods are marked, so that clients can leave them out."""
    if rt.name != "pods":
        return []
    found = _POD_CONDITIONS.get(dig(obj, "status", "phase") or "")
    if found is None:
        return []
    return [{"type": "Completed", "status": "True", "reason": found[0], "message": found[1]}]


# ---- Events


def _event_seen(*keys: str) -> Callable[[Object, datetime], str]:
    def cell(event: Object, now: datetime) -> str:
        series = dig(event, "series", "lastObservedTime") if "lastTimestamp" in keys else None
        for moment in (series, *(event.get(key) for key in keys)):
            if moment:
                return age(moment, now)
        return "<unknown>"

    return cell


def _event_object(event: Object, now: datetime) -> str:
    about = event.get("involvedObject") or event.get("regarding") or {}
    return f"{str(about.get('kind', '')).lower()}/{about.get('name', '')}"


def _event_source(event: Object, now: datetime) -> str:
    source = event.get("source") or event.get("deprecatedSource") or {}
    if source.get("component"):
        return ", ".join(filter(None, (source["component"], source.get("host"))))
    reporter = event.get("reportingComponent") or event.get("reportingController") or ""
    return ", ".join(filter(None, (reporter, event.get("reportingInstance"))))


def _event_count(event: Object, now: datetime) -> int:
    return int(dig(event, "series", "count") or event.get("count") or event.get("deprecatedCount") or 1)


def _event_message(event: Object, now: datetime) -> str:
    return str(event.get("message") or event.get("note") or "").strip()


def _ports(service: Object, now: datetime) -> str:
    ports = dig(service, "spec", "ports") or []
    return ",".join(f"{p['port']}/{p.get('protocol', 'TCP')}" for p in ports) or NONE


def _roles(node: Object, now: datetime) -> str:
    prefix = "node-role.kubernetes.io/"
    labels = node["metadata"].get("labels") or {}
    return ",".join(key[len(prefix) :] for key in labels if key.startswith(prefix)) or NONE


def _node_status(node: Object, now: datetime) -> str:
    ready = next((c for c in dig(node, "status", "conditions") or [] if c["type"] == "Ready"), None)
    shown = "Unknown" if ready is None else "Ready" if ready["status"] == "True" else "NotReady"
    return shown + (",SchedulingDisabled" if dig(node, "spec", "unschedulable") else "")


def _created(obj: Object, now: datetime) -> str:
    return str(obj["metadata"]["creationTimestamp"])


def _quota(key: str) -> Callable[[Object, datetime], str]:
    def cell(quota: Object, now: datetime) -> str:
        hard, used = dig(quota, "status", "hard") or {}, dig(quota, "status", "used") or {}
        names = [name for name in hard if name.startswith("limits") is (key == "limits")]
        return ", ".join(f"{name}: {used.get(name, 0)}/{hard[name]}" for name in sorted(names))

    return cell


COLUMNS: dict[str, list[Column]] = {
    "": [_NAME, _AGE],
    "configmaps": [_NAME, Column("Data", lambda o, n: len(o.get("data") or {}) + len(o.get("binaryData") or {})), _AGE],
    "secrets": [_NAME, Column("Type", _at("type")), Column("Data", _count("data")), _AGE],
    "namespaces": [_NAME, Column("Status", _at("status", "phase")), _AGE],
    "leases.coordination.k8s.io": [_NAME, Column("Holder", _at("spec", "holderIdentity", default="")), _AGE],
    "customresourcedefinitions.apiextensions.k8s.io": [_NAME, Column("Created At", _created)],
    "services": [
        _NAME,
        Column("Type", _at("spec", "type")),
        Column("Cluster-IP", _at("spec", "clusterIP")),
        Column("External-IP", lambda o, n: NONE),
        Column("Port(s)", _ports),
        _AGE,
        Column("Selector", lambda o, n: _selector(dig(o, "spec", "selector")), priority=1),
    ],
    "nodes": [
        _NAME,
        Column("Status", _node_status),
        Column("Roles", _roles),
        _AGE,
        Column("Version", _at("status", "nodeInfo", "kubeletVersion", default="")),
    ],
    "rolebindings.rbac.authorization.k8s.io": [
        _NAME,
        Column("Role", lambda o, n: f"{o['roleRef']['kind']}/{o['roleRef']['name']}"),
        _AGE,
    ],
    "clusterrolebindings.rbac.authorization.k8s.io": [
        _NAME,
        Column("Role", lambda o, n: f"{o['roleRef']['kind']}/{o['roleRef']['name']}"),
        _AGE,
    ],
    "clusterroles.rbac.authorization.k8s.io": [_NAME, Column("Created At", _created)],
    "roles.rbac.authorization.k8s.io": [_NAME, Column("Created At", _created)],
    "resourcequotas": [_NAME, Column("Request", _quota("requests")), Column("Limit", _quota("limits")), _AGE],
    "priorityclasses.scheduling.k8s.io": [
        _NAME,
        Column("Value", _at("value", default=0)),
        Column("Global-Default", lambda o, n: bool(o.get("globalDefault")), type="boolean"),
        _AGE,
    ],
    "persistentvolumeclaims": [
        _NAME,
        Column("Status", _at("status", "phase", default="Pending")),
        Column("Volume", _at("spec", "volumeName", default="")),
        _AGE,
    ],
    "deployments.apps": [
        _NAME,
        Column("Ready", lambda o, n: f"{dig(o, 'status', 'readyReplicas') or 0}/{dig(o, 'spec', 'replicas') or 0}"),
        Column("Up-to-date", _at("status", "updatedReplicas", default=0)),
        Column("Available", _at("status", "availableReplicas", default=0)),
        _AGE,
    ],
    "jobs.batch": [
        _NAME,
        Column("Status", _job_status, description="Status of the job."),
        Column("Completions", _job_completions, documented="V1JobStatus.succeeded"),
        Column("Duration", _job_duration, description="Time required to complete the job."),
        _AGE,
        Column("Containers", _containers("name"), description="Names of each container in the template.", priority=1),
        Column(
            "Images",
            _containers("image"),
            description="Images referenced by each container in the template.",
            priority=1,
        ),
        Column(
            "Selector",
            lambda o, n: _selector(dig(o, "spec", "selector", "matchLabels")),
            priority=1,
            description="A label query over pods that should match the pod count. Normally, the "
            "system sets this field for you. More info: https://kubernetes.io/docs/concepts/overview/"
            "working-with-objects/labels/#label-selectors",
        ),
    ],
    "pods": [
        _NAME,
        Column("Ready", _pod_ready, description="The aggregate readiness state of this pod for accepting traffic."),
        Column("Status", _pod_status, description="The aggregate status of the containers in this pod."),
        Column(
            "Restarts",
            _pod_restarts,
            description="The number of times the containers in this pod have been "
            "restarted and when the last container in this pod has restarted.",
        ),
        _AGE,
        Column("IP", _at("status", "podIP"), documented="V1PodStatus.podIP", priority=1),
        Column("Node", _at("spec", "nodeName"), documented="V1PodSpec.nodeName", priority=1),
        Column(
            "Nominated Node", _at("status", "nominatedNodeName"), documented="V1PodStatus.nominatedNodeName", priority=1
        ),
        Column("Readiness Gates", lambda o, n: NONE, documented="V1PodSpec.readinessGates", priority=1),
    ],
    "events": [
        Column(
            "Last Seen",
            _event_seen("lastTimestamp", "deprecatedLastTimestamp", "eventTime", "firstTimestamp"),
            documented="CoreV1Event.lastTimestamp",
        ),
        Column("Type", _at("type", default=""), documented="CoreV1Event.type"),
        Column("Reason", _at("reason", default=""), documented="CoreV1Event.reason"),
        Column("Object", _event_object, description="The object that this event is about."),
        Column(
            "Subobject",
            _at("involvedObject", "fieldPath", default=""),
            documented="V1ObjectReference.fieldPath",
            priority=1,
        ),
        Column(
            "Source",
            _event_source,
            priority=1,
            description="The component reporting this event. Should be a short machine understandable string.",
        ),
        Column("Message", _event_message, documented="CoreV1Event.message"),
        Column(
            "First Seen",
            _event_seen("firstTimestamp", "deprecatedFirstTimestamp", "eventTime"),
            documented="CoreV1Event.firstTimestamp",
            priority=1,
        ),
        Column("Count", _event_count, documented="CoreV1Event.count", priority=1),
        Column("Name", lambda obj, now: obj["metadata"]["name"], documented="V1ObjectMeta.name", priority=1),
    ],
}
