"""Pods: what the server adds at creation, what may change later, and how they go."""

from __future__ import annotations

from typing import Any

from srlm_local.kinds.pod_spec import containers, default_pod_spec, validate_pod_spec, validate_pod_update
from srlm_local.store.errors import forbidden
from srlm_local.store.resources import Rules, View
from srlm_operator.crd.schema import FieldError

Object = dict[str, Any]


class PodRules(Rules):
    returns_deleted = True
    keeps_status = True

    def default(self, obj: Object) -> None:
        spec = obj.setdefault("spec", {})
        default_pod_spec(spec)
        spec.setdefault("enableServiceLinks", True)
        for container in containers(spec):
            resources = container["resources"]
            if limits := resources.get("limits"):
                resources["requests"] = {**limits, **(resources.get("requests") or {})}

    def prepare(self, view: View, obj: Object, old: Object | None) -> None:
        if old is None:
            obj["status"] = {"phase": "Pending"}

    def admit(self, view: View, obj: Object) -> None:
        spec, name = obj["spec"], obj["metadata"].get("name", "")
        _service_account(view, obj)
        if chosen := spec.get("priorityClassName"):
            found = view.find("priorityclasses.scheduling.k8s.io", chosen)
            if found is None:
                raise forbidden("pods", "", name, f"no PriorityClass with name {chosen} was found")
            spec["priority"] = found.get("value", 0)
        spec.setdefault("priority", 0)
        spec.setdefault("preemptionPolicy", "PreemptLowerPriority")

    def validate(self, obj: Object, old: Object | None, before: list[FieldError]) -> list[FieldError]:
        return validate_pod_spec(obj["spec"], "spec") if old is None else validate_pod_update(obj, old)

    def grace_period(self, obj: Object, asked: int | None) -> int | None:
        spec = obj["spec"]
        if not spec.get("nodeName") or (obj.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
            return 0
        period = asked if asked is not None else spec.get("terminationGracePeriodSeconds", 30)
        return 1 if period < 0 else int(period)


def _service_account(view: View, pod: Object) -> None:
    """The account must be there. Its token is never mounted: no pod of a run has one."""
    spec, meta = pod["spec"], pod["metadata"]
    name = spec.setdefault("serviceAccountName", "default")
    spec["serviceAccount"] = name
    if view.find("serviceaccounts", name, meta["namespace"]) is None:
        why = f'error looking up service account {meta["namespace"]}/{name}: serviceaccount "{name}" not found'
        raise forbidden("pods", "", meta.get("name", ""), why)
