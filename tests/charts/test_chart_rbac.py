"""What operator and users may do, exactly, in both modes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from charts import chart_kit as kit
from srlm_operator import names
from srlm_operator.cluster import rights as operator_rights

Right = tuple[str, str, str]


def rights(rules: Iterable[dict[str, Any]]) -> set[Right]:
    """Every combination that rules grant, as (API group, resource, verb)."""
    return {
        (group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


SERVING, CLUSTER = rights(operator_rights.SERVING), rights(operator_rights.CLUSTER)
LEADING = rights(operator_rights.leading("any"))
MODES = [{}, {"watchNamespaces": ["team-a", "team-b"]}, *(kit.values_of(name) for name in kit.VALUES_FILES)]


def roles(objects: list[dict[str, Any]], kind: str) -> dict[tuple[str, str], dict[str, Any]]:
    return {(obj["metadata"].get("namespace", ""), obj["metadata"]["name"]): obj for obj in kit.of_kind(objects, kind)}


def test_cluster_wide() -> None:
    objects = kit.manifests()
    cluster = roles(objects, "ClusterRole")
    operator = f"{kit.NAMESPACE}:release-self-rewarding-operator"
    assert {name for _, name in cluster} == {operator, f"{operator}:view", f"{operator}:edit"}
    assert rights(cluster["", operator]["rules"]) == SERVING | CLUSTER
    (leader,) = roles(objects, "Role").items()
    assert leader[0] == (kit.NAMESPACE, "release-self-rewarding-operator-leader")
    assert rights(leader[1]["rules"]) == LEADING


def test_namespaced_mode_has_no_cluster_role() -> None:
    objects = kit.manifests({"watchNamespaces": ["team-a", "team-b"]})
    assert kit.of_kind(objects, "ClusterRole") + kit.of_kind(objects, "ClusterRoleBinding") == []
    found = roles(objects, "Role")
    assert {where for where, _ in found} == {"team-a", "team-b", kit.NAMESPACE}
    for where in ("team-a", "team-b"):
        assert rights(found[where, "release-self-rewarding-operator"]["rules"]) == SERVING
    assert rights(found[kit.NAMESPACE, "release-self-rewarding-operator-leader"]["rules"]) == LEADING


def test_rules_are_those_of_the_one_machine_cluster() -> None:
    lease = "release-self-rewarding-operator"
    cluster, own = roles(kit.manifests(), "ClusterRole"), roles(kit.manifests(), "Role")
    serving = cluster["", f"{kit.NAMESPACE}:{lease}"]["rules"]
    assert serving == [*operator_rights.SERVING, *operator_rights.CLUSTER]
    assert own[kit.NAMESPACE, f"{lease}-leader"]["rules"] == [*operator_rights.leading(lease)]


def test_only_the_own_lease_is_written() -> None:
    objects = kit.manifests()
    (leader,) = kit.of_kind(objects, "Role")
    limited = [rule for rule in leader["rules"] if "resourceNames" in rule]
    # RBAC cannot limit `create` to a name.
    assert {(tuple(rule["resourceNames"]), tuple(rule["verbs"])) for rule in limited} == {
        (("release-self-rewarding-operator",), ("get", "update"))
    }
    assert kit.environment(objects)["SRLM_LEASE_NAME"] == "release-self-rewarding-operator"


def test_without_election_no_lease() -> None:
    objects = kit.manifests({"leaderElection": {"enabled": False}})
    assert kit.of_kind(objects, "Role") == []
    assert not {name for name in kit.environment(objects) if "LEASE" in name or "LEADER" in name}


@pytest.mark.parametrize("values", MODES)
def test_no_secrets_no_wildcards_no_way_up(values: dict[str, Any]) -> None:
    objects = kit.manifests(values)
    for role in kit.of_kind(objects, "Role") + kit.of_kind(objects, "ClusterRole"):
        for group, resource, verb in rights(role["rules"]):
            assert "*" not in (group, resource, verb)
            assert resource.split("/")[0] not in ("secrets", "serviceaccounts", "roles", "clusterroles", "configmaps")
            assert resource not in ("pods/exec", "pods/attach", "pods/ephemeralcontainers")
            assert (resource, verb) != ("pods", "create")
            assert verb not in ("escalate", "bind", "impersonate")


@pytest.mark.parametrize("values", MODES)
def test_bindings_join_the_account_of_the_pod_and_a_role_that_exists(values: dict[str, Any]) -> None:
    objects = kit.manifests(values)
    account = {
        "kind": "ServiceAccount",
        "name": kit.pod_of(objects)["serviceAccountName"],
        "namespace": kit.NAMESPACE,
    }
    objects = [o for o in objects if not o["metadata"]["labels"]["app.kubernetes.io/name"].endswith("-ui")]
    bindings = kit.of_kind(objects, "RoleBinding") + kit.of_kind(objects, "ClusterRoleBinding")
    for binding in bindings:
        assert binding["subjects"] == [account]
        where = binding["metadata"].get("namespace", "")
        assert (where, binding["roleRef"]["name"]) in roles(objects, binding["roleRef"]["kind"])
    granted = {obj["metadata"]["name"] for obj in kit.of_kind(objects, "Role")}
    assert granted <= {binding["roleRef"]["name"] for binding in bindings}


def test_users_get_runs_with_the_roles_they_have() -> None:
    cluster = kit.of_kind(kit.manifests(), "ClusterRole")
    granted: dict[str, set[Right]] = {}
    for level in ("view", "edit", "admin"):
        label = f"rbac.authorization.k8s.io/aggregate-to-{level}"
        chosen = [role for role in cluster if role["metadata"]["labels"].get(label) == "true"]
        granted[level] = set().union(*(rights(role["rules"]) for role in chosen))
    shown = (names.PLURAL, f"{names.PLURAL}/status")
    view = {(names.GROUP, name, verb) for name in shown for verb in ("get", "list", "watch")}
    edit = {(names.GROUP, names.PLURAL, v) for v in ("create", "update", "patch", "delete", "deletecollection")}
    assert granted == {"view": view, "edit": view | edit, "admin": view | edit}
    assert len(kit.of_kind(kit.manifests({"rbac": {"aggregateToDefaultRoles": False}}), "ClusterRole")) == 1


def test_nothing_without_rbac() -> None:
    kinds = {obj["kind"] for obj in kit.manifests({"rbac": {"create": False, "aggregateToDefaultRoles": False}})}
    assert not {kind for kind in kinds if "Role" in kind}
