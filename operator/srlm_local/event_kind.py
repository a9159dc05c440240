"""Events as objects: the few fields that are always shown, and what the two API groups demand."""

from __future__ import annotations

import json
from typing import Any

from srlm_contract.schema import FieldError
from srlm_local import names
from srlm_local.strategy import Strategy

Object = dict[str, Any]
_LENGTHS = {"reportingInstance": 128, "action": 128, "reason": 128}
_NAMES = {"reportingComponent": "reportingController", "message": "message"}
_FROZEN = (
    "involvedObject",
    "reason",
    "message",
    "reportingComponent",
    "reportingInstance",
    "action",
    "related",
    "type",
    "eventTime",
)


def _invalid(path: str, value: Any, why: str) -> FieldError:
    return FieldError(path, f"Invalid value: {json.dumps(value)}: {why}", "FieldValueInvalid")


class EventStrategy(Strategy):
    """`modern`: the rules of events.k8s.io/v1, which are stricter than those of the core group."""

    def __init__(self, *, modern: bool) -> None:
        self._modern = modern

    def default(self, obj: Object) -> None:
        obj.setdefault("source", {})
        for key in ("firstTimestamp", "lastTimestamp", "eventTime"):
            obj.setdefault(key, None)
        for key in ("reportingComponent", "reportingInstance"):
            obj.setdefault(key, "")

    def validate(self, obj: Object, old: Object | None) -> list[FieldError]:
        if old is not None:
            return self._unchanged(obj, old) if self._modern else []
        found = _namespace(obj)
        if obj.get("eventTime"):
            found += _series(obj, self._modern)
        if self._modern:
            if not obj.get("eventTime"):
                found.append(FieldError("eventTime", "Required value", "FieldValueRequired"))
            if obj.get("type") not in ("Normal", "Warning"):
                found.append(_invalid("type", "", f"has invalid value: {obj.get('type', '')}"))
        return found

    def _unchanged(self, obj: Object, old: Object) -> list[FieldError]:
        return [
            _invalid(_NAMES.get(key, key), obj.get(key), "field is immutable")
            for key in _FROZEN
            if obj.get(key) != old.get(key)
        ]


def _namespace(event: Object) -> list[FieldError]:
    mine, about = event["metadata"]["namespace"], (event.get("involvedObject") or {}).get("namespace", "")
    fine = mine == about if about else mine in ("default", "kube-system" if event.get("eventTime") else "default")
    return [] if fine else [_invalid("involvedObject.namespace", about, "does not match event.namespace")]


def _series(event: Object, modern: bool) -> list[FieldError]:
    """Events with an eventTime name who reports what."""
    found = []
    reporter = event.get("reportingComponent") or ""
    at = "reportingController" if modern else "reportingComponent"
    if not reporter:
        found.append(FieldError(at, "Required value", "FieldValueRequired"))
    found += [_invalid(at, reporter, why) for why in (names.qualified_name(reporter) if reporter else [])]
    for key, most in _LENGTHS.items():
        value = event.get(key) or ""
        if not value:
            found.append(FieldError(key, "Required value", "FieldValueRequired"))
        elif len(value) > most:
            found.append(_invalid(key, "", f"can have at most {most} characters"))
    if len(event.get("message") or "") > 1024:
        found.append(_invalid("message", "", "can have at most 1024 characters"))
    return found
