"""ObjectMeta: what may be in it, and what is wrong with one."""

from __future__ import annotations

from typing import Any

from srlm_contract.schema import FieldError
from srlm_local import errors, names
from srlm_local.jsontools import go_json, go_quote
from srlm_local.request import Request
from srlm_local.resources import ResourceType
from srlm_local.strategy import Strategy
from srlm_local.strictness import unknown_fields

Object = dict[str, Any]
_KNOWN: dict[str, type] = {
    "name": str,
    "generateName": str,
    "namespace": str,
    "selfLink": str,
    "uid": str,
    "resourceVersion": str,
    "generation": int,
    "creationTimestamp": str,
    "deletionTimestamp": str,
    "deletionGracePeriodSeconds": int,
    "labels": dict,
    "annotations": dict,
    "ownerReferences": list,
    "finalizers": list,
    "managedFields": list,
}
_OWNER_REQUIRED = {
    "apiVersion": "version must not be empty",
    "kind": "must not be empty",
    "name": "must not be empty",
    "uid": "must not be empty",
}
_OWNER_ORDER = ("apiVersion", "kind", "name", "uid", "controller", "blockOwnerDeletion")
MAX_ANNOTATIONS = 256 * 1024
STANDARD_FINALIZERS = {"orphan", "foregroundDeletion", "kubernetes"}
_GO_NAMES = {bool: "bool", int: "number", float: "number", str: "string", list: "array", dict: "object"}


def check_decoded(rt: ResourceType, obj: Any, request: Request, patched: Object | None = None) -> None:
    """Checks apiVersion, kind and the types inside metadata, and drops what metadata does not know.

    Raises 400 as a failed decoding does. `patched` is the object before the patch, if this is one: the same
    problem is then answered with 422.
    """
    if not isinstance(obj, dict):
        raise errors.bad_request(f"the object provided is no {rt.kind}")
    if obj.setdefault("apiVersion", rt.api_version) != rt.api_version:
        raise errors.bad_request(
            f"the API version in the data ({obj['apiVersion']}) does not match the expected API version "
            f"({rt.api_version})"
        )
    if obj.setdefault("kind", rt.kind) != rt.kind and not rt.custom:
        raise errors.bad_request(
            f'{obj["kind"]} in version "{rt.version}" cannot be handled as a {rt.kind}: no kind "{obj["kind"]}" is '
            f'registered for version "{rt.api_version}"'
        )
    meta = obj.get("metadata")
    if meta is None:
        meta = obj["metadata"] = {}
    if not isinstance(meta, dict):
        raise _undecodable(
            rt, f"json: cannot unmarshal {_go(meta)} into Go struct field .metadata of type v1.ObjectMeta"
        )
    for key, value in list(meta.items()):
        if value is None or key not in _KNOWN:
            if key not in _KNOWN:
                unknown_fields(rt, [f"metadata.{key}"], request, patched, obj)
            del meta[key]
        else:
            _check_type(rt, key, value)
            if value in ({}, []) and key != "managedFields":
                del meta[key]


def _check_type(rt: ResourceType, key: str, value: Any) -> None:
    wanted = _KNOWN[key]
    wrong: Any = None
    kind = {str: "string", int: "int64"}.get(wanted, "string")
    if wanted is dict:
        if not isinstance(value, dict):
            wrong, kind = value, "map[string]string"
        else:
            wrong = next((v for v in value.values() if not isinstance(v, str)), None)
    elif wanted is list:
        if not isinstance(value, list):
            wrong, kind = value, "[]string" if key == "finalizers" else "[]v1.OwnerReference"
        else:
            item = str if key == "finalizers" else dict
            wrong = next((v for v in value if not isinstance(v, item)), None)
    elif not isinstance(value, wanted) or isinstance(value, bool):
        wrong = value
    if wrong is not None:
        raise _undecodable(
            rt, f"json: cannot unmarshal {_go(wrong)} into Go struct field ObjectMeta.{key} of type {kind}"
        )


def _go(value: Any) -> str:
    return _GO_NAMES.get(type(value), "null")


def _undecodable(rt: ResourceType, why: str) -> errors.ApiError:
    return errors.bad_request(f'{rt.kind} in version "{rt.version}" cannot be handled as a {rt.kind}: {why}')


def _invalid(path: str, value: Any, message: str) -> FieldError:
    return FieldError(path, f"Invalid value: {go_json(value)}: {message}", "FieldValueInvalid")


def validate_metadata(obj: Object, rt: ResourceType, strategy: Strategy, old: Object | None = None) -> list[FieldError]:
    """Names, labels, annotations, owners and finalizers; on updates also what cannot change."""
    meta = obj["metadata"]
    found: list[FieldError] = []
    if not meta.get("name"):
        found.append(
            FieldError("metadata.name", "Required value: name or generateName is required", "FieldValueRequired")
        )
    elif old is None:
        rule = names.RULES[strategy.name_rule]
        found += [_invalid("metadata.name", meta["name"], message) for message in rule(meta["name"])]
    found += validate_labels(meta.get("labels") or {}, "metadata.labels")
    found += validate_annotations(meta.get("annotations") or {}, "metadata.annotations")
    found += _owners(meta.get("ownerReferences") or [])
    finalizers = meta.get("finalizers") or []
    for name in finalizers:
        found += [_invalid("metadata.finalizers", name, message) for message in names.qualified_name(name)]
    if old is not None:
        found += _unchanged(meta, old["metadata"], rt)
    return found


def warn_about_finalizers(obj: Object, request: Request) -> None:
    """Names without a domain are accepted with a warning."""
    for name in obj["metadata"].get("finalizers") or []:
        if "/" not in name and name not in STANDARD_FINALIZERS and not names.qualified_name(name):
            request.warn(
                f'metadata.finalizers: "{name}": prefer a domain-qualified finalizer name to avoid accidental '
                "conflicts with other finalizer writers"
            )


def validate_labels(labels: dict[str, str], path: str) -> list[FieldError]:
    found: list[FieldError] = []
    for key, value in labels.items():
        found += [_invalid(path, key, message) for message in names.qualified_name(key)]
        found += [_invalid(path, value, message) for message in names.label_value(value)]
    return found


def validate_annotations(annotations: dict[str, str], path: str) -> list[FieldError]:
    found: list[FieldError] = []
    for key in annotations:
        found += [_invalid(path, key, message) for message in names.qualified_name(key.lower())]
    size = sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items())
    if size > MAX_ANNOTATIONS:
        found.append(FieldError(path, f"Too long: may not be more than {MAX_ANNOTATIONS} bytes", "FieldValueTooLong"))
    return found


def _owners(owners: list[Object]) -> list[FieldError]:
    found: list[FieldError] = []
    controller: Object | None = None
    path = "metadata.ownerReferences"
    for owner in owners:
        for key, why in _OWNER_REQUIRED.items():
            if not owner.get(key):
                found.append(_invalid(f"{path}.{key}", owner.get(key, ""), why))
        if owner.get("controller"):
            if controller is not None:
                shown = [{k: o[k] for k in _OWNER_ORDER if k in o} for o in owners]
                both = f"{controller.get('kind')}/{controller.get('name')} and {owner.get('kind')}/{owner.get('name')}"
                found.append(
                    _invalid(
                        path,
                        shown,
                        f'Only one reference can have Controller set to true. Found "true" in references for {both}',
                    )
                )
            controller = owner
    return found


def _unchanged(meta: Object, old: Object, rt: ResourceType) -> list[FieldError]:
    found: list[FieldError] = []
    if "deletionTimestamp" in old:
        added = sorted(set(meta.get("finalizers") or []) - set(old.get("finalizers") or []))
        if added:
            listed = ", ".join(go_quote(name) for name in added)
            error = FieldError(
                "metadata.finalizers",
                "Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers "
                f"[]string{{{listed}}}",
                "FieldValueForbidden",
            )
            # Custom resources are validated twice by the real server, and its answer shows it.
            found += [error, error] if rt.custom else [error]
    if meta.get("uid") != old.get("uid"):
        error = _invalid("metadata.uid", meta.get("uid"), "field is immutable")
        found += [error, error] if rt.custom else [error]
    return found
