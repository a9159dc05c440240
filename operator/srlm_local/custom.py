"""Custom resources, and the CustomResourceDefinitions that bring them into being."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from srlm_contract import schema as schemas
from srlm_contract.schema import FieldError
from srlm_local.errors import forbidden
from srlm_local.jsontools import copy
from srlm_local.request import Request
from srlm_local.resources import ResourceType
from srlm_local.strategy import Strategy
from srlm_local.strictness import unknown_fields

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
        if obj["kind"] != self._rt.kind:
            return
        whole = copy(obj) if patched is not None else obj
        unknown_fields(rt, schemas.prune(self._schema, obj), request, patched, whole)

    def default(self, obj: Object) -> None:
        if obj["kind"] == self._rt.kind:
            schemas.apply_defaults(self._schema, obj)

    def admit(self, cluster: Cluster, obj: Object, old: Object | None, request: Request) -> None:
        crd = cluster.storage.get(CRDS, "", self._rt.name)
        if old is None and crd is not None and "deletionTimestamp" in crd["metadata"]:
            why = "create not allowed while custom resource definition is terminating"
            raise forbidden(self._rt.plural, self._rt.group, obj["metadata"].get("name", ""), why)

    def problems(self, obj: Object, old: Object | None, before: list[FieldError]) -> list[FieldError]:
        found = list(before)
        if obj["kind"] != self._rt.kind:
            message = f'Invalid value: "{obj["kind"]}": must be {self._rt.kind}'
            found.append(FieldError("kind", message, "FieldValueInvalid"))
        return found[len(before) :] + schemas.validate(self._schema, obj, old, found)

    def validate_status(self, obj: Object, old: Object) -> list[FieldError]:
        return schemas.validate(self._schema, obj, old)


def _reread(cluster: Cluster, rt: ResourceType) -> None:
    """What is stored, as the new schema reads it: pruned and with its defaults, without a new generation.

    A real server does so at each read, and ends the watches so that clients list again; here they see a change.
    """
    schema = rt.schema or {}
    for stored in cluster.storage.list(rt.storage):
        obj = copy(stored)
        schemas.prune(schema, obj)
        schemas.apply_defaults(schema, obj)
        cluster.write(rt, obj, Request())


def types_of(crd: Object) -> list[ResourceType]:
    """The types that a CustomResourceDefinition serves, by version."""
    spec, names = crd["spec"], crd["status"]["acceptedNames"]
    found = []
    for version in spec["versions"]:
        if not version.get("served"):
            continue
        found.append(
            ResourceType(
                group=spec["group"],
                version=version["name"],
                kind=names["kind"],
                plural=names["plural"],
                singular=names["singular"],
                namespaced=spec["scope"] == "Namespaced",
                short_names=tuple(names.get("shortNames") or ()),
                categories=tuple(names.get("categories") or ()),
                status="status" in (version.get("subresources") or {}),
                generation=True,
                unconditional=False,
                crd=version,
                schema=(version.get("schema") or {}).get("openAPIV3Schema"),
                list_kind=names["listKind"],
            )
        )
    return found


def _check_versions(spec: Object, old: Object | None) -> list[FieldError]:
    """One storage version, and a structural schema in each."""
    versions = spec.get("versions") or []
    found = []
    if sum(bool(version.get("storage")) for version in versions) != 1:
        message = "Invalid value: must have exactly one version marked as storage version"
        found.append(FieldError("spec.versions", message, "FieldValueInvalid"))
    before = {v["name"]: v.get("schema") for v in (old or {"spec": {}})["spec"].get("versions") or []}
    for index, version in enumerate(versions):
        # A single version is shown at the place where the first API version of CRDs kept the schema.
        prefix = "spec.validation" if len(versions) == 1 else f"spec.versions[{index}].schema"
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        if schema is None:
            message = "Required value: schemas are required"
            found.append(FieldError(f"spec.versions[{index}].schema.openAPIV3Schema", message, "FieldValueRequired"))
        elif before.get(version["name"]) != version["schema"]:
            found += [FieldError(f"{prefix}.{e.path}", e.message, e.reason) for e in schemas.check_schema(schema)]
    return found


class CrdStrategy(Strategy):
    """A CustomResourceDefinition. Its resources are served from its creation on; a controller says so in status."""

    def default(self, obj: Object) -> None:
        spec = obj.get("spec") or {}
        names = spec.get("names") or {}
        names.setdefault("singular", str(names.get("kind", "")).lower())
        names.setdefault("listKind", f"{names.get('kind', '')}List")
        spec.setdefault("conversion", {"strategy": "None"})

    def validate(self, obj: Object, old: Object | None) -> list[FieldError]:
        spec = obj["spec"]
        names = spec.get("names") or {}
        expected = f"{names.get('plural', '')}.{spec.get('group', '')}"
        found = []
        if obj["metadata"].get("name") != expected:
            message = f'Invalid value: "{obj["metadata"].get("name", "")}": must be spec.names.plural+"."+spec.group'
            found.append(FieldError("metadata.name", message, "FieldValueInvalid"))
        if spec.get("scope") not in ("Cluster", "Namespaced"):
            message = f'Unsupported value: "{spec.get("scope", "")}": supported values: "Cluster", "Namespaced"'
            found.append(FieldError("spec.scope", message, "FieldValueNotSupported"))
        for key in ("group", "scope") if old is not None else ():
            if spec.get(key) != old["spec"].get(key):  # type: ignore[index]
                message = f'Invalid value: "{spec.get(key)}": field is immutable'
                found.append(FieldError(f"spec.{key}", message, "FieldValueInvalid"))
        return found + _check_versions(spec, old)

    def begin_deletion(self, cluster: Cluster, obj: Object) -> bool:
        """The definition stays until the controller has deleted its instances."""
        meta = obj["metadata"]
        if "deletionTimestamp" in meta:
            return bool(meta.get("finalizers"))
        meta["deletionTimestamp"] = cluster.timestamp()
        meta["finalizers"] = [*(meta.get("finalizers") or []), CLEANUP]
        made = {
            "type": "Terminating",
            "status": "True",
            "lastTransitionTime": cluster.timestamp(),
            "reason": "InstanceDeletionPending",
            "message": "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
        }
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
                if old is not None and old["spec"]["versions"] != spec["versions"]:
                    _reread(cluster, rt)

    def prepare(self, cluster: Cluster, obj: Object, old: Object | None, request: Request) -> None:
        if old is None:
            stored = [version["name"] for version in obj["spec"]["versions"] if version.get("storage")]
            obj["status"] = {"conditions": None, "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": stored}
