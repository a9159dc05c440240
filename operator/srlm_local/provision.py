"""What `srlm local up` puts into a new cluster: node, CRD, the operator's account and rights, S3 access."""

from __future__ import annotations

import base64
import os
import platform
from collections.abc import Mapping
from typing import Any

from srlm_local.podrunner.scheduler import machine_cores
from srlm_local.podrunner.status import NODE
from srlm_local.store.cluster import Cluster
from srlm_local.store.errors import ApiError
from srlm_operator.cluster import rights
from srlm_operator.crd.definition import custom_resource_definition

Object = dict[str, Any]
SYSTEM_NAMESPACE = "self-rewarding-system"
ACCOUNT = "self-rewarding-operator"
SECRET = "s3-credentials"  # noqa: S105  (the name of an object)
_RBAC = "rbac.authorization.k8s.io"


def install(cluster: Cluster, credentials: Mapping[str, str]) -> None:
    """Creates or updates everything. credentials: what the Secret of the object store holds."""
    _ensure(cluster, "nodes", _node())
    _ensure(cluster, "customresourcedefinitions.apiextensions.k8s.io", custom_resource_definition())
    _ensure(cluster, "namespaces", {"metadata": {"name": SYSTEM_NAMESPACE}})
    _ensure(cluster, "serviceaccounts", {"metadata": {"name": ACCOUNT, "namespace": SYSTEM_NAMESPACE}})
    _grant(cluster)
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in credentials.items()}
    _ensure(cluster, "secrets", {"metadata": {"name": SECRET, "namespace": "default"}, "data": encoded})


def _grant(cluster: Cluster) -> None:
    """The account's rights: those that the chart gives an operator of the whole cluster."""
    subjects = [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": SYSTEM_NAMESPACE}]
    for kind, namespace, rules in (
        ("ClusterRole", "", [*rights.SERVING, *rights.CLUSTER]),
        ("Role", SYSTEM_NAMESPACE, [*rights.leading(ACCOUNT)]),
    ):
        plural = f"{kind.lower()}s.{_RBAC}"
        metadata = {"name": ACCOUNT} | ({"namespace": namespace} if namespace else {})
        _ensure(cluster, plural, {"metadata": metadata, "rules": rules})
        reference = {"apiGroup": _RBAC, "kind": kind, "name": ACCOUNT}
        binding = {"metadata": metadata, "roleRef": reference, "subjects": subjects}
        _ensure(cluster, plural.replace("roles", "rolebindings"), binding)


def _ensure(cluster: Cluster, resource: str, wanted: Object) -> None:
    """Creates the object, or brings everything but metadata and status to what is wanted."""
    metadata = wanted["metadata"]
    namespace = metadata.get("namespace", "")
    old = cluster.find(resource, metadata["name"], namespace)
    if old is None:
        cluster.create(resource, wanted, namespace)
        return
    changes = {key: value for key, value in wanted.items() if key not in ("metadata", "status", "apiVersion", "kind")}
    if not changes:
        return
    try:
        cluster.update(resource, {**old, **changes})
    except ApiError as error:
        raise RuntimeError(f"{resource} {metadata['name']} cannot be brought up to date: {error.message}") from error


def _node() -> Object:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    capacity = {"cpu": str(machine_cores()), "memory": f"{memory // 1024}Ki", "pods": "110"}
    return {
        "metadata": {
            "name": NODE,
            "labels": {
                "kubernetes.io/hostname": NODE,
                "kubernetes.io/os": platform.system().lower(),
                "kubernetes.io/arch": {"x86_64": "amd64", "aarch64": "arm64"}.get(
                    platform.machine(), platform.machine()
                ),
            },
        },
        "status": {
            "capacity": capacity,
            "allocatable": capacity,
            "conditions": [
                {
                    "type": "Ready",
                    "status": "True",
                    "reason": "KubeletReady",
                    "message": "the pod runner is ready",
                }
            ],
            "addresses": [
                {"type": "InternalIP", "address": "127.0.0.1"},
                {"type": "Hostname", "address": NODE},
            ],
        },
    }
