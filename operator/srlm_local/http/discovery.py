"""/version, /api, /apis and /openapi: what there is, as far as kubectl and the Python client ask for it."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from srlm_local.http.answer import answer, nowhere
from srlm_local.store.cluster import Cluster
from srlm_local.store.resources import ResourceType

Object = dict[str, Any]
VERSION: Object = {"major": "1", "minor": "36", "gitVersion": "v1.36.2", "platform": "linux/amd64"}
#: Subresources beside status: (name, kind of the answer, verb).
SUBRESOURCES = {
    "pods": [("binding", "Binding", "create"), ("log", "Pod", "get")],
    "serviceaccounts": [("token", "TokenRequest", "create")],
}


def serve(cluster: Cluster, request: web.Request) -> web.Response:
    """Answers a path that names no resource."""
    body: Object | None = None
    match request.path.strip("/").split("/"):
        case ["healthz" | "livez" | "readyz", *_]:
            return web.Response(text="ok")
        case ["version"]:
            body = VERSION
        case ["api"]:
            body = {"kind": "APIVersions", "versions": ["v1"]}
        case ["apis"]:
            groups = {rt.group for rt in cluster.registry.all() if rt.group}
            listed = [_group(cluster, group) for group in sorted(groups)]
            body = {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}
        case ["api", version]:
            body = _resources(cluster, "", version)
        case ["apis", group] if any(rt.group == group for rt in cluster.registry.all()):
            body = {"kind": "APIGroup", "apiVersion": "v1", **_group(cluster, group)}
        case ["apis", group, version]:
            body = _resources(cluster, group, version)
        case ["openapi", "v2"]:
            return web.Response(body=_openapi_v2(), content_type=_OPENAPI_V2)
        case ["openapi", "v3", *place]:
            body = _openapi_v3(cluster, "/".join(place))
    return nowhere() if body is None else answer(body)


def _group(cluster: Cluster, group: str) -> Object:
    versions = sorted({rt.version for rt in cluster.registry.all() if rt.group == group}, key=_rank)
    listed = [{"groupVersion": f"{group}/{version}", "version": version} for version in versions]
    return {"name": group, "versions": listed, "preferredVersion": listed[0]}


def _rank(version: str) -> tuple[int, str]:
    """v1 before v1beta1 before v1alpha1."""
    return (2 if "alpha" in version else 1 if "beta" in version else 0), version


def _resources(cluster: Cluster, group: str, version: str) -> Object | None:
    """The APIResourceList of a group and version."""
    found: list[Object] = []
    for rt in _types(cluster, group, version):
        entry = {"singularName": rt.singular, "namespaced": rt.namespaced, "kind": rt.kind, "verbs": list(rt.verbs)}
        names = {"shortNames": list(rt.short_names), "categories": list(rt.categories)}
        found.append({"name": rt.plural, **entry, **{key: value for key, value in names.items() if value}})
        more = [(name, kind, [verb]) for name, kind, verb in SUBRESOURCES.get(rt.name, ())]
        if rt.status:
            more.append(("status", rt.kind, ["get", "patch", "update"]))
        for name, kind, verbs in more:
            found.append({**entry, "name": f"{rt.plural}/{name}", "singularName": "", "kind": kind, "verbs": verbs})
    version = f"{group}/{version}" if group else version
    head = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version}
    return {**head, "resources": found} if found else None


def _types(cluster: Cluster, group: str, version: str) -> list[ResourceType]:
    return [rt for rt in cluster.registry.all() if (rt.group, rt.version) == (group, version)]


# ---- OpenAPI: the schemas of custom resources, for `kubectl explain`; nothing about built-in kinds

_OPENAPI_V2 = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
_METADATA = {"type": "object", "description": "Standard object's metadata: name, namespace, labels, annotations."}
_PARAMETERS = [{"name": name, "in": "query", "schema": {"type": "string"}} for name in ("dryRun", "fieldValidation")]


def _openapi_v2() -> bytes:
    """An openapi.v2.Document that describes nothing: enough for kubectl to leave validation to the server."""

    def field(number: int, content: bytes) -> bytes:
        return bytes([number << 3 | 2, len(content)]) + content

    info = field(1, b"Kubernetes") + field(2, VERSION["gitVersion"].encode())
    return field(1, b"2.0") + field(2, info) + field(8, b"") + field(9, b"")


def _openapi_v3(cluster: Cluster, place: str) -> Object | None:
    documents: dict[str, list[ResourceType]] = {}
    for rt in cluster.registry.all():
        if rt.custom:
            documents.setdefault(f"apis/{rt.api_version}", []).append(rt)
    if place:
        return _document(documents[place]) if place in documents else None
    return {"paths": {path: {"serverRelativeURL": f"/openapi/v3/{path}"} for path in documents}}


def _document(types: list[ResourceType]) -> Object:
    schemas: Object = {}
    paths: Object = {}
    for rt in types:
        kind = {"group": rt.group, "version": rt.version, "kind": rt.kind}
        schema = (rt.crd or {})["schema"]["openAPIV3Schema"]
        marks = {"x-kubernetes-group-version-kind": [kind]}
        schemas[rt.kind] = {**schema, "properties": {**schema["properties"], "metadata": _METADATA}, **marks}
        patch = {"x-kubernetes-action": "patch", "x-kubernetes-group-version-kind": kind, "parameters": _PARAMETERS}
        get = {**patch, "x-kubernetes-action": "get", "responses": {"200": {"description": "OK"}}}
        paths[f"/apis/{rt.api_version}/namespaces/{{namespace}}/{rt.plural}/{{name}}"] = {"get": get, "patch": patch}
    head = {"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": VERSION["gitVersion"]}}
    return {**head, "paths": paths, "components": {"schemas": schemas}}
