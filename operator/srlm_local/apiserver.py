"""The Kubernetes API over HTTPS, in front of a `Cluster`.

    server = ApiServer(cluster)
    await server.start(port=0)          # server.url is known from here on
    server.write_kubeconfig(path)       # for kubectl, Kopf and the Python client
    await server.stop()

`python -m srlm_local.apiserver --port 6443` runs one by itself and prints the path of its kubeconfig.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import logging
import os
import socket
from pathlib import Path
from typing import Any

from aiohttp import web

from srlm_local import (
    bootstrap,
    controllers,
    discovery,
    http_read,
    http_watch,
    http_write,
    openapi,
    reviews,
    subresources,
)
from srlm_local.access import Authorizer, Tokens
from srlm_local.certificates import server_context
from srlm_local.cluster import Cluster
from srlm_local.errors import ApiError, internal, method_not_allowed
from srlm_local.request import User
from srlm_local.resources import ResourceType
from srlm_local.respond import accept_of, answer, error_answer
from srlm_local.routing import Route, parse

log = logging.getLogger(__name__)


class ApiServer:
    """One HTTP(S) endpoint on the loopback interface."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        tls: bool = True,
        admin_token: str | None = None,
        signing_key: bytes | None = None,
    ) -> None:
        """With the same admin_token and signing_key, tokens outlive a restart; both are random if not given."""
        self.cluster = cluster
        self.tokens = Tokens(cluster, admin_token, signing_key)
        self.authorizer = Authorizer(cluster)
        self.url = ""
        self.authority = ""
        self._tls = tls
        self._runner: web.AppRunner | None = None

    async def start(self, port: int = 0, host: str = "127.0.0.1") -> ApiServer:
        """Listens; port 0 takes a free one."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
        await self._runner.setup()
        context = None
        if self._tls:
            context, self.authority = server_context()
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        await web.SockSite(self._runner, listener, ssl_context=context).start()
        self.url = f"{'https' if self._tls else 'http'}://{host}:{listener.getsockname()[1]}"
        return self

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def kubeconfig(self, token: str | None = None, namespace: str = "default") -> dict[str, Any]:
        """A kubeconfig for the administrator, or for another token."""
        cluster: dict[str, Any] = {"server": self.url}
        if self.authority:
            cluster["certificate-authority-data"] = base64.b64encode(self.authority.encode()).decode()
        name = "srlm-local"
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": cluster}],
            "users": [{"name": name, "user": {"token": token or self.tokens.admin}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": namespace}}],
            "current-context": name,
        }

    def write_kubeconfig(self, path: Path, token: str | None = None, namespace: str = "default") -> None:
        """Written for its owner only, as it holds a token. JSON is YAML."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(self.kubeconfig(token, namespace), file, indent=1)

    # ---- requests

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        try:
            user = self.tokens.authenticate(request.headers.get("Authorization", ""))
            watching = request.query.get("watch", "") in ("true", "1")
            route = parse(request.method, request.path, watching)
            if route is None:
                self.authorizer.check_path(user, request.method, request.path)
                return self._path(request)
            self.authorizer.check(user, route)
            return await self._resource(request, route, user)
        except ApiError as error:
            return error_answer(error, error.warnings)
        except (asyncio.CancelledError, ConnectionError):
            raise
        except Exception as error:
            log.exception("%s %s failed", request.method, request.path)
            return error_answer(internal(f"{type(error).__name__}: {error}"))

    def _path(self, request: web.Request) -> web.StreamResponse:
        path = request.path.rstrip("/") or "/"
        if path in ("/healthz", "/livez", "/readyz") or path.startswith(("/healthz/", "/livez/", "/readyz/")):
            return web.Response(text="ok", content_type="text/plain", charset="utf-8")
        if path == "/version":
            return answer(discovery.VERSION)
        if path.startswith("/openapi"):
            return openapi.serve(self.cluster, request)
        accept = accept_of(request)
        wants_aggregate = accept.group == "apidiscovery.k8s.io" and accept.version in ("v2", "v2beta1")
        parts = path.strip("/").split("/")
        body: Any = None
        match parts:
            case ["api" | "apis"] if wants_aggregate:
                body = discovery.aggregated(self.cluster, core=parts == ["api"])
                body["apiVersion"] = f"apidiscovery.k8s.io/{accept.version}"
                return answer(body, content_type=discovery.AGGREGATED.replace("v=v2", f"v={accept.version}"))
            case ["api"]:
                body = discovery.api_versions(request.host)
            case ["apis"]:
                body = discovery.api_groups(self.cluster)
            case ["api", version]:
                body = discovery.resource_list(self.cluster, "", version)
            case ["apis", group]:
                body = discovery.api_group(self.cluster, group)
            case ["apis", group, version]:
                body = discovery.resource_list(self.cluster, group, version)
        return nowhere() if body is None else answer(body)

    async def _resource(self, request: web.Request, route: Route, user: User) -> web.StreamResponse:
        if (route.group, route.version) in discovery.REVIEWS:
            return await reviews.review(request, self, route, user)
        rt = self.cluster.registry.find(route.group, route.version, route.plural)
        if rt is None:
            return nowhere()
        if route.subresource and not (route.subresource == "status" and rt.status):
            return await subresources.handle(request, self, rt, route, user)
        return await self._object(request, rt, route, user)

    async def _object(self, request: web.Request, rt: ResourceType, route: Route, user: User) -> web.StreamResponse:
        cluster = self.cluster
        if rt.namespaced and route.name and not route.namespace:
            return nowhere()
        match route.verb:
            case "get":
                return http_read.read_one(cluster, rt, route, request.query, accept_of(request))
            case "list":
                return http_read.read_list(cluster, rt, route, request.query, accept_of(request))
            case "watch":
                return await http_watch.watch(request, cluster, rt, route, accept_of(request))
            case "create" if (not route.name or rt.custom or rt.name == "namespaces") and not route.subresource:
                if rt.namespaced and not route.namespace:
                    raise method_not_allowed()
                return await http_write.create(request, cluster, rt, route, user)
            case "update" if route.name:
                return await http_write.update(request, cluster, rt, route, user)
            case "patch" if route.name:
                return await http_write.patch(request, cluster, rt, route, user)
            case "delete":
                return await http_write.delete(request, cluster, rt, route, user)
            case "deletecollection" if route.namespace or not rt.namespaced:
                return await http_write.delete_collection(request, cluster, rt, route, user)
        raise method_not_allowed()


def nowhere() -> web.Response:
    return web.Response(status=404, text="404 page not found\n", content_type="text/plain", charset="utf-8")


async def _run(arguments: argparse.Namespace) -> None:
    cluster = Cluster()
    bootstrap.prepare(cluster)
    server = await ApiServer(cluster, tls=not arguments.plain_http).start(arguments.port)
    server.write_kubeconfig(arguments.kubeconfig)
    tasks = controllers.start(cluster)
    print(  # noqa: T201 - the answer of a command line program
        f"{server.url}\nexport KUBECONFIG={arguments.kubeconfig}", flush=True
    )
    try:
        await asyncio.Event().wait()
    finally:
        for task in tasks:
            task.cancel()
        await server.stop()


def main() -> None:
    """Runs an empty API server without Job controller and pod runner, for development."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--port", type=int, default=6443)
    parser.add_argument("--plain-http", action="store_true", help="no TLS; kubectl then sends no token")
    parser.add_argument("--kubeconfig", type=Path, default=Path("kubeconfig.json"))
    logging.basicConfig(level=logging.INFO)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_run(parser.parse_args()))


if __name__ == "__main__":
    main()
