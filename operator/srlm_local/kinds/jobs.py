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
from srlm_operator.crd.schema import FieldError

Object = dict[str, Any]
MAX_INT32 = 2147483647
MANY_INDEXES = 100_000
_UID, _NAME = "batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name"
_COUNTS = (
    "parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished",
    "backoffLimitPerIndex",
)  # fmt: skip
_FIXED = ("selector", "completionMode", "completions", "podFailurePolicy", "backoffLimitPerIndex")
_UNSUPPORTED = ("successPolicy", "maxFailedIndexes", "manualSelector", "managedBy")


class JobRules(Rules):
    orphans_by_default = True

    def default(self, obj: Object) -> None:
        spec = obj.setdefault("spec", {})
        for key in [key for key, value in spec.items() if value is None]:
            del spec[key]
        defaults = {
            "parallelism": 1,
            "completions": 1,
            "backoffLimit": MAX_INT32 if "backoffLimitPerIndex" in spec else 6,
            "completionMode": "NonIndexed",
            "suspend": False,
            "manualSelector": False,
            "podReplacementPolicy": "Failed" if spec.get("podFailurePolicy") else "TerminatingOrFailed",
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
        uid, name = meta["uid"], meta.get("name", "")
        spec.setdefault("selector", {"matchLabels": {_UID: uid}})
        template = spec["template"]["metadata"]
        labels = {_UID: uid, _NAME: name, "controller-uid": uid, "job-name": name}
        template["labels"] = {**(template.get("labels") or {}), **labels}

    def complete(self, obj: Object) -> None:
        if not obj["metadata"].get("labels"):
            obj["metadata"]["labels"] = dict(obj["spec"]["template"]["metadata"].get("labels") or {})

    def validate(self, obj: Object, old: Object | None, before: list[FieldError]) -> list[FieldError]:
        return _spec(obj) + (_pod_names(obj) if old is None else _changes(obj, old))


def _pod_names(job: Object) -> list[FieldError]:
    """Pods of Indexed Jobs have the index as the end of their host name, which is a DNS label."""
    spec, name = job["spec"], job["metadata"].get("name", "")
    host = f"{name}-{spec['completions'] - 1}"
    if spec["completionMode"] != "Indexed" or not spec["completions"] or names.subdomain(name):
        return []
    why = f"will not able to create pod with invalid DNS label: {host}"
    return [wrong("metadata.name", name, why)] if names.dns_label(host) else []


def _spec(job: Object) -> list[FieldError]:
    spec, template = job["spec"], job["spec"]["template"]
    found = [
        wrong(f"spec.{key}", spec[key], "must be greater than or equal to 0") for key in _COUNTS if spec.get(key, 0) < 0
    ]
    found += [
        barred(f"spec.{key}", "it is not supported by the one-machine cluster") for key in _UNSUPPORTED if spec.get(key)
    ]
    if spec["selector"] != {"matchLabels": {_UID: job["metadata"]["uid"]}}:
        found.append(wrong("spec.selector", spec["selector"], "`selector` not auto-generated"))
    if spec["completionMode"] not in ("NonIndexed", "Indexed"):
        found.append(unsupported("spec.completionMode", spec["completionMode"], ["NonIndexed", "Indexed"]))
    if spec["completionMode"] == "Indexed" and spec["parallelism"] > MANY_INDEXES:
        found.append(wrong("spec.parallelism", spec["parallelism"], f"must be less than or equal to {MANY_INDEXES}"))
    if template["spec"]["restartPolicy"] not in ("Never", "OnFailure"):
        found.append(required("spec.template.spec.restartPolicy", 'valid values: "OnFailure", "Never"'))
    labels = template["metadata"].get("labels") or {}
    found += validate_labels(labels, "spec.template.labels")
    found += validate_annotations(template["metadata"].get("annotations") or {}, "spec.template.annotations")
    found += validate_pod_spec(template["spec"], "spec.template.spec")
    return found + _failure_policy(spec)


def _failure_policy(spec: Object) -> list[FieldError]:
    found: list[FieldError] = []
    known = {None, *(c.get("name") for c in containers(spec["template"]["spec"]))}
    for index, rule in enumerate((spec.get("podFailurePolicy") or {}).get("rules") or []):
        path, codes = f"spec.podFailurePolicy.rules[{index}]", rule.get("onExitCodes")
        if rule.get("action") not in ("Count", "FailJob", "Ignore"):
            found.append(unsupported(f"{path}.action", rule.get("action", ""), ["Count", "FailJob", "Ignore"]))
        if bool(codes) == bool(rule.get("onPodConditions")):
            found.append(wrong(path, "", "specifying one of OnExitCodes and OnPodConditions is required"))
        if codes and codes.get("containerName") not in known:
            found.append(wrong(f"{path}.onExitCodes.containerName", codes["containerName"], "the pod has no such one"))
    return found


def _changes(new: Object, old: Object) -> list[FieldError]:
    """What must not have changed; the template may as long as the Job is suspended and has never run."""
    after, before, status = new["spec"], old["spec"], old.get("status") or {}
    idle = before["suspend"] and not status.get("active") and not status.get("startTime")
    fixed = (*_FIXED, *(() if idle else ("template",)))
    return [wrong(f"spec.{key}", key, "field is immutable") for key in fixed if after.get(key) != before.get(key)]
