"""What an update may change: the main endpoint no status, /status nothing else, neither what the server sets."""

from __future__ import annotations

from typing import Any

from srlm_local.store import errors
from srlm_local.store.resources import ResourceType
from srlm_local.store.values import copy

Object = dict[str, Any]
_SYSTEM = (
    "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "generateName", "namespace",
    "selfLink",
)  # fmt: skip


def check_version(rt: ResourceType, old: Object, new: Object, patched: bool) -> None:
    """Raises 409 for a stale resourceVersion or another uid, 422 if a version is needed and missing."""
    meta, have = new["metadata"], old["metadata"]
    version = meta.get("resourceVersion") or ""
    if not version and not rt.unconditional and not patched:
        error = errors.wrong("metadata.resourceVersion", 0, "must be specified for an update")
        raise errors.invalid(rt.plural, rt.group, have["name"], [error])
    if version and not version.isdigit():
        raise errors.ApiError(500, "", f'strconv.ParseUint: parsing "{version}": invalid syntax')
    if not patched and meta.get("uid") and meta["uid"] != have["uid"]:
        why = f"Precondition failed: UID in precondition: {meta['uid']}, UID in object meta: {have['uid']}"
        raise errors.conflict(rt.plural, rt.group, have["name"], why)
    if version and version != have["resourceVersion"]:
        raise errors.conflict(rt.plural, rt.group, have["name"])


def isolated(rt: ResourceType, old: Object, new: Object, subresource: str) -> Object:
    """`new` with everything taken from `old` that this endpoint may not change."""
    new = copy(new)
    meta, have = new["metadata"], old["metadata"]
    if subresource == "status":
        status = {"status": new["status"]} if new.get("status") is not None else {}
        new = {**{key: copy(value) for key, value in old.items() if key not in ("metadata", "status")}, **status}
        # Labels and the like may change at /status of built-in kinds, but not of custom ones.
        kept = copy(have) if rt.custom else {"ownerReferences": copy(have.get("ownerReferences") or [])}
        meta = new["metadata"] = {**({} if rt.custom else meta), **{k: v for k, v in kept.items() if v != []}}
    elif rt.status:
        new.pop("status", None)
        if "status" in old:
            new["status"] = copy(old["status"])
    for key in _SYSTEM:
        if key in have:
            meta[key] = have[key]
        else:
            meta.pop(key, None)
    meta["uid"] = meta.get("uid") or have["uid"]
    meta["name"] = have["name"]
    meta["resourceVersion"] = have["resourceVersion"]
    return new


def spec_changed(rt: ResourceType, old: Object, new: Object) -> bool:
    ignored = {"metadata", "apiVersion", "kind"} | ({"status"} if rt.status else set())
    return {k: v for k, v in old.items() if k not in ignored} != {k: v for k, v in new.items() if k not in ignored}
