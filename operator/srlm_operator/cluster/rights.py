"""What the operator may do, as RBAC rules: the chart grants exactly these, and so does the one-machine cluster."""

from __future__ import annotations

from typing import Any

from srlm_operator import names

Rule = dict[str, Any]

#: In every namespace that is served. Nothing about Secrets, and no writing of pods.
SERVING: tuple[Rule, ...] = (
    {"apiGroups": [names.GROUP], "resources": [names.PLURAL], "verbs": ["get", "list", "watch", "patch"]},
    {"apiGroups": [names.GROUP], "resources": [f"{names.PLURAL}/status"], "verbs": ["patch"]},
    {
        "apiGroups": ["batch"],
        "resources": ["jobs"],
        "verbs": ["get", "list", "watch", "create", "patch", "delete"],
    },
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]},
    {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
    {"apiGroups": [""], "resources": ["services"], "verbs": ["create"]},
    {"apiGroups": ["scheduling.k8s.io"], "resources": ["podgroups"], "verbs": ["create"]},
    {"apiGroups": [""], "resources": ["events"], "verbs": ["list", "create"]},
)
#: Besides, when the whole cluster is served: to begin as soon as the definition of runs is there.
CLUSTER: tuple[Rule, ...] = (
    {
        "apiGroups": ["apiextensions.k8s.io"],
        "resources": ["customresourcedefinitions"],
        "verbs": ["list", "watch"],
    },
)


def leading(lease: str) -> tuple[Rule, ...]:
    """In the operator's own namespace, for leader election. RBAC cannot limit `create` to a name."""
    group = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"]}
    return (
        {**group, "verbs": ["create"]},
        {**group, "resourceNames": [lease], "verbs": ["get", "update"]},
    )
