"""What an update may change: the main endpoint no status, /status nothing else, neither what the server sets."""

from __future__ import annotations

from typing import Any

from srlm_contract.schema import FieldError
from srlm_local import errors
from srlm_local.jsontools import copy
from srlm_local.resources import ResourceType

Object = dict[str, Any]


def check_version(rt: ResourceType, old: Object, new: Object, patched: bool) -> None:
    """Raises 409 for a stale resourceVersion or another uid, 422 if a version is needed and missing."""
    meta, have = new["metadata"], old["metadata"]
    version = meta.get("resourceVersion") or ""
    if not version and not rt.unconditional and not patched:
        error = FieldError(
            "metadata.resourceVersion", "Invalid value: 0: must be specified for an update", "FieldValueInvalid"
        )
        raise errors.invalid(rt.plural, rt.group, have["name"], [error])
    if version and not version.isdigit():
        raise errors.ApiError(500, "", f'strconv.ParseUint: parsing "{version}": invalid syntax')
    if not patched and meta.get("uid") and meta["uid"] != have["uid"]:
        group = f"{rt.group}/" if rt.group else ""
        key = f"/registry/{group}{rt.plural}/{have.get('namespace', '')}/{have['name']}"
        raise errors.conflict(
            rt.plural,
            rt.group,
            have["name"],
            f"StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: "
            f"Precondition failed: UID in precondition: {meta['uid']}, UID in object meta: {have['uid']}",
        )
    if version and version != have["resourceVersion"]:
        raise errors.conflict(rt.plural, rt.group, have["name"])


def isolated(rt: ResourceType, old: Object, new: Object, subresource: str) -> Object:
    """`new` with everything taken from `old` that this endpoint may not change."""
    new = copy(new)
    meta, have = new["metadata"], old["metadata"]
    if subresource == "status" and rt.custom:
        given = new
        new = {**copy(old), "status": given.get("status")}
        if given.get("status") is None:
            del new["status"]
        meta = new["metadata"]
        for key in ("managedFields", "uid"):
            if key in given["metadata"]:
                meta[key] = given["metadata"][key]
    elif subresource == "status":
        kept = {key: copy(value) for key, value in old.items() if key not in ("metadata", "status")}
        new = {**kept, "metadata": meta, **({"status": new["status"]} if "status" in new else {})}
        if "ownerReferences" in have:
            meta["ownerReferences"] = copy(have["ownerReferences"])
    elif rt.status:
        new.pop("status", None)
        if "status" in old:
            new["status"] = copy(old["status"])
    for key in (
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "generateName",
        "namespace",
        "selfLink",
    ):
        if key in have:
            meta[key] = have[key]
        else:
            meta.pop(key, None)
    meta.setdefault("uid", have["uid"])
    meta["uid"] = meta["uid"] or have["uid"]
    meta["name"] = have["name"]
    meta["resourceVersion"] = have["resourceVersion"]
    return new


def spec_changed(rt: ResourceType, old: Object, new: Object) -> bool:
    ignored = {"metadata", "apiVersion", "kind"} | ({"status"} if rt.status else set())
    return {k: v for k, v in old.items() if k not in ignored} != {k: v for k, v in new.items() if k not in ignored}


def same(new: Object, old: Object) -> bool:
    """Whether nothing but times in managedFields differ."""
    return _without_times(new) == _without_times(old)


def _without_times(obj: Object) -> Object:
    fields = obj["metadata"].get("managedFields")
    if not fields:
        return obj
    bare = [{k: v for k, v in entry.items() if k != "time"} for entry in fields]
    return {**obj, "metadata": {**obj["metadata"], "managedFields": bare}}
