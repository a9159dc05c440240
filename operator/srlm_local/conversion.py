"""Events are stored once and served as core v1 and as events.k8s.io/v1; here is how the one becomes the other."""

from __future__ import annotations

from typing import Any

from srlm_local.resources import ResourceType

Object = dict[str, Any]
_TO_NEW = {
    "involvedObject": "regarding",
    "message": "note",
    "reportingComponent": "reportingController",
    "source": "deprecatedSource",
    "count": "deprecatedCount",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
}
_TO_CORE = {new: core for core, new in _TO_NEW.items()}


def _is_new_event(rt: ResourceType) -> bool:
    return rt.group == "events.k8s.io"


def outward(rt: ResourceType, obj: Object) -> Object:
    """A stored object as this resource shows it."""
    if not _is_new_event(rt):
        return obj
    shown = {_TO_NEW.get(key, key): value for key, value in obj.items()}
    reporter = shown.pop("reportingInstance", None)
    if reporter is not None:
        shown["reportingInstance"] = reporter
    return {**shown, "kind": "Event", "apiVersion": "events.k8s.io/v1"}


def inward(rt: ResourceType, obj: Any) -> Any:
    """An object of this resource as it is stored."""
    if not _is_new_event(rt) or not isinstance(obj, dict):
        return obj
    return {_TO_CORE.get(key, key): value for key, value in obj.items()}
