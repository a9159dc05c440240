"""GET: one object, lists with selectors, pages and versions, and the forms they can take."""

from __future__ import annotations

import base64
import json
from typing import Any

from aiohttp import web

from srlm_local.http.answer import answer, wants_table
from srlm_local.http.routing import Route
from srlm_local.http.tables import table
from srlm_local.store import errors
from srlm_local.store.cluster import Cluster
from srlm_local.store.errors import ApiError
from srlm_local.store.resources import ResourceType

Object = dict[str, Any]


def read_one(request: web.Request, cluster: Cluster, rt: ResourceType, route: Route) -> web.Response:
    obj = cluster.get(rt, route.name, route.namespace)
    if wants_table(request):
        body = table(rt, [obj], cluster.clock.now(), request.query.get("includeObject", ""))
        obj = {**body, "metadata": {"resourceVersion": obj["metadata"]["resourceVersion"]}}
    return answer(obj)


def read_list(request: web.Request, cluster: Cluster, rt: ResourceType, route: Route) -> web.Response:
    items, meta = select(cluster, rt, route, request.query)
    if wants_table(request):
        body = table(rt, items, cluster.clock.now(), request.query.get("includeObject", ""))
        return answer({**body, "metadata": meta})
    return answer(as_list(rt, items, meta))


def as_list(rt: ResourceType, items: list[Object], meta: Object) -> Object:
    """The list object: items of built-in kinds come without kind and apiVersion."""
    if rt.custom:
        meta = {"continue": "", **meta}
    else:
        items = [{k: v for k, v in item.items() if k not in ("kind", "apiVersion")} for item in items]
    return {"kind": rt.list_kind or f"{rt.kind}List", "apiVersion": rt.api_version, "metadata": meta, "items": items}


def select(cluster: Cluster, rt: ResourceType, route: Route, query: Any) -> tuple[list[Object], Object]:
    """The objects that are asked for and the list's metadata."""
    labels, fields, token = (query.get(key, "") for key in ("labelSelector", "fieldSelector", "continue"))
    asked, exact = query.get("resourceVersion", ""), query.get("resourceVersionMatch") == "Exact"
    match, storage, start = cluster.predicate(rt, labels, fields), cluster.storage, ""
    limit = whole_number(query, "limit")
    if token and asked not in ("", "0"):
        raise errors.bad_request("specifying resource version is not allowed when using continue")
    if exact and asked in ("", "0"):
        error = errors.barred("resourceVersionMatch", "it is forbidden unless resourceVersion is provided")
        raise errors.invalid("ListOptions", "meta.k8s.io", "", [error])
    version = storage.version
    if token:
        version, start = _read_token(token)
    elif asked and known_version(storage.version, asked) and exact:
        version = int(asked)
    try:
        found = storage.list_at(rt.name, route.namespace or None, version)
    except ApiError as error:
        if token:  # a token to go on with, at the price of consistency
            error.list_meta = {"continue": _make_token(storage.version, start)}
        raise
    chosen = [obj for obj in found if match(obj) and _key(obj) >= start]
    meta: Object = {"resourceVersion": str(version)}
    if limit and len(chosen) > limit:
        meta["continue"] = _make_token(version, _key(chosen[limit - 1]) + "\u0000")
        if not labels and not fields:
            meta["remainingItemCount"] = len(chosen) - limit
        chosen = chosen[:limit]
    return chosen, meta


def whole_number(query: Any, key: str) -> int:
    """A number in a query, 0 without one. Raises 400."""
    try:
        return int(query.get(key) or 0)
    except ValueError:
        raise errors.bad_request(f"{key} is not a number: {query[key]!r}") from None


def known_version(current: int, asked: str) -> bool:
    """True. Raises 422 for what is no version, 504 for one of the future: the client talked to another server."""
    if not asked.isdigit():
        error = errors.wrong("resourceVersion", asked, "it is not a number")
        raise errors.invalid("ListOptions", "meta.k8s.io", "", [error])
    if int(asked) > current:
        cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
        message = f"Timeout: Too large resource version: {asked}, current: {current}"
        raise ApiError(504, "Timeout", message, {"causes": [cause], "retryAfterSeconds": 1})
    return True


def _key(obj: Object) -> str:
    meta = obj["metadata"]
    return f"{meta.get('namespace', '')}/{meta['name']}"


def _make_token(version: int, start: str) -> str:
    return base64.urlsafe_b64encode(json.dumps({"rv": version, "start": start}).encode()).decode().rstrip("=")


def _read_token(text: str) -> tuple[int, str]:
    """(version, first key). Raises 400 for anything that is no token of ours."""
    try:
        token = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        return int(token["rv"]), str(token["start"])
    except (ValueError, KeyError, TypeError) as error:
        raise errors.bad_request(f"continue key is not valid: {error}") from None
