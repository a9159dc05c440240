"""Strategic merge of `podTemplate` patches into a stage's pod template, with our guarantees checked."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from srlm_operator import names
from srlm_operator.errors import InvalidPodTemplate
from srlm_operator.settings import PodSecurity

from .security import check_security, harden

#: Lists that merge by a key, as Kubernetes declares them for pods; all other lists are replaced.
MERGE_KEYS: Mapping[str, str] = {
    "containers": "name",
    "initContainers": "name",
    "ephemeralContainers": "name",
    "env": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "ports": "containerPort",
    "imagePullSecrets": "name",
    "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
    "resourceClaims": "name",
    "ownerReferences": "uid",
}
#: Variables a patch may not change: the stage would not know its task or lose its answer.
GUARDED_ENV = ("SRLM_TASK", "SRLM_WORK_DIR", "SRLM_TERMINATION_LOG", "SRLM_POD_UID", "JOB_COMPLETION_INDEX")


_KINDS: Mapping[type, str] = {Mapping: "an object", list: "a list"}


def apply_patches(
    template: Mapping[str, Any], patches: Sequence[Mapping[str, Any]], level: PodSecurity = "Restricted"
) -> dict[str, Any]:
    """The template with all patches merged in order.

    Raises InvalidPodTemplate when the result breaks a guarantee: the stage's container with its command, task
    variable and termination message, restart policy, our labels, the level of pod security.
    """
    merged = copy.deepcopy(dict(template))
    for patch in patches:
        merged = _merge(merged, patch, "podTemplate")
    if any(patches):
        try:
            _check(template, merged, level)
        except (AttributeError, TypeError, KeyError) as problem:
            raise InvalidPodTemplate(f"podTemplate: it is no pod template any more: {problem}") from None
    return merged


def _merge(base: Any, patch: Any, path: str) -> Any:
    if not isinstance(patch, Mapping):
        raise InvalidPodTemplate(f"{path}: expected an object, found {type(patch).__name__}")
    result = dict(base) if isinstance(base, Mapping) else {}
    if patch.get("$patch") == "replace":
        return {k: v for k, v in patch.items() if k != "$patch"}
    for field, value in patch.items():
        where = f"{path}.{field}"
        before = result.get(field)
        if isinstance(before, Mapping | list) and value is not None:
            kind = Mapping if isinstance(before, Mapping) else list
            if not isinstance(value, kind):
                raise InvalidPodTemplate(f"{where}: found {type(value).__name__} where {_KINDS[kind]} belongs")
        if value is None:
            result.pop(field, None)
        elif isinstance(value, list) and field in MERGE_KEYS:
            result[field] = _merge_list(result.get(field) or [], value, MERGE_KEYS[field], where)
        elif isinstance(value, Mapping):
            result[field] = _merge(result.get(field), value, where)
        else:
            result[field] = value
    return result


def _merge_list(base: list[Any], patch: list[Any], key: str, path: str) -> list[Any]:
    result = list(base)
    for item in patch:
        if not isinstance(item, Mapping):
            raise InvalidPodTemplate(f"{path}: expected objects with {key!r}")
        if item.get("$patch") == "replace":
            return [i for i in patch if i.get("$patch") != "replace"]
        if key not in item:
            raise InvalidPodTemplate(f"{path}: an item lacks {key!r}, by which items are merged")
        place = next((n for n, old in enumerate(result) if old.get(key) == item[key]), None)
        if item.get("$patch") == "delete":
            result = [old for old in result if old.get(key) != item[key]]
        elif place is None:
            result.append(_merge({}, item, path))
        elif path.endswith(".volumes") and not item.keys() <= result[place].keys():
            result[place] = _merge({}, item, path)  # another kind of volume: one has a single source
        else:
            result[place] = _merge(result[place], item, path)
    return result


def _check(before: Mapping[str, Any], after: dict[str, Any], level: PodSecurity) -> None:
    pod = after.get("spec") or {}
    ours, theirs = _stage(before["spec"]), _stage(pod)
    if theirs is None or ours is None:
        raise InvalidPodTemplate(f"podTemplate: container {names.CONTAINER!r} must stay")
    for field in ("command", "args", "terminationMessagePath", "terminationMessagePolicy"):
        if ours.get(field) != theirs.get(field):
            raise InvalidPodTemplate(f"podTemplate: container {names.CONTAINER!r}: {field} must stay as it is")
    old_env, new_env = _env(ours), _env(theirs)
    for variable in GUARDED_ENV:
        if old_env.get(variable) != new_env.get(variable):
            raise InvalidPodTemplate(f"podTemplate: variable {variable} must stay as it is")
    for field in ("restartPolicy", "subdomain", "hostname"):
        if before["spec"].get(field) != pod.get(field):
            raise InvalidPodTemplate(f"podTemplate: spec.{field} must stay as it is")
    _check_labels(before, after)
    for container in [*(pod.get("initContainers") or ()), *(pod.get("containers") or ())]:
        harden(container)
    check_security(pod, level)


def _check_labels(before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    old = (before.get("metadata") or {}).get("labels") or {}
    new = (after.get("metadata") or {}).get("labels") or {}
    for label, value in old.items():
        if new.get(label) != value:
            raise InvalidPodTemplate(f"podTemplate: label {label} must stay as it is")


def _stage(pod: Mapping[str, Any]) -> dict[str, Any] | None:
    return next((c for c in pod.get("containers") or () if c.get("name") == names.CONTAINER), None)


def _env(container: Mapping[str, Any]) -> dict[str, Any]:
    return {item["name"]: item for item in container.get("env") or ()}
