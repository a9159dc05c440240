"""JSON patch (RFC 6902), JSON merge patch (RFC 7386) and strategic merge patch."""

from __future__ import annotations

from typing import Any

from srlm_local.store.values import copy

Value = Any


class PatchFailed(ValueError):
    """The patch cannot be applied to this object."""


def merge_patch(target: Value, patch: Value) -> Value:
    """RFC 7386. Neither argument is changed."""
    if not isinstance(patch, dict):
        return copy(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patch(result.get(key), value)
    return result


def json_patch(target: Value, operations: list[dict[str, Value]]) -> Value:
    """RFC 6902. Raises PatchFailed if an operation does not apply or a test fails."""
    root = {"": copy(target)}
    for operation in operations:
        try:
            _apply(root, operation)
        except (LookupError, TypeError, ValueError) as error:
            raise PatchFailed(f"operation {operation} does not apply: {error}") from error
    return root[""]


def _apply(root: Value, operation: dict[str, Value]) -> None:
    op, value = operation["op"], copy(operation.get("value"))
    if op in ("move", "copy"):
        parent, key = _place(root, operation["from"])
        value = copy(parent[key])
        if op == "move":
            del parent[key]
    parent, key = _place(root, operation["path"], adding=op in ("add", "move", "copy"))
    there = parent[key] if op in ("remove", "replace", "test") else None  # it must be
    if op == "remove":
        del parent[key]
    elif op == "replace":
        parent[key] = value
    elif op == "test":
        if there != value:
            raise ValueError("the value is another one")
    elif op not in ("add", "move", "copy"):
        raise ValueError("there is no such operation")
    elif isinstance(parent, list):
        parent.insert(key, value)
    else:
        parent[key] = value


def _place(root: Value, pointer: str, *, adding: bool = False) -> tuple[Value, Value]:
    """(the object or list, the key or index in it) that a JSON pointer names."""
    node, *tokens = root, *(token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/"))
    for depth, token in enumerate(tokens):
        last = depth == len(tokens) - 1
        key: Value = token
        if isinstance(node, list):
            key = len(node) if token == "-" and last and adding else int(token)  # noqa: S105 - a place in a list
            if (token not in ("-", str(key))) or not 0 <= key < len(node) + (last and adding):
                raise IndexError(f"index {token} is out of range")
        if last:
            return node, key
        node = node[key]
    raise ValueError("an empty pointer")


#: Merge keys of the lists of built-in types, by the name of the field; a field not listed is replaced as a whole.
MERGE_KEYS: dict[str, str] = {
    **dict.fromkeys(("containers", "initContainers", "volumes", "env", "imagePullSecrets", "secrets"), "name"),
    **dict.fromkeys(("schedulingGates", "resourceClaims"), "name"),
    **dict.fromkeys(("conditions", "addresses"), "type"),
    "volumeMounts": "mountPath",
    "topologySpreadConstraints": "topologyKey",
    "ownerReferences": "uid",
}


def _merge_key(field: str, parent: str) -> str | None:
    if field == "ports":
        return "port" if parent == "spec" else "containerPort"
    return MERGE_KEYS.get(field)


def strategic_merge(target: Value, patch: Value, field: str = "", parent: str = "") -> Value:
    """A strategic merge patch with $patch, $deleteFromPrimitiveList and $retainKeys; $setElementOrder is ignored."""
    if isinstance(patch, list):
        return _merge_list(target if isinstance(target, list) else [], patch, field, parent)
    if not isinstance(patch, dict):
        return copy(patch)
    if patch.get("$patch") == "replace":
        return copy({key: value for key, value in patch.items() if key != "$patch"})
    if patch.get("$patch") == "delete":
        return {}
    result = dict(target) if isinstance(target, dict) else {}
    if "$retainKeys" in patch:
        result = {key: value for key, value in result.items() if key in patch["$retainKeys"]}
    for key, value in patch.items():
        directive, _, name = key.partition("/")
        if directive == "$deleteFromPrimitiveList":
            result[name] = [item for item in result.get(name) or [] if item not in value]
        elif directive in ("$setElementOrder", "$patch", "$retainKeys"):
            continue
        elif value is None:
            result.pop(key, None)
        else:
            result[key] = strategic_merge(result.get(key), value, key, field)
    return result


def _merge_list(target: list[Value], patch: list[Value], field: str, parent: str) -> list[Value]:
    if field == "finalizers":
        return [*target, *(item for item in patch if item not in target)]
    key = _merge_key(field, parent)
    replaced = any(isinstance(item, dict) and item.get("$patch") == "replace" for item in patch)
    if key is None or replaced:
        return copy([item for item in patch if not (isinstance(item, dict) and item.get("$patch") == "replace")])
    merged = {item.get(key): item for item in target}
    for item in patch:
        if not isinstance(item, dict) or key not in item:
            raise PatchFailed(f"map: {item} does not contain declared merge key: {key}")
        if item.get("$patch") == "delete":
            merged.pop(item[key], None)
        else:
            merged[item[key]] = strategic_merge(merged.get(item[key], {}), item, field, parent)
    return list(merged.values())
