"""Who a request comes from, and what RBAC lets them do."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from srlm_local.http.routing import Route
from srlm_local.store.clock import to_seconds
from srlm_local.store.cluster import Cluster
from srlm_local.store.errors import ApiError, qualified
from srlm_local.store.request import ADMIN, User

Object = dict[str, Any]
ANONYMOUS = User("system:anonymous", ("system:unauthenticated",))
PUBLIC_PATHS = ("/healthz", "/livez", "/readyz", "/version")
DISCOVERY_PATHS = ("/api", "/apis", "/openapi")
_RBAC = "rbac.authorization.k8s.io"


class _Issued(NamedTuple):
    """The ServiceAccount that a token stands for."""

    namespace: str
    name: str
    uid: str
    expiry: datetime


class Tokens:
    """Issues and checks bearer tokens: one for the administrator, others for ServiceAccounts until a restart."""

    def __init__(self, cluster: Cluster, admin_token: str | None = None) -> None:
        self._cluster = cluster
        self._issued: dict[str, _Issued] = {}
        self.admin = admin_token or secrets.token_urlsafe(32)

    def issue(self, account: Object, seconds: int) -> tuple[str, str]:
        """(token, time of expiry) for a ServiceAccount object."""
        meta, token = account["metadata"], secrets.token_urlsafe(32)
        expiry = self._cluster.clock.now() + timedelta(seconds=seconds)
        self._issued[token] = _Issued(meta["namespace"], meta["name"], meta["uid"], expiry)
        return token, to_seconds(expiry)

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
        issued = self._issued.get(token)
        if issued is None or issued.expiry < self._cluster.clock.now():
            return None
        account = self._cluster.find("serviceaccounts", issued.name, issued.namespace)
        if account is None or account["metadata"]["uid"] != issued.uid:
            return None
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{issued.namespace}", "system:authenticated")
        return User(f"system:serviceaccount:{issued.namespace}:{issued.name}", groups)


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
