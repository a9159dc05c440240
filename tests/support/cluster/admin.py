"""Requests of an administrator to the API server under test: plain JSON, watches, server-side apply."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
from kubernetes import config
from kubernetes.client import Configuration

from srlm_operator.cluster.client import Client, Resource
from srlm_operator.errors import ApiError, Conflict, NotFound

Object = dict[str, Any]
_RBAC = "rbac.authorization.k8s.io"
NAMESPACES = Resource("", "v1", "namespaces")
ACCOUNTS = Resource("", "v1", "serviceaccounts")
QUOTAS = Resource("", "v1", "resourcequotas")
SECRETS = Resource("", "v1", "secrets")
CONFIG_MAPS = Resource("", "v1", "configmaps")
PRIORITIES = Resource("scheduling.k8s.io", "v1", "priorityclasses")
DEFINITIONS = Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions")
#: What the chart's rights consist of.
RIGHTS = {
    "ServiceAccount": ACCOUNTS,
    "Role": Resource(_RBAC, "v1", "roles"),
    "RoleBinding": Resource(_RBAC, "v1", "rolebindings"),
    "ClusterRole": Resource(_RBAC, "v1", "clusterroles"),
    "ClusterRoleBinding": Resource(_RBAC, "v1", "clusterrolebindings"),
}


def configuration(kubeconfig: Path) -> Configuration:
    """Server and credentials of a kubeconfig's current context."""
    found = Configuration()
    config.load_kube_config(config_file=str(kubeconfig), client_configuration=found)
    return found


class Admin(Client):
    """The operator's client with what only tests need."""

    def __init__(self, kubeconfig: Path) -> None:
        super().__init__(configuration(kubeconfig))
        self.kubeconfig = kubeconfig

    @contextlib.asynccontextmanager
    async def _asking(self, method: str, path: str, **more: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        """The request, again when the server asks for that, as it does while it takes up a definition."""
        while True:
            async with super()._asking(method, path, **more) as answer:
                if answer.status != 429:
                    yield answer
                    return
            await asyncio.sleep(float(answer.headers.get("Retry-After", 1)))

    async def find(self, resource: Resource, namespace: str, name: str) -> Object | None:
        try:
            return await self.get(resource, namespace, name)
        except NotFound:
            return None

    async def put(self, resource: Resource, namespace: str, name: str, body: Object) -> Object:
        """Create an object, or merge into it."""
        if await self.find(resource, namespace, name) is None:
            metadata = {**body.get("metadata", {}), "name": name}
            return await self.create(resource, namespace, {**body, "metadata": metadata})
        return await self.merge(resource, namespace, name, body)

    async def remove(self, resource: Resource, namespace: str, name: str) -> None:
        """Delete in the background; no matter if it is gone."""
        with contextlib.suppress(NotFound):
            await self.delete(resource, namespace, name)

    async def dry_run(self, resource: Resource, namespace: str, body: Object) -> str:
        """Create without effect, unknown fields refused. The server's message, empty if it takes the object."""
        query = {"dryRun": "All", "fieldValidation": "Strict"}
        try:
            await self._json("POST", resource.path(namespace), body=body, query=query)
        except ApiError as problem:
            return str(problem)
        return ""

    async def apply(
        self, resource: Resource, namespace: str, body: Object, manager: str, *, force: bool = False
    ) -> Object:
        """Server-side apply by a field manager."""
        path = resource.path(namespace, body["metadata"]["name"])
        query = {"fieldManager": manager} | ({"force": "true"} if force else {})
        return await self._json("PATCH", path, body=body, query=query, content="application/apply-patch+yaml")

    async def token(self, namespace: str, account: str, seconds: int = 3600) -> str:
        """A token of a service account, minted by the server."""
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": seconds},
        }
        made = await self._json("POST", ACCOUNTS.path(namespace, account, "token"), body=request)
        return str(made["status"]["token"])

    async def write_status(self, resource: Resource, obj: Object, status: Object) -> bool:
        """Merge into an object's status. False if it has been deleted meanwhile."""
        meta = obj["metadata"]
        try:
            await self.merge(resource, meta["namespace"], meta["name"], {"status": status}, sub="status")
        except (NotFound, Conflict):
            return False
        return True

    async def watch(self, resource: Resource, namespace: str, version: str) -> AsyncIterator[Object]:
        """Events after a resource version, until the server ends the watch."""
        query = {"watch": "true", "resourceVersion": version, "allowWatchBookmarks": "true"}
        timeout = aiohttp.ClientTimeout(total=None, connect=10)
        async with self._asking("GET", resource.path(namespace), query=query, timeout=timeout) as answer:
            answer.raise_for_status()
            rest = b""
            async for chunk in answer.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    if line.strip():
                        yield json.loads(line)
