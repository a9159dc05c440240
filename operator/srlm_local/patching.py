"""JSON patch (RFC 6902), JSON merge patch (RFC 7386) and strategic merge patch."""

from __future__ import annotations

from typing import Any

from srlm_local.jsontools import copy

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


# Merge keys of the lists of built-in types, by the name of the field; a field not listed is replaced as a
# whole. Fields of the same name in different places have the same key in every type served here, but those
# in _BY_PARENT.
MERGE_KEYS: dict[str, str] = {
    "containers": "name",
    "initContainers": "name",
    "ephemeralContainers": "name",
    "volumes": "name",
    "env": "name",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "imagePullSecrets": "name",
    "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
    "ownerReferences": "uid",
    "conditions": "type",
    "addresses": "type",
    "secrets": "name",
    "schedulingGates": "name",
    "resourceClaims": "name",
    "podIPs": "ip",
    "hostIPs": "ip",
}
SET_LISTS = {"finalizers"}


def merge_key(field: str, parent: str) -> str | None:
    """The key of the items of a list field, None if the list is atomic (`ports` depends on its parent)."""
    if field == "ports":
        return "port" if parent == "spec" else "containerPort"
    if field == "conditions" and parent == "rules":
        return None
    return MERGE_KEYS.get(field)


def strategic_merge(target: Value, patch: Value, field: str = "", parent: str = "") -> Value:
    """A strategic merge patch with the directives $patch, $deleteFromPrimitiveList, $setElementOrder, $retainKeys."""
    if isinstance(patch, list):
        return _merge_list(target if isinstance(target, list) else [], patch, field, parent)
    if not isinstance(patch, dict):
        return copy(patch)
    directive = patch.get("$patch")
    if directive == "replace":
        return copy({k: v for k, v in patch.items() if k != "$patch"})
    if directive == "delete":
        return {}
    result = dict(target) if isinstance(target, dict) else {}
    if "$retainKeys" in patch:
        result = {key: value for key, value in result.items() if key in patch["$retainKeys"]}
    for key, value in patch.items():
        if key.startswith("$setElementOrder/") or key in ("$patch", "$retainKeys"):
            continue
        if key.startswith("$deleteFromPrimitiveList/"):
            name = key.partition("/")[2]
            result[name] = [item for item in result.get(name) or [] if item not in value]
        elif value is None:
            result.pop(key, None)
        else:
            result[key] = strategic_merge(result.get(key), value, key, field)
    for key, order in patch.items():
        if key.startswith("$setElementOrder/") and isinstance(result.get(name := key.partition("/")[2]), list):
            result[name] = _ordered(result[name], order, merge_key(name, field))
    return result


def _merge_list(target: list[Value], patch: list[Value], field: str, parent: str) -> list[Value]:
    if field in SET_LISTS:
        return [*target, *(item for item in patch if item not in target)]
    key = merge_key(field, parent)
    if key is None or any(isinstance(item, dict) and item.get("$patch") == "replace" for item in patch):
        return copy([item for item in patch if not (isinstance(item, dict) and item.get("$patch") == "replace")])
    have = {item.get(key): item for item in target}
    patched: list[Value] = []
    for item in patch:
        if not isinstance(item, dict) or key not in item:
            raise PatchFailed(f"map: {item} does not contain declared merge key: {key}")
        if item.get("$patch") != "delete":
            patched.append(strategic_merge(have.get(item[key], {}), item, field, parent))
    named = {item[key] for item in patch}
    kept = [item for item in target if item.get(key) not in named]
    return _interleaved(kept, patched, [item.get(key) for item in target], key)


def _interleaved(kept: list[Value], patched: list[Value], order: list[Value], key: str) -> list[Value]:
    """Both lists in one, as apimachinery does it: a kept item comes before a patched one only if it did so before."""
    result: list[Value] = []
    kept, patched = list(kept), list(patched)
    while kept and patched:
        name = patched[0][key]
        first = name in order and order.index(kept[0].get(key)) < order.index(name)
        result.append((kept if first else patched).pop(0))
    return [*result, *kept, *patched]


def _ordered(items: list[Value], order: list[Value], key: str | None) -> list[Value]:
    names = [entry.get(key) if key and isinstance(entry, dict) else entry for entry in order]
    rank = {name: i for i, name in enumerate(names)}

    def place(item: Value) -> int:
        return rank.get(item.get(key) if key and isinstance(item, dict) else item, len(rank))

    return sorted(items, key=place)
