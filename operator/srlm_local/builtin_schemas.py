"""Schemas of the built-in kinds, read off the models of the official Python client.

They decide which fields exist and of what type they are, and are what /openapi serves.
"""

from __future__ import annotations

import functools
import importlib
import re
from typing import Any

from srlm_local.patching import SET_LISTS, merge_key
from srlm_local.resources import ResourceType

Schema = dict[str, Any]
_EVENTS = {"": "CoreV1Event", "events.k8s.io": "EventsV1Event"}
_SCALARS: dict[str, Schema] = {
    "str": {"type": "string"},
    "int": {"type": "integer", "format": "int64"},
    "float": {"type": "number", "format": "double"},
    "bool": {"type": "boolean"},
    "datetime": {"type": "string", "format": "date-time"},
    "bytes": {"type": "string", "format": "byte"},
    "object": {},
}
QUANTITY_MAPS = {
    "limits",
    "requests",
    "hard",
    "used",
    "capacity",
    "allocatable",
    "default",
    "defaultRequest",
    "min",
    "max",
}
MICRO_TIMES = {"renewTime", "acquireTime", "eventTime", "lastObservedTime"}
# Lists that are sets or maps for server-side apply though strategic merge patch replaces them, and the other
# way round; beyond these the merge keys of strategic merge patch serve for both.
_APPLY_KEYS: dict[str, list[str]] = {
    "containers.ports": ["containerPort", "protocol"],
    "initContainers.ports": ["containerPort", "protocol"],
    "spec.ports": ["port", "protocol"],
    "topologySpreadConstraints": ["topologyKey", "whenUnsatisfiable"],
}
_APPLY_SETS = {"finalizers", "accessModes"}
# Atomic although they have a merge key, or the other way round.
_ATOMIC_MAPS = {
    "selector",
    "nodeSelector",
    "resourceFieldRef",
    "fieldRef",
    "secretKeyRef",
    "configMapKeyRef",
    "claimRef",
}


@functools.cache
def _models() -> Any:
    return importlib.import_module("kubernetes.client")


def model_name(rt: ResourceType) -> str:
    if rt.kind == "Event":
        return _EVENTS[rt.group]
    return f"V1{rt.kind}"


def fields(model: str) -> dict[str, tuple[str, str]]:
    """JSON name -> (type as the client writes it, description) of a model such as `V1JobSpec`."""
    return dict(_fields(model))


@functools.cache
def _fields(model: str) -> dict[str, tuple[str, str]]:
    cls = getattr(_models(), model)
    found = {}
    for name, kind in cls.openapi_types.items():
        described = cls.model_fields[name].description if name in cls.model_fields else ""
        found[cls.attribute_map[name]] = (kind, described or "")
    return found


@functools.cache
def describe(kind: str, name: str = "", parent: str = "") -> Schema:
    """The schema of a client type. References to other models are `$ref` to /components/schemas."""
    if match := re.fullmatch(r"List\[(.*)\]", kind):
        schema: Schema = {"type": "array", "items": describe(match[1], name, parent)}
        if name in _APPLY_SETS or name in SET_LISTS:
            schema["x-kubernetes-list-type"] = "set"
            schema["x-kubernetes-patch-strategy"] = "merge"
        elif key := merge_key(name, parent):
            schema["x-kubernetes-patch-merge-key"] = key
            schema["x-kubernetes-patch-strategy"] = "merge"
            schema["x-kubernetes-list-type"] = "map"
            schema["x-kubernetes-list-map-keys"] = apply_keys(name, parent) or [key]
        else:
            schema["x-kubernetes-list-type"] = "atomic"
        return schema
    if match := re.fullmatch(r"Dict\[str, (.*)\]", kind):
        return {"type": "object", "additionalProperties": describe(match[1])}
    if kind in _SCALARS:
        return dict(_SCALARS[kind])
    return {"$ref": f"#/components/schemas/{kind}"}


def apply_keys(name: str, parent: str) -> list[str] | None:
    """Keys of a list of type map where they differ from the merge key."""
    return _APPLY_KEYS.get(f"{parent}.{name}") or _APPLY_KEYS.get(name)


def is_atomic(name: str) -> bool:
    """Whether a map or struct field is owned as a whole."""
    return name in _ATOMIC_MAPS


def components(models: list[str]) -> dict[str, Schema]:
    """These models and all that they refer to, as an OpenAPI `components.schemas`."""
    found: dict[str, Schema] = {}
    waiting = list(models)
    while waiting:
        model = waiting.pop()
        if model in found:
            continue
        properties: dict[str, Schema] = {}
        for name, (kind, described) in _fields(model).items():
            inner = describe(kind, name, _field_of(model))
            entry = {"allOf": [inner]} if "$ref" in inner else dict(inner)
            properties[name] = {"description": described, **entry} if described else entry
            referred = re.sub(r"^(List|Dict)\[(str, )?|\]$", "", kind)
            if referred not in _SCALARS and not referred.startswith(("List", "Dict")):
                waiting.append(referred)
        doc = (getattr(_models(), model).__doc__ or "").strip().split("\n")[0]
        found[model] = {"type": "object", "description": doc, "properties": properties}
    return found


def _field_of(model: str) -> str:
    """The field in which a model usually sits; it decides the key of `ports`."""
    return "spec" if model.endswith("ServiceSpec") else "containers"
