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
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise PatchFailed(f"operation {operation} does not apply: {error}") from error
    return root[""]


def _apply(root: dict[str, Value], operation: dict[str, Value]) -> None:
    op, path = operation["op"], operation["path"]
    if op in ("move", "copy"):
        value = copy(_read(root, operation["from"]))
        if op == "move":
            _remove(root, operation["from"])
        _add(root, path, value)
    elif op == "add":
        _add(root, path, copy(operation["value"]))
    elif op == "remove":
        _remove(root, path)
    elif op == "replace":
        _read(root, path)
        _remove(root, path)
        _add(root, path, copy(operation["value"]))
    elif op == "test":
        if _read(root, path, missing=None) != operation.get("value"):
            raise ValueError(f"testing value {path} failed")
    else:
        raise ValueError(f"unexpected kind: {op}")


_RAISE = object()


def _tokens(path: str) -> list[str]:
    if path and not path.startswith("/"):
        raise ValueError(f"{path!r} is not a JSON pointer")
    return [token.replace("~1", "/").replace("~0", "~") for token in path.split("/")]


def _read(root: Value, path: str, missing: Value = _RAISE) -> Value:
    node = root
    for token in _tokens(path):
        try:
            node = node[_index(token, len(node) - 1)] if isinstance(node, list) else node[token]
        except (KeyError, IndexError):
            if missing is _RAISE:
                raise
            return missing
    return node


def _index(token: str, last: int) -> int:
    index = int(token)
    if not 0 <= index <= last or token != str(index):
        raise IndexError(f"index {token} is out of range")
    return index


def _parent(root: Value, path: str) -> tuple[Value, str]:
    head, _, _ = path.rpartition("/")
    return (_read(root, head) if path else root), _tokens(path)[-1]


def _add(root: Value, path: str, value: Value) -> None:
    parent, key = _parent(root, path)
    if isinstance(parent, list):
        parent.insert(len(parent) if key == "-" else _index(key, len(parent)), value)
    elif isinstance(parent, dict):
        parent[key] = value
    else:
        raise TypeError(f"{path} has no parent")


def _remove(root: Value, path: str) -> None:
    parent, token = _parent(root, path)
    if isinstance(parent, list):
        del parent[_index(token, len(parent) - 1)]
    else:
        del parent[token]


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
