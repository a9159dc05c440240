"""ObjectMeta: what may be in it, and what is wrong with one."""

from __future__ import annotations

from typing import Any

from srlm_local.store import names
from srlm_local.store.errors import bad_request, barred, required, too_long, wrong
from srlm_local.store.resources import ResourceType
from srlm_operator.crd.schema import FieldError

Object = dict[str, Any]
_KNOWN: dict[str, type] = {
    **dict.fromkeys(("name", "generateName", "namespace", "selfLink", "uid", "resourceVersion"), str),
    **dict.fromkeys(("creationTimestamp", "deletionTimestamp"), str),
    **dict.fromkeys(("generation", "deletionGracePeriodSeconds"), int),
    **dict.fromkeys(("labels", "annotations"), dict),
    **dict.fromkeys(("ownerReferences", "finalizers", "managedFields"), list),
}
MAX_ANNOTATIONS = 256 * 1024


def check_decoded(rt: ResourceType, obj: Any) -> list[str]:
    """Checks apiVersion, kind and the types inside metadata. Raises 400.

    Drops what metadata does not know, in place, and returns the paths of that.
    """
    if not isinstance(obj, dict) or not isinstance(meta := obj.setdefault("metadata", {}) or {}, dict):
        raise bad_request(f"the object provided is no {rt.kind}")
    obj["metadata"] = meta
    if obj.setdefault("apiVersion", rt.api_version) != rt.api_version:
        raise bad_request(
            f"the API version in the data ({obj['apiVersion']}) does not match the expected API version "
            f"({rt.api_version})"
        )
    if obj.setdefault("kind", rt.kind) != rt.kind and not rt.custom:
        raise bad_request(f'{obj["kind"]} in version "{rt.version}" cannot be handled as a {rt.kind}')
    unknown = [f"metadata.{key}" for key in meta if key not in _KNOWN]
    for key, value in list(meta.items()):
        items = value.values() if isinstance(value, dict) else ()
        if key not in _KNOWN or value in (None, {}, [], ""):
            del meta[key]
        elif not isinstance(value, _KNOWN[key]) or not all(isinstance(item, str) for item in items):
            raise bad_request(f'{rt.kind} in version "{rt.version}" cannot be handled: metadata.{key} has a wrong type')
    meta.pop("managedFields", None)  # who set which field is not kept here
    return unknown


def validate_metadata(obj: Object, rt: ResourceType, old: Object | None = None) -> list[FieldError]:
    """Names, labels, annotations, owners and finalizers; on updates also what cannot change."""
    meta = obj["metadata"]
    found: list[FieldError] = []
    if not meta.get("name"):
        found.append(required("metadata.name", "name or generateName is required"))
    elif old is None:
        found += [wrong("metadata.name", meta["name"], message) for message in rt.rules.valid_name(meta["name"])]
    found += validate_labels(meta.get("labels") or {}, "metadata.labels")
    found += validate_annotations(meta.get("annotations") or {}, "metadata.annotations")
    found += _owners(meta.get("ownerReferences") or [])
    for name in meta.get("finalizers") or []:
        found += [wrong("metadata.finalizers", name, message) for message in names.qualified_name(name)]
    if old is not None:
        found += _unchanged(meta, old["metadata"])
    return found


def validate_labels(labels: dict[str, str], path: str) -> list[FieldError]:
    found: list[FieldError] = []
    for key, value in labels.items():
        found += [wrong(path, key, message) for message in names.qualified_name(key)]
        found += [wrong(path, value, message) for message in names.label_value(value)]
    return found


def validate_annotations(annotations: dict[str, str], path: str) -> list[FieldError]:
    found = [wrong(path, key, message) for key in annotations for message in names.qualified_name(key.lower())]
    size = sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items())
    return [*found, too_long(path, MAX_ANNOTATIONS)] if size > MAX_ANNOTATIONS else found


def _owners(owners: list[Object]) -> list[FieldError]:
    return [
        wrong(f"metadata.ownerReferences.{key}", owner.get(key, ""), "must not be empty")
        for owner in owners
        for key in ("apiVersion", "kind", "name", "uid")
        if not owner.get(key)
    ]


def _unchanged(meta: Object, old: Object) -> list[FieldError]:
    found: list[FieldError] = []
    added = sorted(set(meta.get("finalizers") or []) - set(old.get("finalizers") or []))
    if added and "deletionTimestamp" in old:
        why = f"no new finalizers can be added if the object is being deleted, found new finalizers {added}"
        found.append(barred("metadata.finalizers", why))
    if meta.get("uid") != old.get("uid"):
        found.append(wrong("metadata.uid", meta.get("uid"), "field is immutable"))
    return found
