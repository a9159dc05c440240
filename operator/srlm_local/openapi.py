"""OpenAPI documents: what `kubectl explain` reads, and what tells kubectl that the server validates fields."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from aiohttp import web

from srlm_local import discovery
from srlm_local.builtin_schemas import components, model_name
from srlm_local.cluster import Cluster
from srlm_local.resources import ResourceType
from srlm_local.respond import answer

Object = dict[str, Any]
_V2_PROTOBUF = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
_PARAMETERS = [
    {"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": True}}
    for name in ("dryRun", "fieldManager", "fieldValidation")
]


def serve(cluster: Cluster, request: web.Request) -> web.Response:
    path = request.path.rstrip("/")
    if path == "/openapi/v2" and "protobuf" in request.headers.get("Accept", ""):
        return web.Response(
            body=_v2_protobuf(), content_type="application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
        )
    if path == "/openapi/v2":
        return answer(_v2(cluster))
    if path == "/openapi/v3":
        return answer(
            {"paths": {p: {"serverRelativeURL": f"/openapi/v3/{p}?hash={_hash(cluster)}"} for p in _groups(cluster)}}
        )
    document = _groups(cluster).get(path.removeprefix("/openapi/v3/"))
    if document is None:
        return web.Response(status=404, text="404 page not found\n")
    return answer(_v3(cluster, *document))


def _v2_protobuf() -> bytes:
    """An openapi.v2.Document that describes nothing: enough for kubectl to leave validation to the server."""

    def text(number: int, value: str) -> bytes:
        return bytes([number << 3 | 2, len(value)]) + value.encode()

    def message(number: int, body: bytes) -> bytes:
        return bytes([number << 3 | 2, len(body)]) + body

    info = text(1, "Kubernetes") + text(2, discovery.VERSION["gitVersion"])
    return text(1, "2.0") + message(2, info) + message(8, b"") + message(9, b"")


def _groups(cluster: Cluster) -> dict[str, tuple[str, str]]:
    found = {"api/v1": ("", "v1")}
    for group in discovery.groups(cluster):
        for version in discovery.versions(cluster, group):
            found[f"apis/{group}/{version}"] = (group, version)
    return found


def _hash(cluster: Cluster) -> str:
    names = [f"{rt.name}/{rt.version}/{json.dumps(rt.schema, sort_keys=True)}" for rt in cluster.registry.all()]
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:32].upper()


def _schema_name(rt: ResourceType) -> str:
    return f"{'.'.join(reversed(rt.group.split('.')))}.{rt.version}.{rt.kind}" if rt.custom else model_name(rt)


def _kind(rt: ResourceType) -> Object:
    return {"group": rt.group, "version": rt.version, "kind": rt.kind}


def _v3(cluster: Cluster, group: str, version: str) -> Object:
    types = [rt for rt in cluster.registry.group(group) if rt.version == version]
    schemas = components([model_name(rt) for rt in types if not rt.custom] + ["V1ObjectMeta"])
    paths: Object = {}
    for rt in types:
        name = _schema_name(rt)
        if rt.custom:
            schemas[name] = _custom(rt)
        schemas[name] = {**schemas[name], "x-kubernetes-group-version-kind": [_kind(rt)]}
        paths |= _paths(rt, {"$ref": f"#/components/schemas/{name}"})
    info = {"title": "Kubernetes", "version": discovery.VERSION["gitVersion"]}
    return {"openapi": "3.0.0", "info": info, "paths": paths, "components": {"schemas": schemas}}


def _custom(rt: ResourceType) -> Object:
    schema = dict(rt.schema or {"type": "object"})
    string = {"type": "string"}
    properties = {"apiVersion": string, "kind": string, **(schema.get("properties") or {})}
    properties["metadata"] = {"allOf": [{"$ref": "#/components/schemas/V1ObjectMeta"}]}
    return {**schema, "properties": properties}


def _paths(rt: ResourceType, reference: Object) -> Object:
    prefix = f"/apis/{rt.group}/{rt.version}" if rt.group else f"/api/{rt.version}"
    base = f"{prefix}/namespaces/{{namespace}}/{rt.plural}" if rt.namespaced else f"{prefix}/{rt.plural}"
    content = {"application/json": {"schema": reference}}

    def operation(action: str, **more: Any) -> Object:
        return {
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": _kind(rt),
            "parameters": _PARAMETERS,
            "responses": {"200": {"description": "OK", "content": content}},
            **more,
        }

    body = {"requestBody": {"content": content}}
    return {
        base: {"get": operation("list"), "post": operation("post", **body)},
        f"{base}/{{name}}": {
            "get": operation("get"),
            "put": operation("put", **body),
            "patch": operation("patch", **body),
            "delete": operation("delete"),
        },
    }


def _v2(cluster: Cluster) -> Object:
    """The older form, for clients that still ask for it; references are renamed."""
    paths: Object = {}
    definitions: Object = {}
    for group, version in _groups(cluster).values():
        document = _v3(cluster, group, version)
        paths |= document["paths"]
        definitions |= document["components"]["schemas"]
    text = json.dumps(
        {
            "swagger": "2.0",
            "info": {"title": "Kubernetes", "version": discovery.VERSION["gitVersion"]},
            "paths": paths,
            "definitions": definitions,
        }
    )
    renamed: Object = json.loads(text.replace("#/components/schemas/", "#/definitions/"))
    return renamed
