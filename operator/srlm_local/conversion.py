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
_SHOWN_IF_SET = ("reportingController", "reportingInstance")


def outward(rt: ResourceType, obj: Object) -> Object:
    """A stored object as this resource shows it."""
    if not rt.stored_as:
        return obj
    shown = {_TO_NEW.get(key, key): value for key, value in obj.items()}
    shown = {key: value for key, value in shown.items() if value or key not in _SHOWN_IF_SET}
    return {**shown, "kind": rt.kind, "apiVersion": rt.api_version}


def inward(rt: ResourceType, obj: Object) -> Object:
    """An object of this resource as it is stored."""
    if not rt.stored_as:
        return obj
    return {**{_TO_CORE.get(key, key): value for key, value in obj.items()}, "kind": rt.kind, "apiVersion": "v1"}
