"""Jobs: defaults, the labels and selector that the server makes up, what is wrong with one, and what may change.

Follows pkg/apis/batch/validation of Kubernetes 1.36 in what the operator can get wrong.
"""

from __future__ import annotations

from typing import Any

from srlm_local.kinds.pod_spec import containers, default_pod_spec, validate_pod_spec
from srlm_local.store import names
from srlm_local.store.errors import barred, required, unsupported, wrong
from srlm_local.store.metadata import validate_annotations, validate_labels
from srlm_local.store.resources import Rules, View
from srlm_local.store.selectors import matches_labels
from srlm_local.store.values import copy
from srlm_operator.crd.schema import FieldError

Object = dict[str, Any]
MAX_INT32 = 2147483647
MANY_INDEXES = 100_000
_UID, _NAME = "batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name"
_COUNTS = (
    "parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished",
    "backoffLimitPerIndex", "maxFailedIndexes",
)  # fmt: skip
_FIXED = (
    "selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy",
    "manualSelector",
)  # fmt: skip
_ACTIONS = ["Count", "FailIndex", "FailJob", "Ignore"]
_IMMUTABLE = "field is immutable"


class JobRules(Rules):
    orphans_by_default = True

    def default(self, obj: Object) -> None:
        spec = obj.setdefault("spec", {})
        for key in [key for key, value in spec.items() if value is None]:
            del spec[key]
        if "completions" not in spec and "parallelism" not in spec:
            spec["completions"] = 1
        failed = "Failed" if spec.get("podFailurePolicy") else "TerminatingOrFailed"
        defaults = {
            "parallelism": 1,
            "backoffLimit": MAX_INT32 if "backoffLimitPerIndex" in spec else 6,
            "completionMode": "NonIndexed",
            "suspend": False,
            "manualSelector": False,
            "podReplacementPolicy": failed,
        }
        obj["spec"] = spec = {**defaults, **spec}
        for rule in (spec.get("podFailurePolicy") or {}).get("rules") or []:
            for condition in rule.get("onPodConditions") or []:
                condition.setdefault("status", "True")
        template = spec.setdefault("template", {})
        template["metadata"] = template.get("metadata") or {}
        if template["metadata"].get("labels") and not obj["metadata"].get("labels"):
            obj["metadata"]["labels"] = dict(template["metadata"]["labels"])
        default_pod_spec(template.setdefault("spec", {}))

    def prepare(self, view: View, obj: Object, old: Object | None) -> None:
        if old is not None:
            return
        meta, spec = obj["metadata"], obj["spec"]
        obj["status"] = {}
        if not spec["manualSelector"]:
            uid, name = meta["uid"], meta.get("name", "")
            spec.setdefault("selector", {}).setdefault("matchLabels", {}).setdefault(_UID, uid)
            template = spec["template"]["metadata"]
            labels = {_UID: uid, _NAME: name, "controller-uid": uid, "job-name": name}
            template["labels"] = {**(template.get("labels") or {}), **labels}

    def complete(self, obj: Object) -> None:
        if not obj["metadata"].get("labels"):
            obj["metadata"]["labels"] = dict(obj["spec"]["template"]["metadata"].get("labels") or {})

    def validate(self, obj: Object, old: Object | None, before: list[FieldError]) -> list[FieldError]:
        spec, found = obj["spec"], []
        expected = {"matchLabels": {_UID: obj["metadata"]["uid"]}}
        if not spec["manualSelector"] and spec.get("selector") != expected:
            found.append(wrong("spec.selector", spec.get("selector"), "`selector` not auto-generated"))
        found += _spec(spec)
        return found + (_pod_names(obj) if old is None else _changes(obj, old))

    def validate_status(self, obj: Object, old: Object) -> list[FieldError]:
        """A finished Job stays finished."""
        have, before = _conditions(obj), _conditions(old)
        kinds = ("Complete", "Failed", "SuccessCriteriaMet", "FailureTarget")
        lost = [kind for kind in kinds if kind in before - have]
        found = [wrong("status.conditions", kind, f"cannot disable the terminal condition {kind}") for kind in lost]
        if {"Complete", "Failed"} <= have:
            found.append(wrong("status.conditions", "", "cannot set Complete=True and Failed=true conditions"))
        return found


def _conditions(job: Object) -> set[str]:
    return {c["type"] for c in (job.get("status") or {}).get("conditions") or [] if c.get("status") == "True"}


def _pod_names(job: Object) -> list[FieldError]:
    """Pods of Indexed Jobs have the index as the end of their host name, which is a DNS label."""
    spec, name = job["spec"], job["metadata"].get("name", "")
    host = f"{name}-{(spec.get('completions') or 0) - 1}"
    if spec["completionMode"] != "Indexed" or not spec.get("completions") or names.subdomain(name):
        return []
    why = f"will not able to create pod with invalid DNS label: {host}"
    return [wrong("metadata.name", name, why)] if names.dns_label(host) else []


def _spec(spec: Object) -> list[FieldError]:
    found = [
        wrong(f"spec.{key}", spec[key], "must be greater than or equal to 0") for key in _COUNTS if spec.get(key, 0) < 0
    ]
    found += _indexes(spec)
    template = spec["template"]
    labels = template["metadata"].get("labels") or {}
    if not spec.get("selector"):
        found.append(required("spec.selector"))
    elif not matches_labels(spec["selector"], labels):
        found.append(wrong("spec.template.metadata.labels", labels, "`selector` does not match template `labels`"))
    found += validate_labels(labels, "spec.template.labels")
    found += validate_annotations(template["metadata"].get("annotations") or {}, "spec.template.annotations")
    found += validate_pod_spec(template["spec"], "spec.template.spec")
    found += _restarts(spec)
    if spec.get("podFailurePolicy"):
        found += _failure_policy(spec)
    allowed = ["Failed"] if spec.get("podFailurePolicy") else ["Failed", "TerminatingOrFailed"]
    if spec["podReplacementPolicy"] not in allowed:
        found.append(unsupported("spec.podReplacementPolicy", spec["podReplacementPolicy"], allowed))
    if spec.get("successPolicy"):
        found.append(barred("spec.successPolicy", "it is not supported by the one-machine cluster"))
    return found


def _indexes(spec: Object) -> list[FieldError]:
    mode, completions, most = spec["completionMode"], spec.get("completions"), spec.get("maxFailedIndexes")
    found: list[FieldError] = []
    if mode not in ("NonIndexed", "Indexed"):
        found.append(unsupported("spec.completionMode", mode, ["NonIndexed", "Indexed"]))
    if mode == "Indexed" and completions is None:
        found.append(required("spec.completions", "when completion mode is Indexed"))
    if mode == "Indexed" and spec["parallelism"] > MANY_INDEXES:
        found.append(wrong("spec.parallelism", spec["parallelism"], f"must be less than or equal to {MANY_INDEXES}"))
    if "backoffLimitPerIndex" in spec and mode != "Indexed":
        found.append(
            wrong("spec.backoffLimitPerIndex", spec["backoffLimitPerIndex"], "requires indexed completion mode")
        )
    if most is not None and "backoffLimitPerIndex" not in spec:
        found.append(required("spec.backoffLimitPerIndex", "when maxFailedIndexes is specified"))
    if most is not None and completions is not None and most > completions:
        found.append(wrong("spec.maxFailedIndexes", most, "must be less than or equal to completions"))
    return found


def _restarts(spec: Object) -> list[FieldError]:
    policy, at = spec["template"]["spec"]["restartPolicy"], "spec.template.spec.restartPolicy"
    if policy == "Always":
        return [required(at, 'valid values: "OnFailure", "Never"')]
    keys = [key for key in ("podFailurePolicy", "backoffLimitPerIndex") if key in spec and policy == "OnFailure"]
    return [wrong(at, policy, f'only "Never" is supported when {key} is specified') for key in keys]


def _failure_policy(spec: Object) -> list[FieldError]:
    found: list[FieldError] = []
    known = {None, *(c.get("name") for c in containers(spec["template"]["spec"]))}
    for index, rule in enumerate(spec["podFailurePolicy"].get("rules") or []):
        path, action, codes = f"spec.podFailurePolicy.rules[{index}]", rule.get("action", ""), rule.get("onExitCodes")
        if action not in _ACTIONS:
            found.append(unsupported(f"{path}.action", action, _ACTIONS))
        elif action == "FailIndex" and "backoffLimitPerIndex" not in spec:
            found.append(wrong(f"{path}.action", action, "requires the backoffLimitPerIndex to be set"))
        if bool(codes) == bool(rule.get("onPodConditions")):
            found.append(wrong(path, "", "specifying one of OnExitCodes and OnPodConditions is required"))
        operator, values = (codes or {}).get("operator", ""), (codes or {}).get("values") or []
        if codes and (
            operator not in ("In", "NotIn")
            or not values
            or values != sorted(set(values))
            or (operator == "In" and 0 in values)
            or codes.get("containerName") not in known
        ):
            why = "needs an operator, codes in order and each once, none of them 0 for In, and a container of the pod"
            found.append(wrong(f"{path}.onExitCodes", codes, why))
    return found


def _changes(new: Object, old: Object) -> list[FieldError]:
    """What must not have changed."""
    after, before = new["spec"], old["spec"]
    found = [wrong(f"spec.{key}", after.get(key), _IMMUTABLE) for key in _FIXED if after.get(key) != before.get(key)]
    completions = after.get("completions")
    if completions != before.get("completions"):
        if after["completionMode"] != "Indexed" or completions is None:
            found.append(wrong("spec.completions", completions, _IMMUTABLE))
        elif completions != after["parallelism"]:
            found.append(wrong("spec.completions", completions, "can only be modified in tandem with spec.parallelism"))
    status = old.get("status") or {}
    idle = before.get("suspend") and not status.get("active") and not status.get("startTime")
    if _fixed_part(after["template"], idle) != _fixed_part(before["template"], idle):
        found.append(wrong("spec.template", "the template of the Job", _IMMUTABLE))
    return found


def _fixed_part(template: Object, idle: bool) -> Object:
    """While a Job is suspended and none of its pods run, scheduling, resources, labels and annotations may change."""
    if not idle:
        return template
    template = copy(template)
    for key in ("labels", "annotations"):
        template["metadata"].pop(key, None)
    for key in ("nodeSelector", "tolerations", "schedulingGates", "affinity"):
        template["spec"].pop(key, None)
    for container in containers(template["spec"]):
        container.pop("resources", None)
    return template
