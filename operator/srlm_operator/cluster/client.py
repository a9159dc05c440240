"""The API boundary: JSON over HTTP to the API server, and the one place where its errors become ours.

Plain dictionaries in and out; the generated classes of the `kubernetes` package would cost more time than the
requests themselves. That package only finds the server and the credentials.
"""

from __future__ import annotations

import codecs
import json
import os
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Self

import aiohttp
from kubernetes import config as kubeconfig
from kubernetes.client import Configuration

from srlm_operator import names
from srlm_operator.errors import (
    AlreadyExists,
    ApiError,
    ConfigurationError,
    Conflict,
    NamespaceTerminating,
    NotFound,
    QuotaExceeded,
    Refused,
    Unavailable,
)

Obj = dict[str, Any]
_TIMEOUT = aiohttp.ClientTimeout(total=30, connect=10)


@dataclass(frozen=True)
class Resource:
    """A kind of object and where it lives in the API."""

    group: str
    version: str
    plural: str

    @property
    def api_version(self) -> str:
        """As manifests name it."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str = "", sub: str = "") -> str:
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        parts = [root]
        if namespace:
            parts.append(f"namespaces/{namespace}")
        parts.append(self.plural)
        parts += [part for part in (name, sub) if part]
        return "/".join(parts)


RUNS = Resource(names.GROUP, names.VERSION, names.PLURAL)
JOBS = Resource("batch", "v1", "jobs")
PODS = Resource("", "v1", "pods")
SERVICES = Resource("", "v1", "services")
EVENTS = Resource("", "v1", "events")
LEASES = Resource("coordination.k8s.io", "v1", "leases")
#: PodGroups in the versions that have what the operator writes, the best first: of Kubernetes 1.37, and of 1.36.
POD_GROUPS = tuple(Resource("scheduling.k8s.io", version, "podgroups") for version in ("v1beta1", "v1alpha2"))


@dataclass(frozen=True)
class Listing:
    """Objects and the resource version they were listed at."""

    items: list[Obj]
    resource_version: str


def load_configuration(context: str | None = None) -> Configuration:
    """Server and credentials from KUBECONFIG, ~/.kube/config or the pod's service account.

    Raises ConfigurationError.
    """
    found = Configuration()
    inside = "KUBERNETES_SERVICE_HOST" in os.environ and "KUBECONFIG" not in os.environ
    try:
        if inside and context is None:
            kubeconfig.load_incluster_config(client_configuration=found)
        else:
            # By argument: the package reads KUBECONFIG only once, when it is imported.
            file = os.environ.get("KUBECONFIG")
            kubeconfig.load_kube_config(config_file=file, client_configuration=found, context=context)
    except kubeconfig.ConfigException as problem:
        raise ConfigurationError(f"no cluster: {problem}; set KUBECONFIG") from None
    return found


def default_namespace(context: str | None = None) -> str:
    """Namespace of the kubeconfig's context, or `default`."""
    try:
        contexts, active = kubeconfig.list_kube_config_contexts(config_file=os.environ.get("KUBECONFIG"))
    except kubeconfig.ConfigException:
        return "default"
    chosen = next((c for c in contexts if c["name"] == context), active)
    return str((chosen or {}).get("context", {}).get("namespace") or "default")


def bearer(configuration: Configuration) -> str:
    """The Authorization header, refreshed when the credentials come from a file or a program; or nothing."""
    return str(configuration.get_api_key_with_prefix("BearerToken", alias="authorization") or "")


class Client:
    """Requests to one API server. Use as an async context manager."""

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration
        self._session: aiohttp.ClientSession | None = None
        self.on_write: Callable[[str, str], None] = lambda verb, resource: None
        """Told of every write: verb and resource."""
        self.on_error: Callable[[str, str], None] = lambda verb, reason: None
        """Told of every request that failed or was refused: verb and the name of our exception."""

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(ssl=ssl_context(self.configuration), limit=64)
        self._session = aiohttp.ClientSession(connector=connector, trust_env=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def first_served(self, versions: Iterable[Resource]) -> Resource | None:
        """The first of some versions of a kind that the API server has. Who may not ask has none."""
        for resource in versions:
            try:
                found = await self._json("GET", f"/apis/{resource.group}/{resource.version}")
            except (NotFound, Refused):
                continue
            if any(item["name"] == resource.plural for item in found["resources"]):
                return resource
        return None

    async def get(self, resource: Resource, namespace: str, name: str) -> Obj:
        return await self._json("GET", resource.path(namespace, name))

    async def list(
        self, resource: Resource, namespace: str | None = None, labels: str = "", fields: str = ""
    ) -> Listing:
        """All objects, in pages of 500."""
        items: list[Obj] = []
        query = {"limit": "500", "labelSelector": labels, "fieldSelector": fields}
        query = {key: value for key, value in query.items() if value}
        while True:
            page = await self._json("GET", resource.path(namespace), query=query)
            items += page.get("items") or []
            more = page["metadata"].get("continue")
            if not more:
                return Listing(items, page["metadata"].get("resourceVersion", ""))
            query["continue"] = more

    async def create(self, resource: Resource, namespace: str, body: Mapping[str, Any]) -> Obj:
        return await self._json("POST", resource.path(namespace), body=body, note=resource)

    async def merge(self, resource: Resource, namespace: str, name: str, body: Mapping[str, Any], sub: str = "") -> Obj:
        """JSON merge patch."""
        path = resource.path(namespace, name, sub)
        return await self._json("PATCH", path, body=body, content="application/merge-patch+json", note=resource)

    async def replace(self, resource: Resource, namespace: str, name: str, body: Mapping[str, Any]) -> Obj:
        return await self._json("PUT", resource.path(namespace, name), body=body, note=resource)

    async def delete(self, resource: Resource, namespace: str, name: str, uid: str = "", version: str = "") -> None:
        """Delete in the background, children too; only the object with `uid`, in that version, when given."""
        wanted = {"uid": uid, "resourceVersion": version}
        preconditions = {key: value for key, value in wanted.items() if value}
        options: Obj = {"propagationPolicy": "Background", "preconditions": preconditions}
        await self._json("DELETE", resource.path(namespace, name), body=options, note=resource)

    async def log_tail(self, namespace: str, pod: str, container: str, lines: int = 20) -> str:
        """The last lines of a container's log."""
        query = {"container": container, "tailLines": str(lines), "limitBytes": "65536"}
        return await self._text("GET", PODS.path(namespace, pod, "log"), query=query)

    async def log_lines(
        self, namespace: str, pod: str, container: str, *, follow: bool = False, lines: int | None = None
    ) -> AsyncIterator[str]:
        """Lines of a container's log as they come, with `follow` until it ends; lines: only so many of those there are.

        Raises ApiError.
        """
        path = PODS.path(namespace, pod, "log")
        query = {"container": container} | ({"follow": "true"} if follow else {})
        if lines is not None:
            query["tailLines"] = str(lines)
        rest, decode = "", codecs.getincrementaldecoder("utf-8")(errors="replace").decode
        try:
            async with self._asking("GET", path, query=query, timeout=aiohttp.ClientTimeout(connect=10)) as answer:
                if answer.status >= 400:
                    raise _error("GET", path, answer.status, await answer.text(errors="replace"))
                async for data in answer.content.iter_any():  # not its lines, whose length it limits
                    *whole, rest = (rest + decode(data)).split("\n")
                    for line in whole:
                        yield line
        except (aiohttp.ClientError, TimeoutError, OSError) as problem:
            raise Unavailable(f"GET {path}: {problem or type(problem).__name__}") from problem
        if rest:
            yield rest

    async def _json(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
        content: str = "application/json",
        note: Resource | None = None,
    ) -> Obj:
        if note is not None:
            self.on_write(method.lower(), note.plural)
        text = await self._text(method, path, body=body, query=query, content=content)
        found: Obj = json.loads(text)
        return found

    async def _text(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
        content: str = "application/json",
    ) -> str:
        data = None if body is None else json.dumps(body).encode()
        try:
            async with self._asking(method, path, query=query, data=data, content=content) as answer:
                text = await answer.text(errors="replace")
                status = answer.status
        except (aiohttp.ClientError, TimeoutError, OSError) as problem:
            self.on_error(method.lower(), Unavailable.__name__)
            raise Unavailable(f"{method} {path}: {problem or type(problem).__name__}") from problem
        if status >= 400:
            error = _error(method, path, status, text)
            if not isinstance(error, NotFound):
                self.on_error(method.lower(), type(error).__name__)
            raise error
        return text

    def _asking(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        data: bytes | None = None,
        content: str = "",
        timeout: aiohttp.ClientTimeout = _TIMEOUT,
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """The request with what every one has."""
        assert self._session is not None, "use the client as an async context manager"
        headers = {"Accept": "application/json", "User-Agent": names.MANAGER}
        token = bearer(self.configuration)
        if token:
            headers["Authorization"] = token
        if data is not None:
            headers["Content-Type"] = content
        url = self.configuration.host.rstrip("/") + path
        return self._session.request(method, url, data=data, params=query, headers=headers, timeout=timeout)


def _error(method: str, path: str, status: int, text: str) -> ApiError:
    """The server's `Status` object as one of our exceptions."""
    try:
        body = json.loads(text)
    except ValueError:
        body = {}
    if not isinstance(body, dict):
        body = {}
    reason = body.get("reason") or ""
    message = body.get("message") or f"{method} {path}: {text[:300]}"
    causes = {cause.get("reason") for cause in (body.get("details") or {}).get("causes") or ()}
    kind: type[ApiError]
    if status == 404:
        kind = NotFound
    elif status == 409:
        kind = AlreadyExists if reason == "AlreadyExists" else Conflict
    elif status == 410 or status == 429 or status >= 500:
        kind = Unavailable
    elif "NamespaceTerminating" in causes or "because it is being terminated" in message:
        kind = NamespaceTerminating
    elif status == 403 and "exceeded quota" in message:
        kind = QuotaExceeded
    else:
        kind = Refused
    return kind(message, status, reason)


def ssl_context(configuration: Configuration) -> ssl.SSLContext | bool:
    """How to check the server's certificate and show our own."""
    if not configuration.host.startswith("https"):
        return True
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert or None)
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, configuration.key_file or None)
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
