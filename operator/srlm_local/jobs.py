"""Jobs: defaults, the labels and selector that the server makes up, and what may change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from srlm_contract.schema import FieldError
from srlm_local import names
from srlm_local.job_validation import validate_job, validate_job_status, validate_job_update
from srlm_local.pod_defaults import default_pod_spec
from srlm_local.request import Request
from srlm_local.strategy import Strategy

if TYPE_CHECKING:
    from srlm_local.cluster import Cluster

Object = dict[str, Any]
MAX_INT32 = 2147483647
_UID, _NAME = "batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name"


class JobStrategy(Strategy):
    orphans_by_default = True

    def default(self, obj: Object) -> None:
        spec = obj.setdefault("spec", {})
        if spec.get("completions") is None and spec.get("parallelism") is None:
            spec["completions"] = 1
        if spec.get("parallelism") is None:
            spec["parallelism"] = 1
        if spec.get("backoffLimit") is None:
            spec["backoffLimit"] = MAX_INT32 if spec.get("backoffLimitPerIndex") is not None else 6
        spec.setdefault("completionMode", "NonIndexed")
        spec.setdefault("suspend", False)
        spec.setdefault("manualSelector", False)
        if spec.get("podReplacementPolicy") is None:
            spec["podReplacementPolicy"] = "Failed" if spec.get("podFailurePolicy") else "TerminatingOrFailed"
        for rule in (spec.get("podFailurePolicy") or {}).get("rules") or []:
            for condition in rule.get("onPodConditions") or []:
                condition.setdefault("status", "True")
        template = spec.setdefault("template", {})
        template.setdefault("metadata", {})
        if template["metadata"].get("labels") and not obj["metadata"].get("labels"):
            obj["metadata"]["labels"] = dict(template["metadata"]["labels"])
        default_pod_spec(template.setdefault("spec", {}))

    def prepare(self, cluster: Cluster, obj: Object, old: Object | None, request: Request) -> None:
        if old is not None:
            return
        meta, spec = obj["metadata"], obj["spec"]
        obj["status"] = {}
        labels = {
            _UID: meta["uid"],
            _NAME: meta.get("name", ""),
            "controller-uid": meta["uid"],
            "job-name": meta.get("name", ""),
        }
        template = spec["template"]["metadata"]
        if not spec.get("manualSelector"):
            selector = spec.setdefault("selector", {})
            selector.setdefault("matchLabels", {}).setdefault(_UID, meta["uid"])
            template["labels"] = {**(template.get("labels") or {}), **labels}

    def complete(self, cluster: Cluster, obj: Object, old: Object | None, request: Request) -> None:
        if old is not None:
            return
        meta = obj["metadata"]
        if not meta.get("labels") and obj["spec"]["template"]["metadata"].get("labels"):
            meta["labels"] = dict(obj["spec"]["template"]["metadata"]["labels"])
        problems = [p for p in names.dns_label(meta["name"]) if "63" in p]
        if "." in meta["name"]:
            problems = ["must not contain dots", *problems]
        if problems:
            request.warn(
                "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; "
                f"a DNS label is recommended: [{', '.join(problems)}]"
            )

    def validate(self, obj: Object, old: Object | None) -> list[FieldError]:
        return validate_job(obj) if old is None else validate_job_update(obj, old)

    def validate_status(self, obj: Object, old: Object) -> list[FieldError]:
        return validate_job_status(obj, old)
