"""Who a request comes from, and what RBAC lets them do."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from srlm_local.clock import parse_time, to_seconds
from srlm_local.cluster import Cluster
from srlm_local.errors import ApiError, qualified
from srlm_local.request import ADMIN, User
from srlm_local.routing import Route

Object = dict[str, Any]
ANONYMOUS = User("system:anonymous", ("system:unauthenticated",))
ISSUER = "https://kubernetes.default.svc"
PUBLIC_PATHS = ("/healthz", "/livez", "/readyz", "/version", "/version/")
DISCOVERY_PATHS = ("/api", "/apis", "/openapi")
_RBAC = "rbac.authorization.k8s.io"


def unauthorized() -> ApiError:
    return ApiError(401, "Unauthorized", "Unauthorized")


class Tokens:
    """Issues and checks bearer tokens: one for the administrator, signed ones for ServiceAccounts."""

    def __init__(self, cluster: Cluster, admin_token: str | None = None, key: bytes | None = None) -> None:
        self._cluster = cluster
        self._key = key or secrets.token_bytes(32)
        self.admin = admin_token or secrets.token_urlsafe(32)

    def issue(self, account: Object, seconds: int, bound: Object | None = None) -> tuple[str, str]:
        """(token, time of expiry) for a ServiceAccount object."""
        meta = account["metadata"]
        expiry = self._cluster.clock.now() + timedelta(seconds=seconds)
        claims = {
            "iss": ISSUER,
            "sub": f"system:serviceaccount:{meta['namespace']}:{meta['name']}",
            "uid": meta["uid"],
            "exp": to_seconds(expiry),
            "jti": str(uuid.uuid4()),
            "bound": bound,
        }
        head, payload = _b64({"alg": "HS256", "typ": "JWT"}), _b64(claims)
        return f"{head}.{payload}.{self._sign(f'{head}.{payload}')}", to_seconds(expiry)

    def _sign(self, text: str) -> str:
        digest = hmac.new(self._key, text.encode(), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")

    def authenticate(self, header: str) -> User:
        """The user of an Authorization header. Raises 401 for a token that is not valid."""
        if not header:
            return ANONYMOUS
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer":
            raise unauthorized()
        return self.user(token.strip())

    def user(self, token: str) -> User:
        if hmac.compare_digest(token.encode(), self.admin.encode()):
            return ADMIN
        signed, _, signature = token.rpartition(".")
        if not signed or not hmac.compare_digest(self._sign(signed).encode(), signature.encode()):
            raise unauthorized()
        claims = json.loads(base64.urlsafe_b64decode(signed.split(".")[1] + "=="))
        namespace, name = claims["sub"].split(":")[2:]
        account = self._cluster.find("serviceaccounts", name, namespace)
        expired = parse_time(claims["exp"]) < self._cluster.clock.now()
        if expired or account is None or account["metadata"]["uid"] != claims["uid"]:
            raise unauthorized()
        bound = claims.get("bound")
        if bound and bound.get("kind") == "Pod":
            pod = self._cluster.find("pods", bound["name"], namespace)
            if pod is None or pod["metadata"]["uid"] != bound.get("uid"):
                raise unauthorized()
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
        extra = (("authentication.kubernetes.io/credential-id", f"JTI={claims['jti']}"),)
        return User(claims["sub"], groups, claims["uid"], extra)


def _b64(value: Object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value, separators=(",", ":")).encode()).decode().rstrip("=")


@dataclass(frozen=True)
class Grant:
    """One rule that applies to a user, and how it came to."""

    rule: Object
    origin: str


class Authorizer:
    """RBAC over the roles and bindings in the cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def grants(self, user: User, namespace: str) -> Iterator[Grant]:
        """All rules of the user: of ClusterRoleBindings, and of RoleBindings in `namespace` if one is given."""
        find = self._cluster.storage
        for binding in find.list(f"clusterrolebindings.{_RBAC}"):
            yield from self._of(binding, user, "")
        if namespace:
            for binding in find.list(f"rolebindings.{_RBAC}", namespace):
                yield from self._of(binding, user, namespace)

    def _of(self, binding: Object, user: User, namespace: str) -> Iterator[Grant]:
        subject = next((s for s in binding.get("subjects") or [] if _is(s, user, namespace)), None)
        if subject is None:
            return
        ref = binding["roleRef"]
        if ref["kind"] == "ClusterRole":
            role = self._cluster.storage.get(f"clusterroles.{_RBAC}", "", ref["name"])
        else:
            role = self._cluster.storage.get(f"roles.{_RBAC}", namespace, ref["name"])
        kind = "RoleBinding" if namespace else "ClusterRoleBinding"
        name = binding["metadata"]["name"] + (f"/{namespace}" if namespace else "")
        who = subject["name"]
        if subject["kind"] == "ServiceAccount":
            who = f"{subject['name']}/{subject.get('namespace', namespace)}"
        origin = f'RBAC: allowed by {kind} "{name}" of {ref["kind"]} "{ref["name"]}" to {subject["kind"]} "{who}"'
        for rule in self._rules(role):
            yield Grant(rule, origin)

    def _rules(self, role: Object | None) -> list[Object]:
        return list((role or {}).get("rules") or [])

    def allows(
        self, user: User, verb: str, group: str, resource: str, namespace: str = "", name: str = ""
    ) -> str | None:
        """The origin of the permission, or None. `resource` includes the subresource: `pods/log`."""
        if user.all_powerful:
            return ""
        for grant in self.grants(user, namespace):
            rule = grant.rule
            if (
                _has(rule.get("verbs"), verb)
                and _has(rule.get("apiGroups"), group)
                and _resource(rule.get("resources") or [], resource)
                and (not rule.get("resourceNames") or name in rule["resourceNames"])
            ):
                return grant.origin
        return None

    def allows_path(self, user: User, verb: str, path: str) -> str | None:
        """As `allows`, for paths that are no resources."""
        if user.all_powerful:
            return ""
        if path in PUBLIC_PATHS:
            return "public"
        if "system:authenticated" in user.groups and any(
            path == p or path.startswith(p + "/") for p in DISCOVERY_PATHS
        ):
            return "discovery"
        for grant in self.grants(user, ""):
            urls = grant.rule.get("nonResourceURLs") or []
            if _has(grant.rule.get("verbs"), verb) and any(
                url == path or (url.endswith("*") and path.startswith(url[:-1])) for url in urls
            ):
                return grant.origin
        return None

    def check(self, user: User, route: Route) -> None:
        """Raises 403 unless the user may do this."""
        resource = f"{route.plural}/{route.subresource}" if route.subresource else route.plural
        if self.allows(user, route.verb, route.group, resource, route.namespace, route.name) is not None:
            return
        where = f'in the namespace "{route.namespace}"' if route.namespace else "at the cluster scope"
        target = qualified(route.plural, route.group) + (f' "{route.name}"' if route.name else "")
        message = (
            f'{target} is forbidden: User "{user.name}" cannot {route.verb} resource "{resource}" in API group '
            f'"{route.group}" {where}'
        )
        details = {"name": route.name, "group": route.group, "kind": route.plural}
        raise ApiError(403, "Forbidden", message, {k: v for k, v in details.items() if v})

    def check_path(self, user: User, method: str, path: str) -> None:
        verb = {"GET": "get", "HEAD": "head", "POST": "post", "PUT": "put", "PATCH": "patch", "DELETE": "delete"}.get(
            method, method.lower()
        )
        if self.allows_path(user, verb, path) is None:
            message = f'forbidden: User "{user.name}" cannot {verb} path "{path}"'
            raise ApiError(403, "Forbidden", message, {})


def _is(subject: Object, user: User, namespace: str) -> bool:
    match subject.get("kind"):
        case "User":
            return bool(subject["name"] == user.name)
        case "Group":
            return subject["name"] in user.groups
        case "ServiceAccount":
            where = subject.get("namespace") or namespace
            return bool(user.name == f"system:serviceaccount:{where}:{subject['name']}")
    return False


def _has(values: list[str] | None, wanted: str) -> bool:
    return "*" in (values or []) or wanted in (values or [])


def _resource(resources: list[str], wanted: str) -> bool:
    plural, _, sub = wanted.partition("/")
    return any(r in ("*", wanted) or (sub and r == f"*/{sub}") for r in resources) and bool(plural)
