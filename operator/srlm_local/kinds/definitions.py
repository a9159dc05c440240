"""CustomResourceDefinitions, the resources that they bring into being, and the controller that ends both."""

from __future__ import annotations

from typing import Any

from srlm_local.store.cluster import Cluster
from srlm_local.store.errors import forbidden, wrong
from srlm_local.store.request import Request
from srlm_local.store.resources import ResourceType, Rules, View
from srlm_local.store.storage import keep
from srlm_local.store.values import copy
from srlm_operator.crd import schema as schemas
from srlm_operator.crd.objects import validate
from srlm_operator.crd.schema import FieldError

Object = dict[str, Any]
CRDS = "customresourcedefinitions.apiextensions.k8s.io"
CLEANUP = "customresourcecleanup.apiextensions.k8s.io"


class CustomRules(Rules):
    """An instance of a custom kind: everything follows from its schema."""

    def __init__(self, names: Object, group: str, schema: Object) -> None:
        self._names, self._group, self._schema = names, group, schema

    def decode(self, obj: Object, request: Request) -> str:
        if obj["kind"] != self._names["kind"]:
            return ""
        return request.unknown_fields(schemas.prune(self._schema, obj))

    def default(self, obj: Object) -> None:
        if obj["kind"] == self._names["kind"]:
            schemas.apply_defaults(self._schema, obj)

    def admit(self, view: View, obj: Object) -> None:
        plural = self._names["plural"]
        crd = view.storage.get(CRDS, "", f"{plural}.{self._group}")
        if crd is not None and "deletionTimestamp" in crd["metadata"]:
            why = "create not allowed while custom resource definition is terminating"
            raise forbidden(plural, self._group, obj["metadata"].get("name", ""), why)

    def validate(self, obj: Object, old: Object | None, before: list[FieldError]) -> list[FieldError]:
        kind = self._names["kind"]
        found = [] if obj["kind"] == kind else [wrong("kind", obj["kind"], f"must be {kind}")]
        return found + validate(self._schema, obj, old, [*before, *found])

    def validate_status(self, obj: Object, old: Object) -> list[FieldError]:
        return validate(self._schema, obj, old)

    def read_again(self, view: View, resource: str) -> None:
        """What is stored, as a new schema reads it: pruned and with its defaults, without a new generation.

        A real server does so at each read, and ends the watches so that clients list again; here they see a change.
        """
        for stored in view.storage.list(resource):
            obj = copy(stored)
            schemas.prune(self._schema, obj)
            schemas.apply_defaults(self._schema, obj)
            if obj != stored:
                view.storage.put(resource, obj["metadata"].get("namespace", ""), obj["metadata"]["name"], obj)


def types_of(crd: Object) -> list[ResourceType]:
    """The types that a CustomResourceDefinition serves, by version."""
    spec, names = crd["spec"], crd["spec"]["names"]
    return [
        ResourceType(
            group=spec["group"],
            version=version["name"],
            kind=names["kind"],
            plural=names["plural"],
            singular=names["singular"],
            rules=CustomRules(names, spec["group"], version["schema"]["openAPIV3Schema"]),
            namespaced=spec["scope"] == "Namespaced",
            short_names=tuple(names.get("shortNames") or ()),
            categories=tuple(names.get("categories") or ()),
            status="status" in (version.get("subresources") or {}),
            generation=True,
            unconditional=False,
            crd=version,
            list_kind=names["listKind"],
        )
        for version in spec["versions"]
        if version.get("served")
    ]


class DefinitionRules(Rules):
    """A CustomResourceDefinition. Its resources are served from its creation on; a controller says so in status."""

    keeps_status = True

    def default(self, obj: Object) -> None:
        spec = obj.setdefault("spec", {})
        names = spec.setdefault("names", {})
        names.setdefault("singular", str(names.get("kind", "")).lower())
        names.setdefault("listKind", f"{names.get('kind', '')}List")
        spec.setdefault("conversion", {"strategy": "None"})

    def prepare(self, view: View, obj: Object, old: Object | None) -> None:
        if old is None:
            stored = [version["name"] for version in obj["spec"].get("versions") or [] if version.get("storage")]
            obj["status"] = {"conditions": None, "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": stored}

    def validate(self, obj: Object, old: Object | None, before: list[FieldError]) -> list[FieldError]:
        """As little as is needed here: only a real API server checks definitions."""
        spec = obj["spec"]
        if obj["metadata"].get("name") == f"{spec['names'].get('plural', '')}.{spec.get('group', '')}":
            return []
        return [wrong("metadata.name", obj["metadata"].get("name", ""), 'must be spec.names.plural+"."+spec.group')]

    def begin_deletion(self, view: View, obj: Object) -> bool:
        """The definition stays until the controller has deleted its instances."""
        meta = obj["metadata"]
        if "deletionTimestamp" in meta:
            return bool(meta.get("finalizers"))
        meta["deletionTimestamp"] = view.timestamp()
        meta["finalizers"] = [*(meta.get("finalizers") or []), CLEANUP]
        made = _condition("Terminating", "InstanceDeletionPending", view.timestamp())
        obj["status"]["conditions"] = [*(obj["status"].get("conditions") or []), made]
        return True

    def after(self, view: View, obj: Object | None, old: Object | None) -> None:
        spec = (obj or old or {})["spec"]
        view.registry.withdraw(spec["group"], spec["names"]["plural"])
        for rt in types_of(obj) if obj is not None else []:
            view.registry.serve(rt)
            if old is not None and old["spec"]["versions"] != spec["versions"] and isinstance(rt.rules, CustomRules):
                rt.rules.read_again(view, rt.name)


def _condition(kind: str, reason: str, now: str) -> Object:
    return {"type": kind, "status": "True", "lastTransitionTime": now, "reason": reason, "message": ""}


class DefinitionController:
    """Accepts the names of new definitions; deletes the instances of terminating ones, then lets them go."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._waiting = False

    async def run(self) -> None:
        # Instances matter only while a definition waits for them to go.
        await keep(self._cluster.storage, lambda change: self._waiting or change.resource == CRDS, self.sync)

    def sync(self) -> None:
        """One round over all definitions. Safe to repeat."""
        definitions = self._cluster.list(CRDS)
        self._waiting = any("deletionTimestamp" in crd["metadata"] for crd in definitions)
        for crd in definitions:
            if "deletionTimestamp" in crd["metadata"] and CLEANUP in (crd["metadata"].get("finalizers") or []):
                self._clean(crd)
            elif not crd["status"].get("conditions"):
                now = self._cluster.timestamp()
                accepted = _condition("NamesAccepted", "NoConflicts", now)
                established = _condition("Established", "InitialNamesAccepted", now)
                crd["status"]["conditions"] = [accepted, established]
                crd["status"]["acceptedNames"] = dict(crd["spec"]["names"])
                self._cluster.write(self._cluster.type_of(CRDS), crd)

    def _clean(self, crd: Object) -> None:
        cluster, rt = self._cluster, types_of(crd)[0]
        for obj in cluster.storage.list(rt.name):
            meta = obj["metadata"]
            if "deletionTimestamp" not in meta:
                cluster.delete(rt, meta["name"], meta.get("namespace", ""), propagation="Background")
        if not cluster.storage.list(rt.name):
            left = [name for name in crd["metadata"]["finalizers"] if name != CLEANUP]
            cluster.patch(CRDS, crd["metadata"]["name"], {"metadata": {"finalizers": left or None}})
