"""/version, /api and /apis: which resources there are, in the legacy and the aggregated form."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from srlm_local.cluster import Cluster
from srlm_local.resources import ResourceType

Object = dict[str, Any]
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
VERSION: Object = {
    "major": "1",
    "minor": "36",
    "emulationMajor": "1",
    "emulationMinor": "36",
    "minCompatibilityMajor": "1",
    "minCompatibilityMinor": "35",
    "gitVersion": "v1.36.2",
    "gitCommit": "$Format:%H$",
    "gitTreeState": "",
    "buildDate": "1970-01-01T00:00:00Z",
    "goVersion": "go1.26.10",
    "compiler": "gc",
    "platform": "linux/amd64",
}
# The real server's order of preference; groups of custom resources come last.
GROUP_ORDER = (
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "batch",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "apps",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
)
# Hashes of (group, version, kind) with the storage versions of the real server; they only tell clients
# whether objects need rewriting, so those that are not known here are made up the same way.
_STORAGE_HASHES = {
    "configmaps": "qFsyl6wFWjQ=",
    "events": "r2yiGXH7wu8=",
    "namespaces": "Q3oi5N2YM8M=",
    "nodes": "XwShjMxG9Fs=",
    "pods": "xPOwRZ+Yhw8=",
    "secrets": "S6u1pOWzb84=",
    "serviceaccounts": "pbx9ZvyFpBE=",
    "services": "0/CO1lhkEBI=",
    "cronjobs.batch": "sd5LIXh4Fjs=",
    "jobs.batch": "mudhfqk/qZY=",
    "leases.coordination.k8s.io": "gqkMMb/YqFM=",
    "customresourcedefinitions.apiextensions.k8s.io": "jfWCUB31mvA=",
    "events.events.k8s.io": "r2yiGXH7wu8=",
}
_CUSTOM_VERBS = ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"]
_RW = ["get", "patch", "update"]
_PROXY = ["create", "delete", "get", "patch", "update"]

# (subresource, group, version, kind of the answer, verbs), beside status.
SUBRESOURCES: dict[str, tuple[tuple[str, str, str, str, list[str]], ...]] = {
    "pods": (
        ("binding", "", "", "Binding", ["create"]),
        ("eviction", "policy", "v1", "Eviction", ["create"]),
        ("log", "", "", "Pod", ["get"]),
    ),
    "namespaces": (("finalize", "", "", "Namespace", ["update"]),),
    "serviceaccounts": (("token", "authentication.k8s.io", "v1", "TokenRequest", ["create"]),),
}
REVIEWS: dict[tuple[str, str], tuple[tuple[str, str, bool], ...]] = {
    ("authentication.k8s.io", "v1"): (
        ("selfsubjectreviews", "SelfSubjectReview", False),
        ("tokenreviews", "TokenReview", False),
    ),
    ("authorization.k8s.io", "v1"): (
        ("localsubjectaccessreviews", "LocalSubjectAccessReview", True),
        ("selfsubjectaccessreviews", "SelfSubjectAccessReview", False),
        ("selfsubjectrulesreviews", "SelfSubjectRulesReview", False),
        ("subjectaccessreviews", "SubjectAccessReview", False),
    ),
}


def groups(cluster: Cluster) -> list[str]:
    """All groups but the core one, in order of preference."""
    found = {rt.group for rt in cluster.registry.all() if rt.group} | {group for group, _ in REVIEWS}
    known = [group for group in GROUP_ORDER if group in found]
    return known + sorted(found - set(known))


def versions(cluster: Cluster, group: str) -> list[str]:
    found = {rt.version for rt in cluster.registry.group(group)} | {v for g, v in REVIEWS if g == group}
    return sorted(found, key=_version_rank)


def _version_rank(version: str) -> tuple[int, str]:
    """v1 before v1beta1 before v1alpha1."""
    return (2 if "alpha" in version else 1 if "beta" in version else 0), version


def api_versions(server: str) -> Object:
    cidr = {"clientCIDR": "0.0.0.0/0", "serverAddress": server}
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [cidr]}


def api_group(cluster: Cluster, group: str, with_kind: bool = True) -> Object | None:
    found = versions(cluster, group)
    if not found or not group:
        return None
    listed = [{"groupVersion": f"{group}/{version}", "version": version} for version in found]
    head = {"kind": "APIGroup", "apiVersion": "v1"} if with_kind else {}
    return {**head, "name": group, "versions": listed, "preferredVersion": listed[0]}


def api_groups(cluster: Cluster) -> Object:
    found = [api_group(cluster, group, with_kind=False) for group in groups(cluster)]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": found}


def storage_hash(rt: ResourceType) -> str:
    if rt.name in _STORAGE_HASHES:
        return _STORAGE_HASHES[rt.name]
    digest = hashlib.sha256(f"{rt.group}/{rt.version}/{rt.kind}".encode()).digest()[:8]
    return base64.b64encode(digest).decode()


def resource_list(cluster: Cluster, group: str, version: str) -> Object | None:
    """The legacy APIResourceList of a group and version."""
    types = [rt for rt in cluster.registry.group(group) if rt.version == version]
    reviews = REVIEWS.get((group, version), ())
    if not types and not reviews:
        return None
    found: list[Object] = []
    for rt in sorted(types, key=lambda t: t.plural):
        entry: Object = {
            "name": rt.plural,
            "singularName": rt.singular,
            "namespaced": rt.namespaced,
            "kind": rt.kind,
            "verbs": list(_CUSTOM_VERBS if rt.custom else rt.verbs),
        }
        if rt.short_names:
            entry["shortNames"] = list(rt.short_names)
        if rt.categories:
            entry["categories"] = list(rt.categories)
        found.append({**entry, "storageVersionHash": storage_hash(rt)})
        subresources = [*SUBRESOURCES.get(rt.name, ())]
        if rt.status:
            subresources.append(("status", "", "", rt.kind, _RW))
        for name, sub_group, sub_version, kind, verbs in sorted(subresources):
            entry = {"name": f"{rt.plural}/{name}", "singularName": "", "namespaced": rt.namespaced}
            if sub_group:
                entry |= {"group": sub_group, "version": sub_version}
            found.append({**entry, "kind": kind, "verbs": verbs})
    for plural, kind, namespaced in reviews:
        found.append(
            {"name": plural, "singularName": kind.lower(), "namespaced": namespaced, "kind": kind, "verbs": ["create"]}
        )
    head: Object = {"kind": "APIResourceList"}
    if group:
        head["apiVersion"] = "v1"
    return {**head, "groupVersion": f"{group}/{version}" if group else version, "resources": found}


def aggregated(cluster: Cluster, core: bool) -> Object:
    """The APIGroupDiscoveryList of the core group, or of all others."""
    items: list[Object] = []
    for group in [""] if core else groups(cluster):
        found = [
            {"version": version, "resources": _entries(cluster, group, version), "freshness": "Current"}
            for version in versions(cluster, group)
        ]
        items.append({"metadata": {"name": group} if group else {}, "versions": found})
    return {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items}


def _entries(cluster: Cluster, group: str, version: str) -> list[Object]:
    found: list[Object] = []
    types = [rt for rt in cluster.registry.group(group) if rt.version == version]
    for rt in sorted(types, key=lambda t: t.plural):
        kind = {"group": rt.group, "version": rt.version, "kind": rt.kind}
        if not rt.custom:
            kind = {"group": "", "version": "", "kind": rt.kind}
        entry: Object = {
            "resource": rt.plural,
            "responseKind": kind,
            "scope": "Namespaced" if rt.namespaced else "Cluster",
            "singularResource": rt.singular,
            "verbs": list(_CUSTOM_VERBS if rt.custom else rt.verbs),
        }
        if rt.short_names:
            entry["shortNames"] = list(rt.short_names)
        if rt.categories:
            entry["categories"] = list(rt.categories)
        subresources = [
            (name, {"group": g, "version": v, "kind": k}, verbs)
            for name, g, v, k, verbs in SUBRESOURCES.get(rt.name, ())
        ]
        if rt.status:
            subresources.append(("status", kind, _RW))
        if subresources:
            entry["subresources"] = [
                {"subresource": name, "responseKind": k, "verbs": verbs}
                for name, k, verbs in sorted(subresources, key=lambda s: s[0])
            ]
        found.append(entry)
    for plural, review, namespaced in REVIEWS.get((group, version), ()):
        found.append(
            {
                "resource": plural,
                "responseKind": {"group": "", "version": "", "kind": review},
                "scope": "Namespaced" if namespaced else "Cluster",
                "singularResource": review.lower(),
                "verbs": ["create"],
            }
        )
    return found
