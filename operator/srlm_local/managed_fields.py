"""managedFields: who set which field, and server-side apply.

track(...)                what a create, update or patch changed is noted for its manager, and taken from others
apply_configuration(...)  the object after an apply, or 409 where it would change what others own
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from srlm_local import errors
from srlm_local.errors import ApiError
from srlm_local.field_sets import (
    FieldSet,
    Path,
    UnknownField,
    difference,
    field_set,
    from_json,
    merge,
    readable,
    remove,
    root_shape,
    to_json,
)
from srlm_local.jsontools import copy
from srlm_local.request import Request

if TYPE_CHECKING:
    from srlm_local.cluster import Cluster
    from srlm_local.resources import ResourceType

Object = dict[str, Any]
Key = tuple[str, str, str]
"""(manager, operation, subresource)"""
_SYSTEM = frozenset(
    {("f:apiVersion",), ("f:kind",), ("f:metadata",)}
    | {
        ("f:metadata", f"f:{name}")
        for name in (
            "name",
            "namespace",
            "creationTimestamp",
            "selfLink",
            "uid",
            "generation",
            "managedFields",
            "resourceVersion",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
        )
    }
)


def track(
    cluster: Cluster, rt: ResourceType, new: Object, old: Object | None, request: Request, subresource: str = ""
) -> None:
    """Notes in new.metadata.managedFields who changed what. Changes `new` in place."""
    meta = new["metadata"]
    if request.apply:
        return  # apply_configuration has done it
    reset = meta.get("managedFields") == []
    before = {} if reset or old is None else _managers(old)
    versions = {} if old is None else _entries(old)
    changed = difference(root_shape(rt), _bare(old) if old else {}, _bare(new))
    touched = _owned_here(rt, changed.added | changed.modified, subresource)
    removed = frozenset(changed.removed)
    mine: Key = (request.manager, "Update", subresource)
    after = {key: fields - removed - (touched if key != mine else frozenset()) for key, fields in before.items()}
    after[mine] = (after.get(mine, frozenset()) | touched) - removed
    _store(cluster, rt, meta, after, before, versions)


def apply_configuration(
    cluster: Cluster, rt: ResourceType, old: Object | None, config: Object, subresource: str, request: Request
) -> Object:
    """The object that results from applying `config` to `old`, with its managedFields.

    Fields that this manager applied before and does not any more are removed, unless others own them too.
    Raises ApiError 409 with one cause per field that others own and that would change, 500 for unknown fields.
    """
    shape = root_shape(rt)
    config = copy(config)
    if config["metadata"].get("managedFields") is not None:
        raise errors.bad_request("metadata.managedFields must be nil")
    try:
        applied = _owned_here(rt, field_set(shape, config), subresource)
    except UnknownField as error:
        where = f"{request.namespace_given}/{config['metadata'].get('name', '')}; {rt.api_version}, Kind={rt.kind}"
        raise ApiError(500, "", f"failed to create typed patch object ({where}): {error}") from None
    live: Object = copy(old) if old is not None else {}
    before = _managers(live)
    mine: Key = (request.manager, "Apply", subresource)
    merged: Object = merge(shape, live, config)
    after = {**before, mine: applied}
    owned = frozenset().union(*after.values())
    gone = before.get(mine, frozenset()) - owned
    if gone:
        merged = remove(shape, merged, gone)
    changed = difference(shape, _bare(live), _bare(merged))
    touched = frozenset(changed.added | changed.modified)
    conflicts = [(key, sorted(fields & touched)) for key, fields in before.items() if key != mine and fields & touched]
    if conflicts and not request.force:
        raise _conflict(rt, conflicts)
    removed = frozenset(changed.removed)
    after = {key: fields if key == mine else fields - touched - removed for key, fields in after.items()}
    _store(cluster, rt, merged.setdefault("metadata", {}), after, before, _entries(live))
    return merged


def _bare(obj: Object) -> Object:
    """An object without what managedFields never tell of."""
    meta = {key: value for key, value in obj.get("metadata", {}).items() if ("f:metadata", f"f:{key}") not in _SYSTEM}
    return {**obj, "metadata": meta}


def _owned_here(rt: ResourceType, fields: FieldSet | set[Path], subresource: str) -> FieldSet:
    """The fields that can be set through this endpoint."""

    def counts(path: Path) -> bool:
        if path in _SYSTEM:
            return False
        if subresource == "status":
            return path[0] == "f:status" or (not rt.custom and path[0] == "f:metadata")
        return not (rt.status and path[0] == "f:status")

    return frozenset(path for path in fields if counts(path))


def _key(entry: Object) -> Key:
    return entry.get("manager", ""), entry.get("operation", "Update"), entry.get("subresource", "")


def _entries(obj: Object) -> dict[Key, Object]:
    return {_key(entry): entry for entry in obj.get("metadata", {}).get("managedFields") or []}


def _managers(obj: Object) -> dict[Key, FieldSet]:
    return {key: from_json(entry.get("fieldsV1") or {}) for key, entry in _entries(obj).items()}


def _store(
    cluster: Cluster,
    rt: ResourceType,
    meta: Object,
    after: dict[Key, FieldSet],
    before: dict[Key, FieldSet],
    entries: dict[Key, Object],
) -> None:
    """Writes managers with fields; an entry keeps its time while its fields stay the same."""
    found = []
    for key, fields in after.items():
        if not fields:
            continue
        if before.get(key) == fields and key in entries:
            found.append(entries[key])
            continue
        manager, operation, subresource = key
        entry: Object = {
            "manager": manager,
            "operation": operation,
            "apiVersion": rt.api_version,
            "time": cluster.timestamp(),
            "fieldsType": "FieldsV1",
            "fieldsV1": to_json(fields),
        }
        if subresource:
            entry["subresource"] = subresource
        found.append(entry)
    found.sort(key=lambda e: (e["operation"], e.get("time", ""), e["manager"], e.get("subresource", "")))
    if found:
        meta["managedFields"] = found
    else:
        meta.pop("managedFields", None)


def _conflict(rt: ResourceType, conflicts: list[tuple[Key, list[Path]]]) -> ApiError:
    causes = []
    lines: dict[str, list[str]] = {}
    for (manager, operation, subresource), paths in conflicts:
        who = f'"{manager}"'
        if subresource:
            who += f' with subresource "{subresource}"'
        if operation == "Update":
            who += f" using {rt.api_version}"
        for path in paths:
            causes.append(
                {"reason": "FieldManagerConflict", "message": f"conflict with {who}", "field": readable(path)}
            )
            lines.setdefault(who, []).append(readable(path))
    if len(causes) == 1:
        who, (only,) = next(iter(lines.items()))
        text = f"Apply failed with 1 conflict: conflict with {who}: {only}"
    else:
        parts = [
            f"conflicts with {who}:\n" + "\n".join(f"- {p}" for p in paths) for who, paths in sorted(lines.items())
        ]
        text = f"Apply failed with {len(causes)} conflicts: " + "\n".join(parts)
    return ApiError(409, "Conflict", text, {"causes": causes})
