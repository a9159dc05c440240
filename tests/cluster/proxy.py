"""Stands between the operator and the API server: forwards everything and writes down what was asked and answered.

With it the rights of the operator can be checked on any API server: it needs no access to the server's own log.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from kubernetes.client import Configuration

from srlm_local.http.routing import parse

Right = tuple[str, str, str]
_HOP = {"host", "connection", "keep-alive", "transfer-encoding", "content-length", "content-encoding", "te", "upgrade"}


@dataclass(frozen=True)
class Request:
    """One request about a resource. `right` is (API group, resource, verb)."""

    right: Right
    namespace: str
    name: str
    status: int
    text: str
    """What was sent; what was answered, when that was 401 or 403."""


@dataclass
class Proxy:
    """A server on the loopback interface, in front of the server of `upstream`."""

    upstream: Configuration
    requests: list[Request] = field(default_factory=list)
    url: str = ""
    _asked: asyncio.Event = field(default_factory=asyncio.Event)
    _runner: web.AppRunner | None = None
    _session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        context: ssl.SSLContext | bool = True
        if self.upstream.host.startswith("https"):
            context = ssl.create_default_context(cafile=self.upstream.ssl_ca_cert or None)
            if not self.upstream.verify_ssl:
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        # No limit of connections: watches hold theirs. And no credentials but what the operator sends.
        connector = aiohttp.TCPConnector(ssl=context, limit=0)
        timeout = aiohttp.ClientTimeout(total=None, connect=10)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False)
        app = web.Application(client_max_size=64 << 20)
        app.router.add_route("*", "/{path:.*}", self._forward)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
        if self._session is not None:
            await self._session.close()

    def kubeconfig(self, path: Path, token: str, namespace: str) -> None:
        """A kubeconfig that leads through here, for its owner only."""
        name = "under-test"
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": {"server": self.url}}],
            "users": [{"name": name, "user": {"token": token}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": namespace}}],
            "current-context": name,
        }
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(content, file)

    async def until(self, what: Callable[[], Any], seconds: float = 90) -> None:
        """Wait until `what` gives something true after some request."""
        async with asyncio.timeout(seconds):
            while not what():
                self._asked.clear()
                await self._asked.wait()

    def used(self) -> set[Right]:
        """Rights that were used and granted."""
        return {r.right for r in self.requests if r.status not in (401, 403)}

    def refused(self) -> list[Request]:
        """Requests that the account has no right to. A quota or a namespace that goes away answers 403, too."""
        return [r for r in self.requests if r.status == 401 or (r.status == 403 and " cannot " in r.text)]

    def writes(self) -> list[Request]:
        """Everything but reading."""
        return [r for r in self.requests if r.right[2] not in ("get", "list", "watch")]

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        assert self._session is not None
        body = await request.read()
        headers = {k: v for k, v in request.headers.items() if k.lower() not in _HOP}
        url = self.upstream.host.rstrip("/") + str(request.rel_url)
        route = parse(request.method, request.path, request.query.get("watch", "") in ("true", "1"))
        try:
            upstream = await self._session.request(request.method, url, data=body or None, headers=headers)
        except aiohttp.ClientError as problem:
            return web.Response(status=502, text=str(problem))
        async with upstream:
            if route is not None:
                resource = f"{route.plural}/{route.subresource}" if route.subresource else route.plural
                right = (route.group, resource, route.verb)
                told = await upstream.read() if upstream.status in (401, 403) else body
                text = told.decode(errors="replace")
                self.requests.append(Request(right, route.namespace, route.name, upstream.status, text))
                self._asked.set()
            answer = web.StreamResponse(status=upstream.status)
            for key, value in upstream.headers.items():
                if key.lower() not in _HOP - {"content-encoding"}:
                    answer.headers[key] = value
            await answer.prepare(request)
            if upstream.status in (401, 403) and route is not None:
                await answer.write(told)
            else:
                async for chunk in upstream.content.iter_any():
                    await answer.write(chunk)
            await answer.write_eof()
            return answer
