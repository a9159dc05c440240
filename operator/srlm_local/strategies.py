"""Which strategy goes with which resource."""

from __future__ import annotations

from srlm_local.custom import CRDS, CrdStrategy, CustomStrategy
from srlm_local.event_kind import EventStrategy
from srlm_local.jobs import JobStrategy
from srlm_local.namespaces import NamespaceStrategy
from srlm_local.pods import PodStrategy
from srlm_local.resources import ResourceType
from srlm_local.small_kinds import (
    BindingStrategy,
    ConfigMapStrategy,
    LeaseStrategy,
    PriorityClassStrategy,
    QuotaStrategy,
    ReturnedWhenDeleted,
    RoleStrategy,
    SecretStrategy,
    ServiceStrategy,
)
from srlm_local.strategy import Strategy

_PLAIN = Strategy()
BY_RESOURCE: dict[str, Strategy] = {
    CRDS: CrdStrategy(),
    "clusterrolebindings.rbac.authorization.k8s.io": BindingStrategy(),
    "clusterroles.rbac.authorization.k8s.io": RoleStrategy(),
    "configmaps": ConfigMapStrategy(),
    "events": EventStrategy(modern=False),
    "events.events.k8s.io": EventStrategy(modern=True),
    "jobs.batch": JobStrategy(),
    "leases.coordination.k8s.io": LeaseStrategy(),
    "namespaces": NamespaceStrategy(),
    "persistentvolumeclaims": ReturnedWhenDeleted(),
    "pods": PodStrategy(),
    "priorityclasses.scheduling.k8s.io": PriorityClassStrategy(),
    "resourcequotas": QuotaStrategy(),
    "rolebindings.rbac.authorization.k8s.io": BindingStrategy(),
    "roles.rbac.authorization.k8s.io": RoleStrategy(),
    "secrets": SecretStrategy(),
    "serviceaccounts": ReturnedWhenDeleted(),
    "services": ServiceStrategy(),
}
_custom: dict[int, tuple[ResourceType, CustomStrategy]] = {}


def strategy_for(rt: ResourceType) -> Strategy:
    """The hooks of a resource; those without any of their own are plain storage."""
    if not rt.custom:
        return BY_RESOURCE.get(rt.name, _PLAIN)
    known = _custom.get(id(rt))
    if known is None or known[0] is not rt:
        known = _custom[id(rt)] = (rt, CustomStrategy(rt))
    return known[1]
