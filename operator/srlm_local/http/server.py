"""The API server: takes requests, and has them routed, authorised, stored and answered.

server = await ApiServer(cluster).start(port=0)     # server.url is known from here on
server.write_kubeconfig(path)                       # for kubectl, Kopf and the Python client
await server.stop()
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import socket
from pathlib import Path
from typing import Any

from aiohttp import web

from srlm_local.http import discovery, read, subresources, watch, write
from srlm_local.http.access import Authorizer, Tokens
from srlm_local.http.answer import error_answer, nowhere
from srlm_local.http.certificates import server_context
from srlm_local.http.routing import Route, parse
from srlm_local.store.cluster import Cluster
from srlm_local.store.errors import ApiError, internal, method_not_allowed

log = logging.getLogger(__name__)


class ApiServer:
    """One HTTP(S) endpoint on the loopback interface."""

    def __init__(self, cluster: Cluster, *, tls: bool = True, admin_token: str | None = None) -> None:
        self.cluster = cluster
        self.tokens = Tokens(cluster, admin_token)
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

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        """Route, authorise, store, answer."""
        try:
            user = self.tokens.authenticate(request.headers.get("Authorization", ""))
            route = parse(request.method, request.path, request.query.get("watch", "") in ("true", "1"))
            if route is None:
                self.authorizer.check_path(user, request.path)
                return discovery.serve(self.cluster, request)
            self.authorizer.check(user, route)
            return await self._serve(request, route)
        except ApiError as error:
            return error_answer(error)
        except (asyncio.CancelledError, ConnectionError):
            raise
        except Exception as error:
            log.exception("%s %s failed", request.method, request.path)
            return error_answer(internal(f"{type(error).__name__}: {error}"))

    async def _serve(self, request: web.Request, route: Route) -> web.StreamResponse:
        """What is asked of a resource."""
        cluster = self.cluster
        rt = cluster.registry.find(route.group, route.version, route.plural)
        if rt is None or (rt.namespaced and route.name and not route.namespace):
            return nowhere()
        if route.subresource and not (route.subresource == "status" and rt.status):
            return await subresources.handle(request, cluster, self.tokens, rt, route)
        one, where = bool(route.name), bool(route.namespace or not rt.namespaced)
        match route.verb:
            case "get":
                return read.read_one(request, cluster, rt, route)
            case "list":
                return read.read_list(request, cluster, rt, route)
            case "watch":
                return await watch.watch(request, cluster, rt, route)
            case "create" if where and not one:
                return await write.create(request, cluster, rt, route)
            case "update" if one:
                return await write.update(request, cluster, rt, route)
            case "patch" if one:
                return await write.patch(request, cluster, rt, route)
            case "delete" if one:
                return await write.delete(request, cluster, rt, route)
            case "deletecollection" if where:
                return await write.delete_collection(request, cluster, rt, route)
        raise method_not_allowed()
