"""POST, PUT, PATCH and DELETE of objects."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from srlm_local.http.answer import answer
from srlm_local.http.protobuf import MAGIC, decode_protobuf
from srlm_local.http.read import as_list, select
from srlm_local.http.routing import Route
from srlm_local.store import errors
from srlm_local.store.cluster import Cluster, PatchType
from srlm_local.store.deletion import DeleteOptions
from srlm_local.store.errors import ApiError
from srlm_local.store.request import Request
from srlm_local.store.resources import ResourceType

Object = dict[str, Any]
MAX_BODY = 3 * 1024 * 1024
PATCHES: dict[str, PatchType] = {
    "application/json-patch+json": "json",
    "application/merge-patch+json": "merge",
    "application/strategic-merge-patch+json": "strategic",
}


async def create(http: web.Request, cluster: Cluster, rt: ResourceType, route: Route) -> web.Response:
    request = options_of(http)
    made = cluster.create(rt, await read_object(http, rt), route.namespace, request=request)
    return answer(made, 201, warnings=request.warnings)


async def update(http: web.Request, cluster: Cluster, rt: ResourceType, route: Route) -> web.Response:
    request, obj = options_of(http), await read_object(http, rt)
    existed = cluster.find(rt, route.name, route.namespace) is not None
    place = {"name": route.name, "namespace": route.namespace, "subresource": route.subresource}
    done = cluster.update(rt, obj, **place, request=request)
    return answer(done, 200 if existed else 201, warnings=request.warnings)


async def patch(http: web.Request, cluster: Cluster, rt: ResourceType, route: Route) -> web.Response:
    request, kind = options_of(http), PATCHES.get(http.content_type)
    if kind is None or (kind == "strategic" and rt.custom):
        served = ", ".join(name for name in PATCHES if not (rt.custom and "strategic" in name))
        why = f"a patch of type {http.content_type} is not taken here, only {served}"
        if "apply" in http.content_type:
            why += ": server-side apply needs a real API server; `kubectl apply` without --server-side works"
        raise errors.unsupported_media_type(why)
    content = _read_json(await _read_body(http))
    if not isinstance(content, list if kind == "json" else dict):
        raise errors.bad_request(f"error decoding patch: it is a {type(content).__name__}")
    place: Any = {"kind": kind, "subresource": route.subresource}
    done = cluster.patch(rt, route.name, content, route.namespace, **place, request=request)
    return answer(done, warnings=request.warnings)


async def delete(http: web.Request, cluster: Cluster, rt: ResourceType, route: Route) -> web.Response:
    options, request = await _delete_options(http)
    left, gone = cluster.delete(rt, route.name, route.namespace, options, request=request)
    if not gone or rt.rules.returns_deleted:
        return answer(left)
    details = errors.details(route.name, rt.group, rt.plural, uid=left["metadata"]["uid"])
    return answer({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})


async def delete_collection(http: web.Request, cluster: Cluster, rt: ResourceType, route: Route) -> web.Response:
    options, request = await _delete_options(http)
    options.check()
    items, meta = select(cluster, rt, route, http.query)
    for item in items:
        found = item["metadata"]
        if cluster.find(rt, found["name"], found.get("namespace", "")) is not None:
            cluster.delete(rt, found["name"], found.get("namespace", ""), options, request=request)
    return answer(as_list(rt, items, meta))


def options_of(http: web.Request) -> Request:
    """dryRun and fieldValidation of a write. Raises 422 for values that do not exist."""
    validation = http.query.get("fieldValidation") or "Warn"
    if validation not in ("Ignore", "Strict", "Warn"):
        error = errors.unsupported("fieldValidation", validation, ["", "Ignore", "Strict", "Warn"])
        raise errors.invalid("CreateOptions", "meta.k8s.io", "", [error])
    return Request(dry_run="dryRun" in http.query, validation=validation)


async def read_object(http: web.Request, rt: ResourceType) -> Object:
    """The object in the body. Raises 400 for what is none, 413 for what is too large, 415 for other media types."""
    body = await _read_body(http)
    if body.startswith(MAGIC) and not rt.custom:
        return decode_protobuf(body)
    if "Content-Type" in http.headers and http.content_type != "application/json":
        raise errors.unsupported_media_type(f"a body of type {http.content_type} is not read here: send JSON")
    obj = _read_json(body)
    if not isinstance(obj, dict):
        raise errors.bad_request(f"the object provided is unrecognized (must be of type {rt.kind})")
    if rt.custom and not obj.get("kind"):
        raise errors.bad_request(f"the object provided is unrecognized (must be of type {rt.kind}): it has no kind")
    return obj


async def _read_body(http: web.Request) -> bytes:
    """Raises 413 beyond 3 MiB."""
    body = b""
    while len(body) <= MAX_BODY and (more := await http.content.readany()):
        body += more
    if len(body) > MAX_BODY:
        raise ApiError(413, "RequestEntityTooLarge", f"Request entity too large: limit is {MAX_BODY}")
    return body


def _read_json(body: bytes) -> Any:
    """Raises 400."""
    try:
        return json.loads(body, parse_float=_number)
    except ValueError as error:
        raise errors.bad_request(f"error decoding the body: {error}") from None


def _number(text: str) -> float | int:
    """Whole numbers lose their fraction, as they do on their way through the real server."""
    value = float(text)
    return int(value) if value.is_integer() and abs(value) < 1e15 else value


async def _delete_options(http: web.Request) -> tuple[DeleteOptions, Request]:
    """From the query and the body."""
    body, query = await _read_body(http), http.query
    given: Object = decode_protobuf(body) if body.startswith(MAGIC) else (body.strip() and _read_json(body)) or {}
    preconditions = given.get("preconditions") or {}
    grace = given.get("gracePeriodSeconds", query.get("gracePeriodSeconds"))
    options = DeleteOptions(
        given.get("propagationPolicy") or query.get("propagationPolicy") or None,
        None if grace in (None, "") else int(grace),
        preconditions.get("uid"),
        preconditions.get("resourceVersion"),
    )
    return options, Request(dry_run=bool(given.get("dryRun") or "dryRun" in query))
