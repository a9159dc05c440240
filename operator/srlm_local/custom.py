"""Custom resources, and the CustomResourceDefinitions that bring them into being."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from srlm_contract import schema as schemas
from srlm_contract.schema import FieldError
from srlm_local.clock import to_seconds
from srlm_local.jsontools import copy
from srlm_local.strictness import unknown_fields
from srlm_local.request import Request
from srlm_local.resources import ResourceType
from srlm_local.strategy import Strategy

if TYPE_CHECKING:
    from srlm_local.cluster import Cluster

Object = dict[str, Any]
CRDS = "customresourcedefinitions.apiextensions.k8s.io"
CLEANUP = "customresourcecleanup.apiextensions.k8s.io"


class CustomStrategy(Strategy):
    """An instance of a custom kind: everything follows from its schema."""

    def __init__(self, rt: ResourceType) -> None:
        self._rt = rt
        self._schema: Object = rt.schema or {"type": "object", "x-kubernetes-preserve-unknown-fields": True}

    def decode(
        self, cluster: Cluster, rt: ResourceType, obj: Object, request: Request, patched: Object | None = None
    ) -> None:
        whole = copy(obj) if patched is not None else obj
        unknown_fields(rt, schemas.prune(self._schema, obj), request, patched, whole)

    def default(self, obj: Object) -> None:
        schemas.apply_defaults(self._schema, obj)

    def validate(self, obj: Object, old: Object | None) -> list[FieldError]:
        return schemas.validate(self._schema, obj, old)

    def validate_status(self, obj: Object, old: Object) -> list[FieldError]:
        return schemas.validate(self._schema, obj, old)


def types_of(crd: Object) -> list[ResourceType]:
    """The types that a CustomResourceDefinition serves, by version."""
    spec, names = crd["spec"], crd["status"]["acceptedNames"]
    found = []
    for version in spec["versions"]:
        if not version.get("served"):
            continue
        found.append(ResourceType(
            group=spec["group"], version=version["name"], kind=names["kind"], plural=names["plural"],
            singular=names["singular"], namespaced=spec["scope"] == "Namespaced",
            short_names=tuple(names.get("shortNames") or ()), categories=tuple(names.get("categories") or ()),
            status="status" in (version.get("subresources") or {}), generation=True, unconditional=False,
            crd=version, schema=(version.get("schema") or {}).get("openAPIV3Schema"), list_kind=names["listKind"],
        ))
    return found


class CrdStrategy(Strategy):
    """A CustomResourceDefinition. Its names are accepted and its resources served in the same instant."""

    def default(self, obj: Object) -> None:
        spec = obj.get("spec") or {}
        names = spec.get("names") or {}
        names.setdefault("singular", str(names.get("kind", "")).lower())
        names.setdefault("listKind", f"{names.get('kind', '')}List")
        spec.setdefault("conversion", {"strategy": "None"})

    def begin_deletion(self, cluster: Cluster, obj: Object) -> bool:
        """The definition stays until the controller has deleted its instances."""
        meta = obj["metadata"]
        if "deletionTimestamp" in meta:
            return bool(meta.get("finalizers"))
        meta["deletionTimestamp"] = cluster.timestamp()
        meta["finalizers"] = [*(meta.get("finalizers") or []), CLEANUP]
        made = {"type": "Terminating", "status": "True", "lastTransitionTime": cluster.timestamp(),
                "reason": "InstanceDeletionPending", "message": "CustomResourceDefinition marked for deletion; "
                "CustomResource deletion will begin soon"}
        obj["status"]["conditions"] = [*(obj["status"].get("conditions") or []), made]
        return True

    def after(self, cluster: Cluster, obj: Object | None, old: Object | None) -> None:
        gone = obj or old
        if gone is None:
            return
        spec = gone["spec"]
        cluster.registry.withdraw(spec["group"], spec["names"]["plural"])
        if obj is not None:
            for rt in types_of({**obj, "status": {"acceptedNames": spec["names"]}}):
                cluster.registry.serve(rt)

    def prepare(self, cluster: Cluster, obj: Object, old: Object | None, request: Request) -> None:
        if old is None:
            now = to_seconds(cluster.clock.now())
            spec = obj["spec"]
            obj["status"] = {
                "conditions": [
                    {"type": "NamesAccepted", "status": "True", "lastTransitionTime": now, "reason": "NoConflicts",
                     "message": "no conflicts found"},
                    {"type": "Established", "status": "True", "lastTransitionTime": now, "reason": "InitialNamesAccepted",
                     "message": "the initial names have been accepted"},
                ],
                "acceptedNames": dict(spec["names"]),
                "storedVersions": [v["name"] for v in spec["versions"] if v.get("storage")],
            }
