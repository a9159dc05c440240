"""A reverse proxy that breaks things on purpose, for tests. It can stand in front of any API server.

    proxy = await FaultProxy(configuration).start()
    proxy.add(Fail(methods=WRITES, path="/jobs", nth=2, status=503))   # the second matching request is refused
    proxy.add(Fail(path="/jobs", methods={"POST"}, status=403, message="jobs is forbidden: exceeded quota: q"))
    proxy.add(Cut(methods=WRITES, nth=1, after=True))                  # done upstream, but the answer is lost
    proxy.add(DropEvent(path="/pods", kind="MODIFIED", nth=1))         # one watch event never arrives
    proxy.add(hold := HoldEvents(path="/jobs", nth=1)); hold.release() # events wait until they are let go
    proxy.add(Cut(methods=WRITES, since=5))                            # the fifth write and all that follow are lost
    proxy.add(CutWatch(nth=3))                                         # a watch ends after its third event
    proxy.add(StallWatch(path="/pods"))                                # who asks for a watch waits for ever
    proxy.stale_since(version)                                         # lists are as old as this resourceVersion
    proxy.requests                                                     # what was asked and answered, in order
    proxy.used(), proxy.refused()                                      # rights that were needed, and lacked
    proxy.write_kubeconfig(path, token, namespace)                     # for the client under test

A rule counts the requests (or events) that it matches and acts on the nth, from the `since`th on, on each `every`th,
or on all.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from kubernetes.client import Configuration

from srlm_local.http.routing import parse

Right = tuple[str, str, str]
"""API group, resource, verb."""
WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_NOT_FORWARDED = {"host", "content-length", "transfer-encoding", "connection", "content-encoding", "accept-encoding"}


@dataclass
class Rule:
    """path: a regular expression searched in the path; methods: empty means all."""

    path: str = ""
    methods: Iterable[str] = ()
    nth: int | None = None
    since: int | None = None
    every: int | None = None
    seen: int = field(default=0, init=False)

    def _hit(self, method: str, path: str) -> bool:
        if (self.methods and method not in self.methods) or not re.search(self.path, path):
            return False
        self.seen += 1
        if self.every is not None:
            return self.seen % self.every == 0
        if self.since is not None:
            return self.seen >= self.since
        return self.nth is None or self.seen == self.nth


@dataclass
class Fail(Rule):
    """Answers with an error instead of passing the request on."""

    status: int = 500
    message: str = ""

    def body(self) -> dict[str, Any]:
        reason = {403: "Forbidden", 409: "Conflict", 429: "TooManyRequests", 503: "ServiceUnavailable", 504: "Timeout"}
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message or f"injected fault {self.status}",
            "reason": reason.get(self.status, "InternalError"),
            "code": self.status,
        }


@dataclass
class Cut(Rule):
    """Closes the connection; with `after`, once upstream has done what was asked."""

    after: bool = False


class StallWatch(Rule):
    """A request for a watch is never answered, until the client gives up."""


@dataclass
class EventRule(Rule):
    """Counts watch events, of one kind (ADDED, MODIFIED, ...) or all."""

    kind: str = ""

    def hits(self, path: str, event: dict[str, Any]) -> bool:
        return (not self.kind or event.get("type") == self.kind) and self._hit("GET", path)


class DropEvent(EventRule):
    """The event is never sent on."""


class CutWatch(EventRule):
    """The watch ends after this event."""


@dataclass
class HoldEvents(EventRule):
    """This event and all that follow it in the same watch wait for `release`."""

    _released: asyncio.Event = field(default_factory=asyncio.Event, init=False)

    def release(self) -> None:
        self._released.set()

    async def wait(self) -> None:
        await self._released.wait()


@dataclass(frozen=True)
class Seen:
    """A request that came by; status is 0 if no answer was sent."""

    method: str
    path: str
    query: str
    status: int = 0
    text: str = ""
    """What the API server answered, if that was 401 or 403."""
    right: Right | None = None
    """That it takes; None for what names no resource."""
    name: str = ""
    """Of the object."""


class FaultProxy:
    """See the module's docstring. `upstream` is the API server behind it; its credentials are not used.

    What a client sends goes on as it is, so the rights that the API server checks are the client's.
    """

    def __init__(self, upstream: Configuration) -> None:
        self._upstream = upstream
        self._rules: list[Rule] = []
        self._stale: str | None = None
        self._runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None
        self._asked = asyncio.Event()
        self.requests: list[Seen] = []
        self.url = ""

    def add(self, rule: Rule) -> Rule:
        self._rules.append(rule)
        return rule

    def clear(self) -> None:
        """Back to a proxy that only passes on."""
        self._rules.clear()
        self._stale = None

    def stale_since(self, version: str) -> None:
        """From now on lists show the state at this resourceVersion, and watches from there replay the history."""
        self._stale = version

    def writes(self) -> list[Seen]:
        """Requests that changed something, or tried to."""
        return [seen for seen in self.requests if seen.method in WRITES]

    def used(self) -> set[Right]:
        """Rights that were used and granted."""
        return {seen.right for seen in self.requests if seen.right is not None and seen.status not in (0, 401, 403)}

    def refused(self) -> list[Seen]:
        """Requests that the account has no right to. A quota or a namespace that goes away answers 403, too."""
        return [s for s in self.requests if s.text and (s.status == 401 or " cannot " in s.text)]

    async def until(self, what: Callable[[], Any], seconds: float = 90) -> None:
        """Wait until `what` gives something true after some answer."""
        async with asyncio.timeout(seconds):
            while not what():
                self._asked.clear()
                await self._asked.wait()

    def write_kubeconfig(self, path: Path, token: str, namespace: str) -> None:
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

    async def start(self) -> FaultProxy:
        # No limit of connections: watches hold theirs.
        connector = aiohttp.TCPConnector(ssl=self._upstream_context(), limit=0)
        timeout = aiohttp.ClientTimeout(total=None, connect=10)
        self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False, timeout=timeout)
        app = web.Application(client_max_size=64 << 20)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
        if self._session is not None:
            await self._session.close()

    def _upstream_context(self) -> ssl.SSLContext | bool:
        if not self._upstream.host.startswith("https"):
            return True
        context = ssl.create_default_context(cafile=self._upstream.ssl_ca_cert or None)
        if not self._upstream.verify_ssl:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        index = len(self.requests)
        self.requests.append(_seen(request))
        body = await request.read()
        cut_after = False
        for rule in list(self._rules):
            if isinstance(rule, StallWatch) and not _watching(request):
                continue
            if isinstance(rule, EventRule) or not rule._hit(request.method, request.path):
                continue
            if isinstance(rule, StallWatch):
                await asyncio.Event().wait()
            if isinstance(rule, Fail):
                self._note(index, rule.status)
                return web.json_response(rule.body(), status=rule.status)
            if isinstance(rule, Cut) and not rule.after:
                return _hang_up(request)
            cut_after |= isinstance(rule, Cut)
        headers = {key: value for key, value in request.headers.items() if key.lower() not in _NOT_FORWARDED}
        headers["Accept-Encoding"] = "identity"
        url = f"{self._upstream.host.rstrip('/')}{request.path}"
        assert self._session is not None
        try:
            upstream = await self._session.request(
                request.method, url, params=self._query(request), data=body or None, headers=headers
            )
        except aiohttp.ClientError as problem:
            return web.Response(status=502, text=str(problem))
        async with upstream:
            if cut_after:
                await upstream.read()
                return _hang_up(request)
            denied = await upstream.text(errors="replace") if upstream.status in (401, 403) else ""
            self._note(index, upstream.status, denied)
            return await self._answer(request, upstream)

    def _query(self, request: web.Request) -> list[tuple[str, str]]:
        query = [(key, value) for key, value in request.query.items()]
        last = request.path.rstrip("/").rpartition("/")[2]
        is_list = request.method == "GET" and not _watching(request) and "continue" not in request.query
        if self._stale is not None and is_list and last in _plurals(request.path):
            kept = [(k, v) for k, v in query if not k.startswith("resourceVersion")]
            return [*kept, ("resourceVersion", self._stale), ("resourceVersionMatch", "Exact")]
        return query

    def _note(self, index: int, status: int, text: str = "") -> None:
        self.requests[index] = replace(self.requests[index], status=status, text=text)
        self._asked.set()

    async def _answer(self, request: web.Request, upstream: aiohttp.ClientResponse) -> web.StreamResponse:
        headers = [(key, value) for key, value in upstream.headers.items() if key.lower() not in _NOT_FORWARDED]
        response = web.StreamResponse(status=upstream.status)
        for key, value in headers:
            response.headers.add(key, value)
        await response.prepare(request)
        if not (_watching(request) and upstream.status == 200):
            await response.write(await upstream.read())
            return response
        try:
            await self._pass_events(request.path, upstream, response)
        except ConnectionResetError:
            return response
        return response

    async def _pass_events(self, path: str, upstream: aiohttp.ClientResponse, response: web.StreamResponse) -> None:
        buffer = b""
        async for chunk in upstream.content.iter_any():
            buffer += chunk
            *lines, buffer = buffer.split(b"\n")
            for line in lines:
                ended, passed = await self._judge(path, line) if line else (False, False)
                if passed:
                    await response.write(line + b"\n")
                if ended:
                    return

    async def _judge(self, path: str, line: bytes) -> tuple[bool, bool]:
        """(whether the watch ends after this event, whether the event is passed on)."""
        ended, passed = False, True
        rules = [rule for rule in self._rules if isinstance(rule, EventRule)]
        event = json.loads(line) if rules else {}
        for rule in rules:
            if not rule.hits(path, event):
                continue
            if isinstance(rule, HoldEvents):
                await rule.wait()
            ended |= isinstance(rule, CutWatch)
            passed &= not isinstance(rule, DropEvent)
        return ended, passed


def _seen(request: web.Request) -> Seen:
    route = parse(request.method, request.path, _watching(request))
    if route is None:
        return Seen(request.method, request.path, request.query_string)
    resource = f"{route.plural}/{route.subresource}" if route.subresource else route.plural
    right = (route.group, resource, route.verb)
    return Seen(request.method, request.path, request.query_string, right=right, name=route.name)


def _watching(request: web.Request) -> bool:
    return request.query.get("watch") in ("true", "1")


def _plurals(path: str) -> set[str]:
    """The last part of a path that names a collection, or nothing: names of objects come after it."""
    parts = path.strip("/").split("/")
    parts = parts[2:] if parts[0] == "api" else parts[3:]
    if len(parts) == 3 and parts[0] == "namespaces":
        return {parts[2]}
    return {parts[0]} if len(parts) == 1 else set()


def _hang_up(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
