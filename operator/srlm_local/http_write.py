"""POST, PUT, PATCH and DELETE of objects."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from srlm_contract.schema import FieldError
from srlm_contract.yaml12 import load_documents
from srlm_local import errors
from srlm_local.cluster import Cluster, PatchType
from srlm_local.conversion import outward
from srlm_local.deletion import DeleteOptions
from srlm_local.errors import ApiError
from srlm_local.http_read import ListOptions, as_list, select
from srlm_local.json_body import duplicates, parse_json
from srlm_local.protobuf_body import MAGIC, decode_protobuf
from srlm_local.request import Request, User
from srlm_local.resources import ResourceType
from srlm_local.respond import PROTOBUF, SUPPORTED, Accept, accept_of, answer, partial
from srlm_local.routing import Route
from srlm_local.strictness import unknown_fields

Object = dict[str, Any]
MAX_BODY = 3 * 1024 * 1024
PATCHES: dict[str, PatchType] = {
    "application/json-patch+json": "json",
    "application/merge-patch+json": "merge",
    "application/strategic-merge-patch+json": "strategic",
    "application/apply-patch+yaml": "apply",
    "application/apply-patch+cbor": "apply",
}


async def read_body(request: web.Request) -> bytes:
    """The raw body. Raises 413 beyond 3 MiB."""
    body = await request.content.read(MAX_BODY + 1)
    while len(body) <= MAX_BODY and not request.content.at_eof():
        more = await request.content.read(MAX_BODY + 1 - len(body))
        if not more:
            break
        body += more
    if len(body) > MAX_BODY:
        raise ApiError(413, "RequestEntityTooLarge", f"Request entity too large: limit is {MAX_BODY}")
    return body


def options_of(request: web.Request, user: User, kind: str, rt: ResourceType) -> Request:
    """dryRun, fieldManager, fieldValidation and force of a write. Raises 422 for values that do not exist."""
    query = request.query
    manager = query.get("fieldManager") or request.headers.get("User-Agent", "unknown").split("/")[0]
    found: list[FieldError] = []
    validation = query.get("fieldValidation", "")
    if validation not in ("", "Ignore", "Strict", "Warn"):
        message = f'Unsupported value: "{validation}": supported values: "", "Ignore", "Strict", "Warn"'
        found.append(FieldError("fieldValidation", message, "FieldValueNotSupported"))
    dry_run = query.getall("dryRun", [])
    for value in dry_run:
        if value != "All":
            message = f'Unsupported value: "{value}": supported values: "All"'
            found.append(FieldError("dryRun", message, "FieldValueNotSupported"))
    force = query.get("force")
    if kind == "PatchOptions" and force is not None and "apply" not in request.content_type:
        found.append(FieldError("force", "Forbidden: may not be specified for non-apply patch", "FieldValueForbidden"))
    if found:
        raise errors.invalid(kind, "meta.k8s.io", "", found)
    return Request(
        user=user, manager=manager, dry_run=bool(dry_run), validation=validation or "Warn", force=force == "true"
    )


def body_type(http: web.Request) -> str:
    """The media type that was sent; empty without one, where aiohttp would say application/octet-stream."""
    return http.content_type if "Content-Type" in http.headers else ""


def decode(body: bytes, content_type: str, rt: ResourceType, request: Request | None = None) -> Object:
    """The object in a body. Raises 400 for what is none, 415 for other media types."""
    kind = content_type or "application/json"
    if kind in ("application/yaml", "text/yaml"):
        try:
            obj = read_yaml(body)
        except ValueError as error:
            raise errors.bad_request(f"error converting YAML to JSON: {error}") from None
    elif kind == "application/json":
        text = body.decode("utf-8", "replace")
        try:
            obj = parse_json(text)
        except ValueError as error:
            why = "unexpected end of JSON input" if _truncated(text) else str(error)
            raise errors.bad_request(
                f"the object provided is unrecognized (must be of type {rt.kind}): couldn't get version/kind; "
                f"json parse error: {why} ({text[:30]})"
            ) from None
    elif kind == PROTOBUF and not rt.custom:
        return decode_protobuf(body)
    else:
        raise ApiError(
            415,
            "UnsupportedMediaType",
            f"the body of the request was in an unknown format - accepted media types include: {SUPPORTED}",
        )
    shown = body.decode("utf-8", "replace")
    if not isinstance(obj, dict):
        message = (
            f"the object provided is unrecognized (must be of type {rt.kind}): couldn't get version/kind; json parse "
            f"error: json: cannot unmarshal {'array' if isinstance(obj, list) else 'string'} into Go value of type "
            'struct { APIVersion string "json:\\"apiVersion,omitempty\\""; Kind string "json:\\"kind,omitempty\\"" } '
            f"({body[:20].hex()})"
        )
        raise errors.bad_request(message)
    if not obj.get("kind") and rt.custom:
        cut = shown if len(shown) <= 30 else shown[:30] + " ..."
        raise errors.bad_request(
            f"the object provided is unrecognized (must be of type {rt.kind}): Object 'Kind' is missing in "
            f"'{shown}' ({cut})"
        )
    if request is not None and kind == "application/json":
        unknown_fields(rt, duplicates(obj), request, None, obj, "duplicate")
    return obj


def _truncated(text: str) -> bool:
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return error.pos >= len(text.rstrip())
    return False


def render(rt: ResourceType, obj: Object, accept: Accept, status: int, request: Request) -> web.Response:
    shown = outward(rt, obj)
    body = partial(shown, accept.version) if accept.partial else shown
    return answer(body, status, as_yaml=accept.yaml, warnings=request.warnings)


async def create(http: web.Request, cluster: Cluster, rt: ResourceType, route: Route, user: User) -> web.Response:
    accept = accept_of(http)
    body = await read_body(http)
    request = options_of(http, user, "CreateOptions", rt)
    request.body_size = len(body)
    try:
        obj = decode(body, body_type(http), rt, request)
        made = cluster.create(rt, obj, route.namespace, request=request)
    except ApiError as error:
        raise with_warnings(error, request) from None
    return render(rt, made, accept, 201, request)


def with_warnings(error: ApiError, request: Request) -> ApiError:
    """Warnings that were collected before a refusal are sent along with it."""
    error.warnings = list(request.warnings)
    return error


async def update(http: web.Request, cluster: Cluster, rt: ResourceType, route: Route, user: User) -> web.Response:
    accept = accept_of(http)
    body = await read_body(http)
    request = options_of(http, user, "UpdateOptions", rt)
    request.body_size = len(body)
    existed = cluster.find(rt, route.name, route.namespace) is not None
    try:
        obj = decode(body, body_type(http), rt, request)
        done = cluster.update(
            rt, obj, name=route.name, namespace=route.namespace, subresource=route.subresource, request=request
        )
    except ApiError as error:
        raise with_warnings(error, request) from None
    return render(rt, done, accept, 200 if existed else 201, request)


async def patch(http: web.Request, cluster: Cluster, rt: ResourceType, route: Route, user: User) -> web.Response:
    accept = accept_of(http)
    kind = PATCHES.get(http.content_type)
    supported = [name for name in PATCHES if "cbor" not in name and not (rt.custom and "strategic" in name)]
    if kind is None or (kind == "strategic" and rt.custom):
        raise ApiError(
            415,
            "UnsupportedMediaType",
            f"the body of the request was in an unknown format - accepted media types include: {', '.join(supported)}",
        )
    body = await read_body(http)
    request = options_of(http, user, "PatchOptions", rt)
    request.body_size = len(body)
    if kind == "apply" and not http.query.get("fieldManager"):
        error = FieldError("fieldManager", "Required value: is required for apply patch", "FieldValueRequired")
        raise errors.invalid("PatchOptions", "meta.k8s.io", "", [error])
    content = decode_patch(body, kind)
    existed = cluster.find(rt, route.name, route.namespace) is not None
    try:
        done = cluster.patch(
            rt,
            route.name,
            content,
            route.namespace,
            kind=kind,
            subresource=route.subresource,
            request=request,
        )
    except ApiError as error:
        raise with_warnings(error, request) from None
    return render(rt, done, accept, 200 if existed else 201, request)


def read_yaml(body: bytes) -> Any:
    """The one document of a YAML or JSON body, read as YAML 1.2. Raises ValueError."""
    documents = load_documents(body.decode())
    if len(documents) != 1:
        raise ValueError(f"{len(documents)} documents where one is expected")
    return documents[0]


_GO_KINDS = {list: "array", str: "string", int: "number", float: "number", bool: "bool"}


def decode_patch(body: bytes, kind: PatchType) -> Any:
    """The patch in a body. Raises 400 for what cannot be one."""
    if kind == "apply":
        try:
            return read_yaml(body)
        except ValueError as error:
            raise errors.bad_request(f"error decoding YAML: {error}") from None
    try:
        content = json.loads(body)
    except ValueError as error:
        raise errors.bad_request(f"error decoding patch: {error}") from None
    if kind == "json":
        if not isinstance(content, list):
            raise errors.bad_request(
                "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp"
            )
    elif not isinstance(content, dict):
        raise errors.bad_request(
            f"error decoding patch: json: cannot unmarshal {_GO_KINDS.get(type(content), 'null')} into Go value of "
            "type map[string]interface {}"
        )
    return content


def delete_options(body: bytes, query: Any) -> tuple[DeleteOptions, bool]:
    """(options, dry run) from the query and the body."""
    given: Object = {}
    if body.strip():
        try:
            given = decode_protobuf(body) if body.startswith(MAGIC) else read_yaml(body) or {}
        except ValueError as error:
            raise errors.bad_request(f"couldn't get version/kind; json parse error: {error}") from None
    preconditions = given.get("preconditions") or {}
    grace = given.get("gracePeriodSeconds", query.get("gracePeriodSeconds"))
    try:
        grace = None if grace in (None, "") else int(grace)
    except ValueError:
        raise errors.bad_request(f'strconv.ParseInt: parsing "{grace}": invalid syntax') from None
    orphan = given.get("orphanDependents")
    if orphan is None and "orphanDependents" in query:
        orphan = query["orphanDependents"] == "true"
    options = DeleteOptions(
        grace,
        given.get("propagationPolicy") or query.get("propagationPolicy") or None,
        orphan,
        preconditions.get("uid"),
        preconditions.get("resourceVersion"),
    )
    dry_run = given.get("dryRun") or query.getall("dryRun", [])
    return options, bool(dry_run)


async def delete(http: web.Request, cluster: Cluster, rt: ResourceType, route: Route, user: User) -> web.Response:
    accept = accept_of(http)
    options, dry_run = delete_options(await read_body(http), http.query)
    options.check()
    request = Request(user=user, dry_run=dry_run)
    strategy = cluster.strategy(rt)
    if strategy.orphans_by_default and options.propagation is None and options.orphan_dependents is None:
        request.warn(
            "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove "
            "them or set propagationPolicy=Orphan to suppress this warning"
        )
    try:
        left, gone = cluster.delete(rt, route.name, route.namespace, options=options, request=request)
    except ApiError as error:
        raise with_warnings(error, request) from None
    if not gone or strategy.returns_deleted:
        return render(rt, left, accept, 200, request)
    details = errors.details(route.name, rt.group, rt.plural, uid=left["metadata"]["uid"])
    body = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
    return answer(body, warnings=request.warnings)


async def delete_collection(
    http: web.Request, cluster: Cluster, rt: ResourceType, route: Route, user: User
) -> web.Response:
    accept = accept_of(http)
    options, dry_run = delete_options(await read_body(http), http.query)
    options.check()
    request = Request(user=user, dry_run=dry_run)
    items, meta = select(cluster, rt, route, ListOptions.of(http.query))
    for item in items:
        found = item["metadata"]
        if cluster.find(rt, found["name"], found.get("namespace", "")) is not None:
            cluster.delete(rt, found["name"], found.get("namespace", ""), options=options, request=request)
    return answer(as_list(rt, items, meta, accept), as_yaml=accept.yaml, warnings=request.warnings)
