"""Subresources other than status: logs and binding of pods, tokens of ServiceAccounts."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from srlm_local.http.access import Tokens
from srlm_local.http.answer import answer, nowhere
from srlm_local.http.routing import Route
from srlm_local.http.write import options_of, read_object
from srlm_local.store import errors
from srlm_local.store.cluster import Cluster
from srlm_local.store.resources import ResourceType

Object = dict[str, Any]
SUCCESS: Object = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}


async def handle(
    http: web.Request, cluster: Cluster, tokens: Tokens, rt: ResourceType, route: Route
) -> web.StreamResponse:
    match (rt.name, route.subresource, http.method):
        case ("pods", "log", "GET"):
            return await _log(http, cluster, route)
        case ("pods", "binding", "POST"):
            node = (await read_object(http, rt))["target"]["name"]
            if not options_of(http).dry_run:
                cluster.bind(route.name, route.namespace, node)
            return answer(SUCCESS, 201)
        case ("serviceaccounts", "token", "POST"):
            return await _token(http, cluster, tokens, rt, route)
    return nowhere()


async def _log(http: web.Request, cluster: Cluster, route: Route) -> web.StreamResponse:
    pod = cluster.get("pods", route.name, route.namespace)
    main = [c["name"] for c in pod["spec"]["containers"]]
    known = [*(c["name"] for c in pod["spec"].get("initContainers") or []), *main]
    wanted = http.query.get("container", "")
    if not wanted and len(main) > 1:
        listed = " ".join(known)
        raise errors.bad_request(f"a container name must be specified for pod {route.name}, choose one of: [{listed}]")
    if wanted and wanted not in known:
        raise errors.bad_request(f"container {wanted} is not valid for pod {route.name}")
    if not pod["spec"].get("nodeName"):
        return web.Response(status=204)
    if cluster.log_reader is None:
        raise errors.not_found("nodes", "", pod["spec"]["nodeName"])
    text: str | AsyncIterator[bytes] = cluster.log_reader(pod, {**http.query, "container": wanted or main[0]})
    if isinstance(text, str):
        return web.Response(text=text, content_type="text/plain")
    response = web.StreamResponse(headers={"Content-Type": "text/plain"})
    await response.prepare(http)
    with contextlib.suppress(ConnectionResetError):
        async for chunk in text:
            await response.write(chunk)
        await response.write_eof()
    return response


async def _token(http: web.Request, cluster: Cluster, tokens: Tokens, rt: ResourceType, route: Route) -> web.Response:
    spec = (await read_object(http, rt)).get("spec") or {}
    account = cluster.get(rt, route.name, route.namespace)
    seconds = int(spec.get("expirationSeconds") or 3600)
    token, expiry = tokens.issue(account, seconds)
    head = {"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "metadata": {}}
    return answer({**head, "spec": spec, "status": {"token": token, "expirationTimestamp": expiry}}, 201)
