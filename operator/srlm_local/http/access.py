"""Who a request comes from, and what RBAC lets them do."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from srlm_local.http.routing import Route
from srlm_local.store.clock import parse_time, to_seconds
from srlm_local.store.cluster import Cluster
from srlm_local.store.errors import ApiError, qualified
from srlm_local.store.request import ADMIN, User

Object = dict[str, Any]
ANONYMOUS = User("system:anonymous", ("system:unauthenticated",))
PUBLIC_PATHS = ("/healthz", "/livez", "/readyz", "/version")
DISCOVERY_PATHS = ("/api", "/apis", "/openapi")
_RBAC = "rbac.authorization.k8s.io"


class Tokens:
    """Issues and checks bearer tokens: one for the administrator, signed ones for ServiceAccounts."""

    def __init__(self, cluster: Cluster, admin_token: str | None = None) -> None:
        self._cluster = cluster
        self._key = secrets.token_bytes(32)
        self.admin = admin_token or secrets.token_urlsafe(32)

    def issue(self, account: Object, seconds: int, bound: Object | None = None) -> tuple[str, str]:
        """(token, time of expiry) for a ServiceAccount object."""
        meta = account["metadata"]
        expiry = to_seconds(self._cluster.clock.now() + timedelta(seconds=seconds))
        claims = {
            "sub": f"system:serviceaccount:{meta['namespace']}:{meta['name']}",
            "uid": meta["uid"],
            "exp": expiry,
            "jti": str(uuid.uuid4()),
            "bound": bound,
        }
        signed = f"{_b64({'alg': 'HS256', 'typ': 'JWT'})}.{_b64(claims)}"
        return f"{signed}.{self._sign(signed)}", expiry

    def _sign(self, text: str) -> str:
        digest = hmac.new(self._key, text.encode(), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")

    def authenticate(self, header: str) -> User:
        """The user of an Authorization header. Raises 401 for a token that is not valid."""
        if not header:
            return ANONYMOUS
        scheme, _, token = header.partition(" ")
        user = self._user(token.strip()) if scheme.lower() == "bearer" else None
        if user is None:
            raise ApiError(401, "Unauthorized", "Unauthorized")
        return user

    def _user(self, token: str) -> User | None:
        if hmac.compare_digest(token.encode(), self.admin.encode()):
            return ADMIN
        signed, _, signature = token.rpartition(".")
        if not signed or not hmac.compare_digest(self._sign(signed).encode(), signature.encode()):
            return None
        claims = json.loads(base64.urlsafe_b64decode(signed.split(".")[1] + "=="))
        namespace, name = claims["sub"].split(":")[2:]
        if parse_time(claims["exp"]) < self._cluster.clock.now():
            return None
        holders = [("serviceaccounts", name, claims["uid"])]
        if bound := claims.get("bound"):
            holders.append(("pods", bound["name"], bound["uid"]))
        for resource, holder, uid in holders:
            found = self._cluster.find(resource, holder, namespace)
            if found is None or found["metadata"]["uid"] != uid:
                return None
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
        return User(claims["sub"], groups)


def _b64(value: Object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value, separators=(",", ":")).encode()).decode().rstrip("=")


class Authorizer:
    """RBAC over the roles and bindings in the cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self._storage = cluster.storage

    def _rules(self, user: User, namespace: str) -> Iterator[Object]:
        """All rules of the user: of ClusterRoleBindings, and of RoleBindings in `namespace` if one is given."""
        bindings = [(b, "") for b in self._storage.list(f"clusterrolebindings.{_RBAC}")]
        if namespace:
            bindings += [(b, namespace) for b in self._storage.list(f"rolebindings.{_RBAC}", namespace)]
        for binding, where in bindings:
            if any(_is(subject, user, where) for subject in binding.get("subjects") or []):
                kind, name = binding["roleRef"]["kind"], binding["roleRef"]["name"]
                place = "" if kind == "ClusterRole" else where
                role = self._storage.get(f"{kind.lower()}s.{_RBAC}", place, name)
                yield from (role or {}).get("rules") or []

    def allows(self, user: User, verb: str, group: str, resource: str, namespace: str = "", name: str = "") -> bool:
        """Whether the user may do this. `resource` includes the subresource: `pods/log`."""
        return user.all_powerful or any(
            _has(rule.get("verbs"), verb)
            and _has(rule.get("apiGroups"), group)
            and _has(rule.get("resources"), resource)
            and (not rule.get("resourceNames") or name in rule["resourceNames"])
            for rule in self._rules(user, namespace)
        )

    def check(self, user: User, route: Route) -> None:
        """Raises 403 unless the user may do this."""
        resource = f"{route.plural}/{route.subresource}" if route.subresource else route.plural
        if self.allows(user, route.verb, route.group, resource, route.namespace, route.name):
            return
        where = f'in the namespace "{route.namespace}"' if route.namespace else "at the cluster scope"
        target = qualified(route.plural, route.group) + (f' "{route.name}"' if route.name else "")
        message = (
            f'{target} is forbidden: User "{user.name}" cannot {route.verb} resource "{resource}" in API group '
            f'"{route.group}" {where}'
        )
        details = {"name": route.name, "group": route.group, "kind": route.plural}
        raise ApiError(403, "Forbidden", message, {k: v for k, v in details.items() if v})

    def check_path(self, user: User, path: str) -> None:
        """Raises 403 unless the user may read this path, which is no resource: discovery is for all who are known."""
        known = "system:authenticated" in user.groups and any(f"{path}/".startswith(f"{p}/") for p in DISCOVERY_PATHS)
        if not user.all_powerful and not known and path.rstrip("/") not in PUBLIC_PATHS:
            raise ApiError(403, "Forbidden", f'forbidden: User "{user.name}" cannot get path "{path}"', {})


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
