"""`podTemplate` patches merged into a stage's pod template, with our guarantees checked."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from srlm_operator import names
from srlm_operator.errors import InvalidPodTemplate
from srlm_operator.settings import PodSecurity

from .security import check_security, harden
from .strategic import PatchFailed, strategic_merge

#: Variables a patch may not change: the stage would not know its task or lose its answer.
GUARDED_ENV = ("SRLM_TASK", "SRLM_WORK_DIR", "SRLM_TERMINATION_LOG", "SRLM_POD_UID", "JOB_COMPLETION_INDEX")


def apply_patches(
    template: Mapping[str, Any], patches: Sequence[Mapping[str, Any]], level: PodSecurity = "Restricted"
) -> dict[str, Any]:
    """The template with all patches merged in order.

    Raises InvalidPodTemplate when the result breaks a guarantee: the stage's container with its command, task
    variable and termination message, restart policy, our labels, the level of pod security.
    """
    merged = copy.deepcopy(dict(template))
    try:
        for patch in patches:
            merged = strategic_merge(merged, patch, "podTemplate")
    except PatchFailed as problem:
        raise InvalidPodTemplate(str(problem)) from None
    if any(patches):
        try:
            _check(template, merged, level)
        except (AttributeError, TypeError, KeyError) as problem:
            raise InvalidPodTemplate(f"podTemplate: it is no pod template any more: {problem}") from None
    return merged


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
