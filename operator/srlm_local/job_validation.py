"""What is wrong with a Job, and what may not change in one.

Follows pkg/apis/batch/validation of Kubernetes 1.36, held against the recordings 09, 12 and 16.
"""

from __future__ import annotations

from typing import Any

from srlm_contract.schema import FieldError
from srlm_local import names
from srlm_local.jsontools import copy
from srlm_local.metadata import validate_annotations, validate_labels
from srlm_local.pod_validation import (
    duplicate,
    invalid,
    required,
    unsupported,
    validate_pod_spec,
)
from srlm_local.selectors import label_selector_object

Object = dict[str, Any]
UID_LABEL = "batch.kubernetes.io/controller-uid"
MANY_INDEXES = 100_000
MANY_WITH_BACKOFF = 10_000
_NOT_BELOW_ZERO = "must be greater than or equal to 0"
_IMMUTABLE = "field is immutable"
_ACTIONS = ["Count", "FailIndex", "FailJob", "Ignore"]


def validate_job(job: Object) -> list[FieldError]:
    """A new Job, after defaults and the generated selector."""
    return _generated_selector(job) + _spec(job["spec"]) + _pod_names(job)


def _generated_selector(job: Object) -> list[FieldError]:
    spec = job["spec"]
    if spec.get("manualSelector"):
        return []
    expected = {"matchLabels": {UID_LABEL: job["metadata"]["uid"]}}
    if spec.get("selector") != expected:
        return [invalid("spec.selector", spec.get("selector"), "`selector` not auto-generated")]
    return []


def _pod_names(job: Object) -> list[FieldError]:
    """Pods of Indexed Jobs have the index as the end of their host name, which is a DNS label."""
    spec, name = job["spec"], job["metadata"].get("name", "")
    completions = spec.get("completions")
    if spec.get("completionMode") != "Indexed" or not completions or completions < 0:
        return []
    host = f"{name}-{completions - 1}"
    if names.subdomain(name) or not names.dns_label(host):
        return []
    return [invalid("metadata.name", name, f"will not able to create pod with invalid DNS label: {host}")]


def _spec(spec: Object) -> list[FieldError]:
    found: list[FieldError] = []
    for key in (
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ):
        value = spec.get(key)
        if value is not None and value < 0:
            found.append(invalid(f"spec.{key}", value, _NOT_BELOW_ZERO))
    found += _completion_mode(spec)
    found += _indexes(spec)
    found += _selector(spec)
    found += _template(spec)
    if spec.get("podFailurePolicy") is not None:
        found += _failure_policy(spec)
    replacement = spec.get("podReplacementPolicy")
    allowed = ["Failed"] if spec.get("podFailurePolicy") else ["Failed", "TerminatingOrFailed"]
    if replacement not in allowed:
        found.append(unsupported("spec.podReplacementPolicy", replacement, allowed))
    if spec.get("successPolicy") is not None:
        found += _success_policy(spec)
    if (manager := spec.get("managedBy")) is not None and names.qualified_name(manager):
        found.append(invalid("spec.managedBy", manager, 'must be a domain-prefixed path (such as "acme.io/foo")'))
    return found


def _completion_mode(spec: Object) -> list[FieldError]:
    mode, completions = spec.get("completionMode"), spec.get("completions")
    if mode not in ("NonIndexed", "Indexed"):
        return [unsupported("spec.completionMode", mode, ["NonIndexed", "Indexed"])]
    if mode == "NonIndexed":
        return []
    found = []
    if completions is None:
        found.append(required("spec.completions", "when completion mode is Indexed"))
    if spec["parallelism"] > MANY_INDEXES:
        why = f"must be less than or equal to {MANY_INDEXES} when completion mode is Indexed"
        found.append(invalid("spec.parallelism", spec["parallelism"], why))
    return found


def _indexes(spec: Object) -> list[FieldError]:
    found: list[FieldError] = []
    per_index, most = spec.get("backoffLimitPerIndex"), spec.get("maxFailedIndexes")
    completions, indexed = spec.get("completions"), spec.get("completionMode") == "Indexed"
    if per_index is not None and not indexed:
        found.append(invalid("spec.backoffLimitPerIndex", per_index, "requires indexed completion mode"))
    if most is not None:
        if per_index is None:
            found.append(required("spec.backoffLimitPerIndex", "when maxFailedIndexes is specified"))
        if completions is not None and most > completions:
            found.append(invalid("spec.maxFailedIndexes", most, "must be less than or equal to completions"))
        if most > MANY_INDEXES:
            found.append(invalid("spec.maxFailedIndexes", most, f"must be less than or equal to {MANY_INDEXES}"))
    if not indexed or per_index is None or completions is None or completions <= MANY_INDEXES:
        return found
    above = f"when completions are above {MANY_INDEXES} and used with backoff limit per index"
    if most is None:
        found.append(required("spec.maxFailedIndexes", f"must be specified when completions is above {MANY_INDEXES}"))
    elif most > MANY_WITH_BACKOFF:
        found.append(
            invalid("spec.maxFailedIndexes", most, f"must be less than or equal to {MANY_WITH_BACKOFF} {above}")
        )
    if spec["parallelism"] > MANY_WITH_BACKOFF:
        why = f"must be less than or equal to {MANY_WITH_BACKOFF} {above}"
        found.append(invalid("spec.parallelism", spec["parallelism"], why))
    return found


def _selector(spec: Object) -> list[FieldError]:
    selector = spec.get("selector")
    if not selector:
        return [required("spec.selector")]
    labels = spec["template"]["metadata"].get("labels")
    if not label_selector_object(selector)({"metadata": {"labels": labels}}):
        return [invalid("spec.template.metadata.labels", labels, "`selector` does not match template `labels`")]
    return []


def _template(spec: Object) -> list[FieldError]:
    template = spec["template"]
    meta, pod = template["metadata"], template["spec"]
    path = "spec.template"
    found = validate_labels(meta.get("labels") or {}, f"{path}.labels")
    found += validate_annotations(meta.get("annotations") or {}, f"{path}.annotations")
    found += validate_pod_spec(pod, f"{path}.spec")
    policy = pod.get("restartPolicy")
    if policy not in ("OnFailure", "Never"):
        at = f"{path}.spec.restartPolicy"
        found = [error for error in found if error.path != at]
        found.append(
            required(at, 'valid values: "OnFailure", "Never"')
            if policy == "Always"
            else unsupported(at, policy, ["OnFailure", "Never"])
        )
    elif policy == "OnFailure":
        for key in ("podFailurePolicy", "backoffLimitPerIndex"):
            if spec.get(key) is not None:
                why = f'only "Never" is supported when {key} is specified'
                found.append(invalid(f"{path}.spec.restartPolicy", policy, why))
    return found


def _failure_policy(spec: Object) -> list[FieldError]:
    found: list[FieldError] = []
    pod = spec["template"]["spec"]
    containers = {c.get("name") for group in ("containers", "initContainers") for c in pod.get(group) or []}
    rules = spec["podFailurePolicy"].get("rules") or []
    if len(rules) > 20:
        message = f"Too many: {len(rules)}: must have at most 20 items"
        found.append(FieldError("spec.podFailurePolicy.rules", message, "FieldValueTooMany"))
    for index, rule in enumerate(rules):
        path = f"spec.podFailurePolicy.rules[{index}]"
        action = rule.get("action", "")
        if not action:
            found.append(required(f"{path}.action", f"valid values: {', '.join(repr(a) for a in _ACTIONS)}"))
        elif action not in _ACTIONS:
            found.append(unsupported(f"{path}.action", action, _ACTIONS))
        elif action == "FailIndex" and spec.get("backoffLimitPerIndex") is None:
            found.append(invalid(f"{path}.action", action, "requires the backoffLimitPerIndex to be set"))
        codes, conditions = rule.get("onExitCodes"), rule.get("onPodConditions") or []
        if codes and conditions:
            found.append(invalid(path, "", "specifying both OnExitCodes and OnPodConditions is not supported"))
        elif not codes and not conditions:
            found.append(invalid(path, "", "specifying one of OnExitCodes and OnPodConditions is required"))
        if codes:
            found += _exit_codes(codes, f"{path}.onExitCodes", containers)
        for at, condition in enumerate(conditions):
            where = f"{path}.onPodConditions[{at}]"
            found += [
                invalid(f"{where}.type", condition.get("type", ""), why)
                for why in names.qualified_name(condition.get("type", ""))
            ]
            if condition.get("status") not in ("False", "True", "Unknown"):
                found.append(unsupported(f"{where}.status", condition.get("status", ""), ["False", "True", "Unknown"]))
    return found


def _exit_codes(codes: Object, path: str, containers: set[Any]) -> list[FieldError]:
    found: list[FieldError] = []
    operator, values = codes.get("operator", ""), codes.get("values") or []
    if operator not in ("In", "NotIn"):
        found.append(unsupported(f"{path}.operator", operator, ["In", "NotIn"]))
    if (name := codes.get("containerName")) is not None and name not in containers:
        why = "must be one of the container or initContainer names in the pod template"
        found.append(invalid(f"{path}.containerName", name, why))
    if not values:
        found.append(invalid(f"{path}.values", values, "at least one value is required"))
    elif len(values) > 255:
        message = f"Too many: {len(values)}: must have at most 255 items"
        found.append(FieldError(f"{path}.values", message, "FieldValueTooMany"))
    seen: set[int] = set()
    for index, value in enumerate(values):
        at = f"{path}.values[{index}]"
        if operator == "In" and value == 0:
            found.append(invalid(at, value, "must not be 0 for the In operator"))
        if value in seen:
            found.append(duplicate(at, value))
        seen.add(value)
    if values != sorted(values):
        found.append(invalid(f"{path}.values", values, "must be ordered"))
    return found


def _success_policy(spec: Object) -> list[FieldError]:
    path, policy = "spec.successPolicy", spec["successPolicy"]
    if spec.get("completionMode") != "Indexed":
        return [invalid(path, policy, "requires indexed completion mode")]
    found: list[FieldError] = []
    rules = policy.get("rules") or []
    if not rules:
        found.append(
            required(f"{path}.rules", "at least one rules must be specified when the successPolicy is specified")
        )
    for index, rule in enumerate(rules):
        at = f"{path}.rules[{index}]"
        count, indexes = rule.get("succeededCount"), rule.get("succeededIndexes")
        if count is None and indexes is None:
            found.append(required(at, "at least one of succeededCount or succeededIndexes must be specified"))
        if count is not None and count <= 0:
            found.append(invalid(f"{at}.succeededCount", count, "must be greater than 0"))
        if count is not None and count > (spec.get("completions") or 0):
            found.append(
                invalid(
                    f"{at}.succeededCount",
                    count,
                    f"must be less than or equal to {spec['completions']} (the number of specified completions)",
                )
            )
    return found


# ---- updates


def validate_job_update(new: Object, old: Object) -> list[FieldError]:
    """The new Job by itself, and what must not have changed."""
    found = _generated_selector(new) + _spec(new["spec"])
    after, before = new["spec"], old["spec"]
    found += _completions_change(after, before)
    found += _selector(after)
    for key in (
        "selector",
        "completionMode",
        "podFailurePolicy",
        "backoffLimitPerIndex",
        "managedBy",
        "successPolicy",
        "manualSelector",
    ):
        if after.get(key) != before.get(key):
            found.append(invalid(f"spec.{key}", after.get(key), _IMMUTABLE))
    found += _template_change(new, old)
    return found


def _completions_change(after: Object, before: Object) -> list[FieldError]:
    if after.get("completions") == before.get("completions"):
        return []
    if after.get("completionMode") != "Indexed" or after.get("completions") is None:
        return [invalid("spec.completions", after.get("completions"), _IMMUTABLE)]
    if after["completions"] != after["parallelism"]:
        why = "can only be modified in tandem with spec.parallelism"
        return [invalid("spec.completions", after["completions"], why)]
    return []


def _template_change(new: Object, old: Object) -> list[FieldError]:
    """While a Job is suspended and none of its pods run, scheduling, resources, labels and annotations may change."""
    template, before = copy(new["spec"]["template"]), old["spec"]["template"]
    if template == before:
        return []
    status = old.get("status") or {}
    idle = old["spec"].get("suspend") and not status.get("active") and not status.get("startTime")
    if not idle:
        return [invalid("spec.template", "the template of a running Job", _IMMUTABLE)]
    for key in ("labels", "annotations"):
        _take(template["metadata"], before["metadata"], key)
    pod, pod_before = template["spec"], before["spec"]
    for key in ("nodeSelector", "tolerations", "schedulingGates", "affinity"):
        _take(pod, pod_before, key)
    for group in ("initContainers", "containers"):
        pairs = zip(pod.get(group) or [], pod_before.get(group) or [], strict=False)
        for container, container_before in pairs:
            if container.get("name") == container_before.get("name"):
                _take(container, container_before, "resources")
    if template == before:
        return []
    return [invalid("spec.template.spec", "the pod spec of a suspended Job", _IMMUTABLE)]


def _take(target: Object, source: Object, key: str) -> None:
    if key in source:
        target[key] = source[key]
    else:
        target.pop(key, None)


def validate_job_status(new: Object, old: Object) -> list[FieldError]:
    """A finished Job stays finished; counters are not negative."""
    found: list[FieldError] = []
    status = new.get("status") or {}
    for key in ("active", "succeeded", "failed", "ready", "terminating"):
        value = status.get(key)
        if value is not None and value < 0:
            found.append(invalid(f"status.{key}", value, _NOT_BELOW_ZERO))
    have = {c["type"]: c.get("status") for c in status.get("conditions") or []}
    before = {c["type"]: c.get("status") for c in (old.get("status") or {}).get("conditions") or []}
    for kind in ("Complete", "Failed", "SuccessCriteriaMet", "FailureTarget"):
        if before.get(kind) == "True" and have.get(kind) != "True":
            found.append(invalid("status.conditions", kind, f"cannot disable the terminal condition {kind}"))
    if have.get("Complete") == "True" and have.get("Failed") == "True":
        found.append(invalid("status.conditions", "", "cannot set Complete=True and Failed=true conditions"))
    return found
