"""Strategic merge patches, as Kubernetes applies them to its own kinds. Pure."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

#: Lists that merge by a key, as Kubernetes declares them; all other lists are replaced.
MERGE_KEYS: Mapping[str, str] = {
    **dict.fromkeys(("containers", "initContainers", "ephemeralContainers", "env", "volumes"), "name"),
    **dict.fromkeys(("imagePullSecrets", "resourceClaims", "secrets"), "name"),
    **dict.fromkeys(("conditions", "addresses"), "type"),
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "ports": "containerPort",
    "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
    "ownerReferences": "uid",
}
_KINDS: Mapping[type, str] = {Mapping: "an object", list: "a list"}


class PatchFailed(ValueError):
    """The patch does not fit the object; the message begins with the path."""


def strategic_merge(target: Any, patch: Any, path: str = "") -> Any:
    """The target with the patch merged in; neither is changed. path: what both are, for messages and merge keys.

    Knows $patch, $deleteFromPrimitiveList and $retainKeys; $setElementOrder is ignored. Raises PatchFailed.
    """
    for kind, words in _KINDS.items():
        if isinstance(target, kind) and not isinstance(patch, kind):
            raise PatchFailed(f"{path}: found {type(patch).__name__} where {words} belongs")
    if isinstance(patch, list):
        return _merge_list(target or [], patch, path)
    if not isinstance(patch, Mapping):
        return patch
    if patch.get("$patch") == "replace":
        return copy.deepcopy(_plain(patch))
    if patch.get("$patch") == "delete":
        return {}
    kept = patch.get("$retainKeys")
    result = {key: value for key, value in (target or {}).items() if kept is None or key in kept}
    for key, value in patch.items():
        directive, _, name = key.partition("/")
        if directive == "$deleteFromPrimitiveList":
            result[name] = [item for item in result.get(name) or [] if item not in value]
        elif directive.startswith("$"):
            continue
        elif value is None:
            result.pop(key, None)
        else:
            result[key] = strategic_merge(result.get(key), value, f"{path}.{key}")
    return result


def _merge_list(target: list[Any], patch: list[Any], path: str) -> list[Any]:
    *_, parent, field = f".{path}".split(".")
    if field == "finalizers":
        return [*target, *(item for item in patch if item not in target)]
    key = "port" if (parent, field) == ("spec", "ports") else MERGE_KEYS.get(field)
    if key is None or {"$patch": "replace"} in patch:
        return copy.deepcopy([item for item in patch if item != {"$patch": "replace"}])
    merged = {item.get(key): item for item in target}
    for item in patch:
        if not isinstance(item, Mapping) or key not in item:
            raise PatchFailed(f"{path}: an item lacks {key!r}, by which items are merged")
        before = merged.get(item[key])
        if item.get("$patch") == "delete":
            merged.pop(item[key], None)
        elif field == "volumes" and not _plain(item).keys() <= (before or {}).keys():
            merged[item[key]] = strategic_merge(None, item, path)  # another kind of volume: one has a single source
        else:
            merged[item[key]] = strategic_merge(before, item, path)
    return list(merged.values())


def _plain(patch: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in patch.items() if not key.startswith("$")}
