"""The kinds of objects that the API server knows: built in ones here, custom ones added as CRDs come.

A resource is named as kubectl names it: plural, then the group if there is one (`pods`, `jobs.batch`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True)
class ResourceType:
    """One served kind in one version.

    generation: whether metadata.generation is kept; unconditional: whether an update may come without a
    resourceVersion; create_on_update: whether PUT to a name that does not exist creates; stored_as: the
    resource under which objects live if that is another one (events.k8s.io).
    """

    group: str
    version: str
    kind: str
    plural: str
    singular: str
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ALL_VERBS
    status: bool = False
    generation: bool = False
    unconditional: bool = True
    create_on_update: bool = False
    stored_as: str = ""
    crd: dict[str, Any] | None = field(default=None, compare=False, repr=False)
    schema: dict[str, Any] | None = field(default=None, compare=False, repr=False)
    list_kind: str = ""

    @property
    def name(self) -> str:
        """`jobs.batch`; the name in storage and in RBAC-like messages."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def storage(self) -> str:
        return self.stored_as or self.name

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def custom(self) -> bool:
        return self.crd is not None


def _t(group: str, version: str, kind: str, plural: str, **more: Any) -> ResourceType:
    return ResourceType(group, version, kind, plural, kind.lower(), **more)


_RBAC = "rbac.authorization.k8s.io"

BUILTIN: tuple[ResourceType, ...] = (
    _t("", "v1", "ConfigMap", "configmaps", short_names=("cm",)),
    _t("", "v1", "Event", "events", short_names=("ev",)),
    _t(
        "",
        "v1",
        "Namespace",
        "namespaces",
        namespaced=False,
        short_names=("ns",),
        status=True,
        verbs=("create", "delete", "get", "list", "patch", "update", "watch"),
    ),
    _t("", "v1", "Node", "nodes", namespaced=False, short_names=("no",), status=True),
    _t("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", short_names=("pvc",), status=True),
    _t("", "v1", "Pod", "pods", short_names=("po",), categories=("all",), status=True, generation=True),
    _t("", "v1", "ResourceQuota", "resourcequotas", short_names=("quota",), status=True),
    _t("", "v1", "Secret", "secrets"),
    _t("", "v1", "ServiceAccount", "serviceaccounts", short_names=("sa",)),
    _t("", "v1", "Service", "services", short_names=("svc",), categories=("all",), status=True),
    _t(
        "apiextensions.k8s.io",
        "v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
        namespaced=False,
        short_names=("crd", "crds"),
        categories=("api-extensions",),
        status=True,
        generation=True,
        unconditional=False,
    ),
    _t(
        "apps",
        "v1",
        "Deployment",
        "deployments",
        short_names=("deploy",),
        categories=("all",),
        status=True,
        generation=True,
    ),
    _t("batch", "v1", "CronJob", "cronjobs", short_names=("cj",), categories=("all",), status=True, generation=True),
    _t("batch", "v1", "Job", "jobs", categories=("all",), status=True, generation=True),
    _t("coordination.k8s.io", "v1", "Lease", "leases", unconditional=False, create_on_update=True),
    _t("events.k8s.io", "v1", "Event", "events", short_names=("ev",), stored_as="events"),
    _t("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", short_names=("netpol",), generation=True),
    _t(
        "policy",
        "v1",
        "PodDisruptionBudget",
        "poddisruptionbudgets",
        short_names=("pdb",),
        status=True,
        generation=True,
    ),
    _t(_RBAC, "v1", "ClusterRoleBinding", "clusterrolebindings", namespaced=False),
    _t(_RBAC, "v1", "ClusterRole", "clusterroles", namespaced=False),
    _t(_RBAC, "v1", "RoleBinding", "rolebindings"),
    _t(_RBAC, "v1", "Role", "roles"),
    _t(
        "scheduling.k8s.io",
        "v1",
        "PriorityClass",
        "priorityclasses",
        namespaced=False,
        short_names=("pc",),
        generation=True,
    ),
)


class Registry:
    """Which types are served right now."""

    def __init__(self) -> None:
        self._types: dict[tuple[str, str, str], ResourceType] = {(t.group, t.version, t.plural): t for t in BUILTIN}

    def find(self, group: str, version: str, plural: str) -> ResourceType | None:
        return self._types.get((group, version, plural))

    def all(self) -> list[ResourceType]:
        return list(self._types.values())

    def named(self, name: str) -> ResourceType:
        """The type of a resource such as `jobs.batch`. Raises KeyError if it is not served."""
        plural, _, group = name.partition(".")
        for found in self._types.values():
            if found.plural == plural and found.group == group:
                return found
        raise KeyError(f"no resource {name!r} is served here")

    def of_kind(self, api_version: str, kind: str) -> ResourceType | None:
        """The type of an owner reference or manifest."""
        for found in self._types.values():
            if found.api_version == api_version and found.kind == kind:
                return found
        return None

    def group(self, group: str) -> list[ResourceType]:
        return [found for found in self._types.values() if found.group == group]

    def serve(self, resource_type: ResourceType) -> None:
        self._types[(resource_type.group, resource_type.version, resource_type.plural)] = resource_type

    def withdraw(self, group: str, plural: str) -> None:
        for key in [k for k in self._types if k[0] == group and k[2] == plural]:
            del self._types[key]
