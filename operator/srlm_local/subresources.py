"""Subresources other than status: logs, binding and eviction of pods, tokens, and finalize of namespaces."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from aiohttp import web

from srlm_contract.schema import FieldError
from srlm_local import errors, pods
from srlm_local.deletion import check_preconditions
from srlm_local.errors import ApiError
from srlm_local.http_write import decode, delete_options, options_of, read_body
from srlm_local.protobuf_body import MAGIC, decode_protobuf
from srlm_local.request import Request, User
from srlm_local.resources import ResourceType
from srlm_local.respond import answer
from srlm_local.routing import Route

if TYPE_CHECKING:
    from srlm_local.apiserver import ApiServer
    from srlm_local.cluster import Cluster

Object = dict[str, Any]
SUCCESS: Object = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}


async def handle(
    http: web.Request, server: ApiServer, rt: ResourceType, route: Route, user: User
) -> web.StreamResponse:
    from srlm_local.apiserver import nowhere

    cluster = server.cluster
    match (rt.name, route.subresource, http.method):
        case ("pods", "log", "GET"):
            return await _log(http, cluster, route)
        case ("pods", "binding", "POST"):
            body = await _json(http)
            options = options_of(http, user, "CreateOptions", rt)
            cluster.get(rt, route.name, route.namespace)
            if not options.dry_run:
                pods.bind(cluster, route.name, route.namespace, (body.get("target") or {}).get("name", ""))
            return answer(SUCCESS, 201)
        case ("pods", "eviction", "POST"):
            return await _evict(http, cluster, rt, route, user)
        case ("serviceaccounts", "token", "POST"):
            return await _token(http, server, route)
        case ("namespaces", "finalize", "PUT"):
            return await _finalize(http, cluster, rt, route)
        case ("pods", "log" | "binding" | "eviction", _) | ("serviceaccounts", "token", _):
            raise errors.method_not_allowed()
    return nowhere()


async def _json(http: web.Request) -> Object:
    body = await read_body(http)
    if body.startswith(MAGIC):
        return decode_protobuf(body)
    try:
        found = json.loads(body or b"{}")
    except ValueError as error:
        raise errors.bad_request(f"json parse error: {error}") from None
    if not isinstance(found, dict):
        raise errors.bad_request("the body is no object")
    return found


async def _log(http: web.Request, cluster: Cluster, route: Route) -> web.StreamResponse:
    pod = cluster.get("pods", route.name, route.namespace)
    containers = [c["name"] for c in [*(pod["spec"].get("initContainers") or []), *pod["spec"]["containers"]]]
    main = [c["name"] for c in pod["spec"]["containers"]]
    wanted = http.query.get("container", "")
    if not wanted and len(main) > 1:
        raise errors.bad_request(
            f"a container name must be specified for pod {route.name}, choose one of: [{' '.join(containers)}]"
        )
    if wanted and wanted not in containers:
        raise errors.bad_request(f"container {wanted} is not valid for pod {route.name}")
    if not pod["spec"].get("nodeName"):
        return web.Response(status=204)
    if cluster.log_reader is None:
        raise errors.not_found("pods", "", pod["spec"]["nodeName"])
    text: str | AsyncIterator[bytes] = cluster.log_reader(pod, {"container": wanted or main[0], **_query(http)})
    if isinstance(text, str):
        return web.Response(text=text, content_type="text/plain")
    response = web.StreamResponse(headers={"Content-Type": "text/plain"})
    await response.prepare(http)
    try:
        async for chunk in text:
            await response.write(chunk)
    except ConnectionResetError:
        return response
    await response.write_eof()
    return response


def _query(http: web.Request) -> dict[str, str]:
    return {key: value for key, value in http.query.items() if key != "container" or value}


async def _evict(http: web.Request, cluster: Cluster, rt: ResourceType, route: Route, user: User) -> web.Response:
    body = await _json(http)
    pod = cluster.get(rt, route.name, route.namespace)
    options, dry_run = delete_options(json.dumps(body.get("deleteOptions") or {}).encode(), http.query)
    check_preconditions(rt, pod, options.uid, options.version)
    if dry_run or "deletionTimestamp" in pod["metadata"]:
        return answer(SUCCESS, 201)
    _refuse_if_protected(cluster, pod)
    if pod["spec"].get("nodeName") and pod["status"].get("phase") not in ("Succeeded", "Failed"):
        conditions = [c for c in pod["status"].get("conditions") or [] if c["type"] != "DisruptionTarget"]
        target = {
            "type": "DisruptionTarget",
            "status": "True",
            "lastProbeTime": None,
            "lastTransitionTime": cluster.timestamp(),
            "reason": "EvictionByEvictionAPI",
            "message": "Eviction API: evicting",
        }
        pod["status"]["conditions"] = [*conditions, target]
        cluster.write(rt, pod, Request(user=user))
    cluster.delete(rt, route.name, route.namespace, options=options)
    return answer(SUCCESS, 201)


def _refuse_if_protected(cluster: Cluster, pod: Object) -> None:
    """429 if a PodDisruptionBudget allows no disruption now."""
    from srlm_local.selectors import label_selector_object

    for budget in cluster.list("poddisruptionbudgets.policy", pod["metadata"]["namespace"]):
        if label_selector_object((budget.get("spec") or {}).get("selector"))(pod) and not (
            (budget.get("status") or {}).get("disruptionsAllowed", 0)
        ):
            name = budget["metadata"]["name"]
            cause = {
                "reason": "DisruptionBudget",
                "message": f"The disruption budget {name} does not allow evicting pods currently",
            }
            raise ApiError(
                429,
                "TooManyRequests",
                "Cannot evict pod as it would violate the pod's disruption budget.",
                {"causes": [cause]},
            )


async def _token(http: web.Request, server: ApiServer, route: Route) -> web.Response:
    body = await _json(http)
    account = server.cluster.get("serviceaccounts", route.name, route.namespace)
    spec = body.get("spec") or {}
    seconds = int(spec.get("expirationSeconds") or 3600)
    if seconds < 600:
        error = FieldError(
            "spec.expirationSeconds",
            f"Invalid value: {seconds}: may not specify a duration less than 10 minutes",
            "FieldValueInvalid",
        )
        raise errors.invalid("TokenRequest", "authentication.k8s.io", "", [error])
    token, expiry = server.tokens.issue(account, seconds, spec.get("boundObjectRef"))
    shown = {
        "kind": "TokenRequest",
        "apiVersion": "authentication.k8s.io/v1",
        "metadata": {
            "name": route.name,
            "namespace": route.namespace,
            "uid": account["metadata"]["uid"],
            "creationTimestamp": server.cluster.timestamp(),
        },
        "spec": {
            "audiences": spec.get("audiences") or ["https://kubernetes.default.svc"],
            "expirationSeconds": seconds,
            "boundObjectRef": spec.get("boundObjectRef"),
        },
        "status": {"token": token, "expirationTimestamp": expiry},
    }
    return answer(shown, 201)


async def _finalize(http: web.Request, cluster: Cluster, rt: ResourceType, route: Route) -> web.Response:
    """Only the finalizers in the spec of a namespace can change here."""
    body = decode(await read_body(http), http.content_type, rt)
    namespace = cluster.get(rt, route.name)
    namespace["spec"] = {"finalizers": (body.get("spec") or {}).get("finalizers") or []}
    return answer(cluster.write(rt, namespace, Request()))
