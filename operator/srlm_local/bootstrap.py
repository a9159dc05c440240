"""What an empty cluster begins with: namespaces and the roles that discovery needs."""

from __future__ import annotations

from typing import Any

from srlm_local.cluster import Cluster
from srlm_local.namespaces import NamespaceController

Object = dict[str, Any]
_RBAC = "rbac.authorization.k8s.io"
NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
PUBLIC = ["/healthz", "/livez", "/readyz", "/version", "/version/"]
DISCOVERY = [
    "/api",
    "/api/*",
    "/apis",
    "/apis/*",
    "/healthz",
    "/livez",
    "/openapi",
    "/openapi/*",
    "/readyz",
    *PUBLIC[3:],
]
_ALL = {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}
_AUTH_GROUPS = ["system:authenticated"]

_ROLES: dict[str, tuple[list[Object], list[str]]] = {
    "cluster-admin": ([_ALL, {"nonResourceURLs": ["*"], "verbs": ["*"]}], ["system:masters"]),
    "system:basic-user": (
        [
            {
                "verbs": ["create"],
                "apiGroups": ["authorization.k8s.io"],
                "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
            },
            {"verbs": ["create"], "apiGroups": ["authentication.k8s.io"], "resources": ["selfsubjectreviews"]},
        ],
        _AUTH_GROUPS,
    ),
    "system:discovery": ([{"verbs": ["get"], "nonResourceURLs": DISCOVERY}], _AUTH_GROUPS),
    "system:public-info-viewer": (
        [{"verbs": ["get"], "nonResourceURLs": PUBLIC}],
        [*_AUTH_GROUPS, "system:unauthenticated"],
    ),
    "system:service-account-issuer-discovery": (
        [
            {
                "verbs": ["get"],
                "nonResourceURLs": [
                    "/.well-known/openid-configuration",
                    "/.well-known/openid-configuration/",
                    "/openid/v1/jwks",
                    "/openid/v1/jwks/",
                ],
            }
        ],
        ["system:serviceaccounts"],
    ),
}
_WRITE = ["create", "delete", "deletecollection", "patch", "update"]
_NAMESPACED = {
    "": [
        "configmaps",
        "events",
        "persistentvolumeclaims",
        "pods",
        "pods/log",
        "pods/status",
        "services",
        "serviceaccounts",
        "secrets",
        "resourcequotas",
    ],
    "apps": ["deployments"],
    "batch": ["jobs", "jobs/status", "cronjobs"],
    "networking.k8s.io": ["networkpolicies"],
    "policy": ["poddisruptionbudgets"],
    "coordination.k8s.io": ["leases"],
}


def _aggregate(verbs: list[str], without: tuple[str, ...] = ()) -> list[Object]:
    return [
        {"apiGroups": [group], "resources": [r for r in resources if r not in without], "verbs": verbs}
        for group, resources in _NAMESPACED.items()
    ]


def prepare(cluster: Cluster, authority: str = "") -> None:
    """Creates what is missing; safe to repeat after a restart."""
    for name in NAMESPACES:
        if cluster.find("namespaces", name) is None:
            cluster.create("namespaces", {"metadata": {"name": name}})
    read = ["get", "list", "watch"]
    user_facing = {
        "view": _aggregate(read, ("secrets",)),
        "edit": _aggregate([*read, *_WRITE]),
        "admin": [
            *_aggregate([*read, *_WRITE]),
            {"apiGroups": [_RBAC], "resources": ["roles", "rolebindings"], "verbs": [*read, *_WRITE]},
        ],
    }
    for name, (rules, groups) in _ROLES.items():
        _role(cluster, name, rules)
        if cluster.find(f"clusterrolebindings.{_RBAC}", name) is None:
            subjects = [{"apiGroup": _RBAC, "kind": "Group", "name": group} for group in groups]
            reference = {"apiGroup": _RBAC, "kind": "ClusterRole", "name": name}
            cluster.create(
                f"clusterrolebindings.{_RBAC}", {"metadata": {"name": name}, "roleRef": reference, "subjects": subjects}
            )
    for name, rules in user_facing.items():
        _role(cluster, name, rules)
    NamespaceController(cluster, authority).sync()


def _role(cluster: Cluster, name: str, rules: list[Object]) -> None:
    if cluster.find(f"clusterroles.{_RBAC}", name) is None:
        cluster.create(f"clusterroles.{_RBAC}", {"metadata": {"name": name}, "rules": rules})
