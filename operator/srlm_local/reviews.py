"""Access and identity reviews: questions put as objects that are never stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import web

from srlm_local import errors
from srlm_local.discovery import REVIEWS
from srlm_local.errors import ApiError
from srlm_local.protobuf_body import MAGIC, decode_protobuf
from srlm_local.request import User
from srlm_local.respond import accept_of, answer
from srlm_local.routing import Route

if TYPE_CHECKING:
    from srlm_local.apiserver import ApiServer

Object = dict[str, Any]


async def review(http: web.Request, server: ApiServer, route: Route, user: User) -> web.Response:
    """Answers POST of any of the kinds in discovery.REVIEWS."""
    from srlm_local.apiserver import nowhere
    from srlm_local.http_write import read_body
    from srlm_local.json_body import parse_json

    kind = next((k for plural, k, _ in REVIEWS[(route.group, route.version)] if plural == route.plural), None)
    if kind is None:
        return nowhere()
    if route.verb != "create":
        raise errors.method_not_allowed()
    raw = await read_body(http)
    try:
        body = decode_protobuf(raw) if raw.startswith(MAGIC) else parse_json(raw.decode() or "{}")
    except ValueError as error:
        raise errors.bad_request(f"the object provided is unrecognized (must be of type {kind}): {error}") from None
    spec = body.get("spec") or {}
    shown: Object = {"kind": kind, "apiVersion": f"{route.group}/{route.version}", "metadata": {}, "spec": spec}
    match kind:
        case "SelfSubjectAccessReview":
            shown["status"] = _access(server, user, spec)
        case "SubjectAccessReview" | "LocalSubjectAccessReview":
            asked = User(spec.get("user", ""), tuple(spec.get("groups") or ()))
            shown["status"] = _access(server, asked, spec)
        case "SelfSubjectRulesReview":
            shown["spec"] = {}
            shown["status"] = rules(server, user, spec.get("namespace", ""))
        case "TokenReview":
            shown["status"] = _token(server, spec.get("token", ""))
        case "SelfSubjectReview":
            del shown["spec"]
            shown["metadata"] = {"creationTimestamp": server.cluster.timestamp()}
            shown["status"] = {"userInfo": user_info(user)}
    return answer(shown, 201, as_yaml=accept_of(http).yaml)


def user_info(user: User) -> Object:
    info: Object = {"username": user.name}
    if user.uid:
        info["uid"] = user.uid
    info["groups"] = list(user.groups)
    if user.extra:
        info["extra"] = {key: [value] for key, value in user.extra}
    return info


def _access(server: ApiServer, user: User, spec: Object) -> Object:
    if resource := spec.get("resourceAttributes"):
        name = resource.get("resource", "")
        if resource.get("subresource"):
            name = f"{name}/{resource['subresource']}"
        origin = server.authorizer.allows(
            user,
            resource.get("verb", ""),
            resource.get("group", ""),
            name,
            resource.get("namespace", ""),
            resource.get("name", ""),
        )
    else:
        path = spec.get("nonResourceAttributes") or {}
        origin = server.authorizer.allows_path(user, path.get("verb", ""), path.get("path", ""))
    if origin is None:
        return {"allowed": False}
    return {"allowed": True, "reason": origin} if origin else {"allowed": True}


def rules(server: ApiServer, user: User, namespace: str) -> Object:
    """All rules of a user in a namespace, sorted, as a SelfSubjectRulesReview tells them."""
    resources: list[Object] = []
    paths: list[Object] = []
    if user.all_powerful:
        resources = [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]
        paths = [{"verbs": ["*"], "nonResourceURLs": ["*"]}]
    for grant in server.authorizer.grants(user, namespace):
        rule = grant.rule
        if rule.get("nonResourceURLs"):
            paths.append({"verbs": rule["verbs"], "nonResourceURLs": rule["nonResourceURLs"]})
        else:
            kept = {k: rule[k] for k in ("verbs", "apiGroups", "resources", "resourceNames") if rule.get(k)}
            resources.append(kept)
    resources.sort(key=lambda r: (r["apiGroups"], r["resources"]))
    paths.sort(key=lambda r: r["nonResourceURLs"])
    return {"resourceRules": resources, "nonResourceRules": paths, "incomplete": False}


def _token(server: ApiServer, token: str) -> Object:
    try:
        user = server.tokens.user(token)
    except ApiError:
        return {"authenticated": False, "error": "invalid bearer token", "user": {}}
    return {"authenticated": True, "user": user_info(user), "audiences": ["https://kubernetes.default.svc"]}
