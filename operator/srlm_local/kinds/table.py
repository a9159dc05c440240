"""All built-in kinds in one table, and a cluster that has them."""

from __future__ import annotations

from typing import Any

from srlm_local.kinds.definitions import DefinitionRules
from srlm_local.kinds.jobs import JobRules
from srlm_local.kinds.namespaces import NamespaceRules
from srlm_local.kinds.plain import (
    AccessRules,
    DataRules,
    EventRules,
    LeaseRules,
    ReturnedRules,
    SecretRules,
    ServiceRules,
)
from srlm_local.kinds.pods import PodRules
from srlm_local.store.clock import Clock
from srlm_local.store.cluster import Cluster
from srlm_local.store.resources import ALL_VERBS, ResourceType, Rules
from srlm_local.store.storage import Storage

_RBAC = "rbac.authorization.k8s.io"
_ONE_BY_ONE = tuple(verb for verb in ALL_VERBS if verb != "deletecollection")


def _t(group: str, kind: str, plural: str, rules: Rules | None = None, short: str = "", **more: Any) -> ResourceType:
    return ResourceType(
        group, "v1", kind, plural, kind.lower(), rules or Rules(), short_names=tuple(short.split()), **more
    )


_CLUSTER: dict[str, Any] = {"namespaced": False}
_STATUS: dict[str, Any] = {"status": True}
_MANAGED: dict[str, Any] = {"status": True, "generation": True}
_LISTED: dict[str, Any] = {"categories": ("all",)}

BUILTIN: tuple[ResourceType, ...] = (
    _t("", "ConfigMap", "configmaps", DataRules(), "cm"),
    _t("", "Event", "events", EventRules(), "ev"),
    _t("", "Namespace", "namespaces", NamespaceRules(), "ns", verbs=_ONE_BY_ONE, **_CLUSTER, **_STATUS),
    _t("", "Node", "nodes", ReturnedRules(keeps_status=True), "no", **_CLUSTER, **_STATUS),
    _t("", "PersistentVolumeClaim", "persistentvolumeclaims", ReturnedRules(keeps_status=True), "pvc", **_STATUS),
    _t("", "Pod", "pods", PodRules(), "po", **_MANAGED, **_LISTED),
    _t("", "ResourceQuota", "resourcequotas", ReturnedRules(), "quota", **_STATUS),
    _t("", "Secret", "secrets", SecretRules()),
    _t("", "ServiceAccount", "serviceaccounts", ReturnedRules(), "sa"),
    _t("", "Service", "services", ServiceRules(), "svc", **_STATUS, **_LISTED),
    _t(
        "apiextensions.k8s.io", "CustomResourceDefinition", "customresourcedefinitions", DefinitionRules(), "crd crds",
        unconditional=False, **_CLUSTER, **_MANAGED,
    ),
    _t("apps", "Deployment", "deployments", None, "deploy", **_MANAGED, **_LISTED),
    _t("batch", "Job", "jobs", JobRules(), **_MANAGED, **_LISTED),
    _t("coordination.k8s.io", "Lease", "leases", LeaseRules(), unconditional=False, create_on_update=True),
    _t("networking.k8s.io", "NetworkPolicy", "networkpolicies", None, "netpol", generation=True),
    _t("policy", "PodDisruptionBudget", "poddisruptionbudgets", None, "pdb", **_MANAGED),
    _t(_RBAC, "ClusterRoleBinding", "clusterrolebindings", AccessRules(), **_CLUSTER),
    _t(_RBAC, "ClusterRole", "clusterroles", AccessRules(), **_CLUSTER),
    _t(_RBAC, "RoleBinding", "rolebindings", AccessRules()),
    _t(_RBAC, "Role", "roles", AccessRules()),
    _t("scheduling.k8s.io", "PriorityClass", "priorityclasses", None, "pc", generation=True, **_CLUSTER),
)  # fmt: skip


def new_cluster(*, clock: Clock | None = None, storage: Storage | None = None, seed: int | None = None) -> Cluster:
    """A cluster with all kinds that are built in, and without any object."""
    return Cluster(storage or Storage(), BUILTIN, clock, seed)
