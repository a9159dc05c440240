"""Tables: what `kubectl get` shows, for custom resources and for the kinds that people look at here."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

from srlm_local.store.clock import parse_time
from srlm_local.store.resources import ResourceType
from srlm_local.store.values import dig

Object = dict[str, Any]
Cell = Callable[[Object, datetime], Any]
Columns = dict[str, Cell]
NONE = "<none>"
WIDE = {"pods": ("IP", "Node"), "jobs.batch": ("Containers", "Images")}
"""Columns that only -o wide shows."""


def table(rt: ResourceType, items: list[Object], now: datetime, include: str) -> Object:
    """A Table without its metadata. include: what comes with each row, None, Metadata or Object."""
    if rt.crd is not None:
        given = rt.crd.get("additionalPrinterColumns") or [_AGE_COLUMN]
        definitions = [_NAME_COLUMN, *given]
        cells = [_name, *(_custom_cell(column) for column in given)]
    else:
        columns = {"Name": _name, **COLUMNS.get(rt.name, {}), "Age": _age} if rt.name != "events" else COLUMNS["events"]
        wide = WIDE.get(rt.name, ())
        definitions = [{"name": name, "type": "string", "priority": int(name in wide)} for name in columns]
        definitions = [_NAME_COLUMN if d["name"] == "Name" else d for d in definitions]
        cells = list(columns.values())
    rows = []
    for item in items:
        shown = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": item["metadata"]}
        with_row = {"None": None, "Object": item}.get(include, shown)
        rows.append({"cells": [cell(item, now) for cell in cells], "object": with_row})
    described = [{"format": "", "description": "", "priority": 0, **_shown(d)} for d in definitions]
    return {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "columnDefinitions": described, "rows": rows}


_NAME_COLUMN = {"name": "Name", "type": "string", "format": "name"}
_AGE_COLUMN = {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}


#: A field, and of a list the item of one type: what printer columns of conditions ask for.
_STEP = re.compile(r'\.(\w+)(?:\[\?\(@\.type=="(\w+)"\)\])?')


def _shown(column: Object) -> Object:
    return {key: value for key, value in column.items() if key != "jsonPath"}


def _custom_cell(column: Object) -> Cell:
    steps, kind = _STEP.findall(column["jsonPath"]), column["type"]

    def cell(obj: Object, now: datetime) -> Any:
        value: Any = obj
        for field, wanted in steps:
            value = value.get(field) if isinstance(value, dict) else None
            if wanted:
                value = next((item for item in value or () if item.get("type") == wanted), None)
        if value is None or kind not in ("date", "string"):
            return value
        return age(value, now) if kind == "date" else str(value)

    return cell


# ---- ages


def duration(seconds: float) -> str:
    """`45s`, `3m20s`, `17m`, `5h3m`, `2d4h`, `400d`, as kubectl shows them."""
    s = max(int(seconds), 0)
    minutes, hours, days = s // 60, s // 3600, s // 86400
    if s < 120:
        return f"{s}s"
    if minutes < 10:
        return f"{minutes}m{s % 60}s" if s % 60 else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"
    return f"{days}d"


def age(moment: str | None, now: datetime) -> str:
    """How long ago a time was; `<unknown>` without one."""
    return duration((now - parse_time(moment)).total_seconds()) if moment else "<unknown>"


# ---- built-in kinds


def _name(obj: Object, now: datetime) -> Any:
    return obj["metadata"]["name"]


def _age(obj: Object, now: datetime) -> str:
    return age(obj["metadata"].get("creationTimestamp"), now)


def _at(*path: str, default: Any = NONE) -> Cell:
    return lambda obj, now: found if (found := dig(obj, *path)) not in (None, "") else default


def _job_status(job: Object, now: datetime) -> str:
    have = [c["type"] for c in dig(job, "status", "conditions") or [] if c.get("status") == "True"]
    order = ("Complete", "Failed", "Terminating", "Suspended", "FailureTarget", "SuccessCriteriaMet")
    if "deletionTimestamp" in job["metadata"]:
        have.append("Terminating")
    return next((kind for kind in order if kind in have), "Running")


def _job_completions(job: Object, now: datetime) -> str:
    return f"{dig(job, 'status', 'succeeded') or 0}/{job['spec'].get('completions') or 1}"


def _job_duration(job: Object, now: datetime) -> str:
    start, end = dig(job, "status", "startTime"), dig(job, "status", "completionTime")
    return duration(((parse_time(end) if end else now) - parse_time(start)).total_seconds()) if start else ""


def _job_containers(key: str) -> Cell:
    return lambda job, now: ",".join(str(c.get(key, "")) for c in job["spec"]["template"]["spec"]["containers"])


def _pod_ready(pod: Object, now: datetime) -> str:
    statuses = dig(pod, "status", "containerStatuses") or []
    return f"{sum(bool(s.get('ready')) for s in statuses)}/{len(pod['spec']['containers'])}"


def _pod_status(pod: Object, now: datetime) -> str:
    status = pod.get("status") or {}
    if "deletionTimestamp" in pod["metadata"] and status.get("phase") not in ("Succeeded", "Failed"):
        return "Terminating"
    reason = status.get("reason") or status.get("phase") or "Unknown"
    for container in status.get("containerStatuses") or []:
        state = container.get("state") or {}
        reason = dig(state, "waiting", "reason") or dig(state, "terminated", "reason") or reason
    return str(reason)


def _pod_restarts(pod: Object, now: datetime) -> str:
    return str(sum(s.get("restartCount", 0) for s in dig(pod, "status", "containerStatuses") or []))


def _event_seen(event: Object, now: datetime) -> str:
    return age(event.get("lastTimestamp") or event.get("eventTime") or event.get("firstTimestamp"), now)


def _event_object(event: Object, now: datetime) -> str:
    about = event.get("involvedObject") or {}
    return f"{str(about.get('kind', '')).lower()}/{about.get('name', '')}"


COLUMNS: dict[str, Columns] = {
    "namespaces": {"Status": _at("status", "phase")},
    "jobs.batch": {
        "Status": _job_status,
        "Completions": _job_completions,
        "Duration": _job_duration,
        "Containers": _job_containers("name"),
        "Images": _job_containers("image"),
    },
    "pods": {
        "Ready": _pod_ready,
        "Status": _pod_status,
        "Restarts": _pod_restarts,
        "IP": _at("status", "podIP"),
        "Node": _at("spec", "nodeName"),
    },
    "events": {
        "Last Seen": _event_seen,
        "Type": _at("type", default=""),
        "Reason": _at("reason", default=""),
        "Object": _event_object,
        "Message": lambda o, now: str(o.get("message") or "").strip(),
    },
}
