"""GET: one object, lists with selectors, and the forms they can take."""

from __future__ import annotations

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
    """The objects that are asked for and the list's metadata. All at once: a server may ignore `limit`."""
    match = cluster.predicate(rt, query.get("labelSelector", ""), query.get("fieldSelector", ""))
    asked = query.get("resourceVersion") or "0"
    check_version(cluster.version, asked)
    version = int(asked) if query.get("resourceVersionMatch") == "Exact" else cluster.version
    found = [obj for obj in cluster.storage.list_at(rt.name, route.namespace or None, version) if match(obj)]
    return found, {"resourceVersion": str(version)}


def check_version(current: int, asked: str) -> None:
    """Raises 422 for what is no version, 504 for one of the future: the client talked to another server."""
    if not asked.isdigit():
        error = errors.wrong("resourceVersion", asked, "it is not a number")
        raise errors.invalid("ListOptions", "meta.k8s.io", "", [error])
    if int(asked) > current:
        cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
        message = f"Timeout: Too large resource version: {asked}, current: {current}"
        raise ApiError(504, "Timeout", message, {"causes": [cause], "retryAfterSeconds": 1})
