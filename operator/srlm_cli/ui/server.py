"""The page's server: read only, for one person on this machine, or behind a Service of the chart.

A random key in the address that the command prints becomes a cookie: no other user of this machine and no page of
another site can read anything. The Host header must name this machine, so that no foreign name leads here; a Service
has names that its server does not know, and there the key alone decides.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from importlib.resources import files
from urllib.parse import urlencode, urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from markupsafe import Markup

from srlm_cli.ui.pages import Page, comparison_page, render, run_page, runs_page
from srlm_cli.ui.source import Source

#: Seconds between two looks at what a page shows.
LOOK_SECONDS = 1.0
#: Runs side by side at most.
MAX_COMPARED = 8
_HEALTH = "/healthz"
_HOSTS = ("127.0.0.1", "localhost", "::1")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_MODEL = re.compile(r"M[1-9][0-9]{0,2}")
_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def application(
    source: Source, key: str, now: Callable[[], datetime] = lambda: datetime.now(UTC), *, anywhere: bool = False
) -> web.Application:
    """All routes. key: what opens the pages. anywhere: under any name, and with an answer for probes."""
    pages = _Pages(source, now)
    app = web.Application(middlewares=[_guard(key, anywhere)])
    if anywhere:
        app.router.add_get(_HEALTH, _healthy)
    app.router.add_get("/", pages.show)
    app.router.add_get("/compare", pages.show)
    app.router.add_get("/runs/{namespace}/{name}", pages.show)
    app.router.add_get("/events/", pages.follow)
    app.router.add_get("/events/compare", pages.follow)
    app.router.add_get("/events/runs/{namespace}/{name}", pages.follow)
    app.router.add_get("/static/{file}", _static)
    app.on_shutdown.append(pages.stop)
    return app


def _guard(key: str, anywhere: bool) -> Middleware:
    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        if anywhere and request.path == _HEALTH:
            return await handler(request)
        if not anywhere and urlsplit(f"//{request.host}").hostname not in _HOSTS:
            return _refused(403, "This server is for this machine: open it as 127.0.0.1 or localhost.")
        # Cookies know no ports: those of two servers on this machine must not replace each other.
        cookie = f"srlm-{request.url.port}"
        given = request.query.get("key")
        if given is not None and hmac.compare_digest(given.encode(), key.encode()):
            moved = web.Response(status=303, headers={**_HEADERS, "Location": request.path})
            moved.set_cookie(cookie, key, httponly=True, samesite="Strict", path="/")
            return moved
        if not hmac.compare_digest(request.cookies.get(cookie, "").encode(), key.encode()):
            return _refused(403, "Open the address that srlm ui has printed: it has the key.")
        try:
            answer = await handler(request)
        except web.HTTPException as problem:
            return _refused(problem.status, problem.reason)
        if not answer.prepared:
            answer.headers.update(_HEADERS)
        return answer

    return guard


def _refused(status: int, text: str) -> web.Response:
    return web.Response(status=status, text=f"{text}\n", headers=_HEADERS)


class _Pages:
    def __init__(self, source: Source, now: Callable[[], datetime]) -> None:
        self._source, self._now = source, now
        self._stopping = asyncio.Event()

    async def stop(self, _: web.Application) -> None:
        self._stopping.set()

    async def show(self, request: web.Request) -> web.Response:
        """The whole page as it is now."""
        page = self._page(request)
        parts = {name: html or page.waiting(name) for name, html in (await page.render()).items()}
        known = {"known": ".".join(_digest(html) for html in parts.values())}
        events = f"/events{request.path}?{urlencode([*request.query.items(), *known.items()])}"
        text = render("page.html.j2", page=page, parts=_safe(parts), events=events)
        return web.Response(text=text, content_type="text/html", charset="utf-8")

    async def follow(self, request: web.Request) -> web.StreamResponse:
        """Parts that change, as server-sent events, until the browser goes."""
        page = self._page(request)
        known = dict(zip(page.parts, request.query.get("known", "").split("."), strict=False))
        answer = web.StreamResponse(headers={**_HEADERS, "Content-Type": "text/event-stream"})
        await answer.prepare(request)
        with suppress(ConnectionError):
            while not self._stopping.is_set():
                for name, html in (await page.render()).items():
                    if html is not None and known.get(name) != _digest(html):
                        known[name] = _digest(html)
                        await answer.write(f"data: {json.dumps({'id': name, 'html': html})}\n\n".encode())
                await answer.write(b":\n\n")  # finds out whether anybody is there
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), LOOK_SECONDS)
        return answer

    def _page(self, request: web.Request) -> Page:
        """The page that the address names. Raises HTTPException."""
        given = request.match_info
        if "name" in given:
            namespace, name = _named(given["namespace"], given["name"])
            model = request.query.get("model")
            if model is not None and not _MODEL.fullmatch(model):
                raise web.HTTPNotFound
            return run_page(self._source, namespace, name, model, self._now)
        if request.path.endswith("/compare"):
            chosen = dict.fromkeys(request.query.getall("run", []))
            runs = [_named(*text.partition("/")[::2]) for text in chosen]
            if not runs:
                raise web.HTTPBadRequest(reason="Choose runs to compare")
            return comparison_page(self._source, runs[:MAX_COMPARED])
        return runs_page(self._source, self._now)


async def _healthy(_: web.Request) -> web.Response:
    return web.Response(text="ok\n", headers=_HEADERS)


def _named(namespace: str, name: str) -> tuple[str, str]:
    if not _NAME.fullmatch(namespace) or not _NAME.fullmatch(name):
        raise web.HTTPNotFound
    return namespace, name


async def _static(request: web.Request) -> web.Response:
    name = request.match_info["file"]
    file = files(__package__) / "static" / name
    kind = _TYPES.get(name.rpartition(".")[2])
    if kind is None or "/" in name or not file.is_file():
        raise web.HTTPNotFound
    return web.Response(body=file.read_bytes(), content_type=kind, charset="utf-8")


def _safe(parts: Mapping[str, str]) -> Mapping[str, str]:
    return {name: Markup(html) for name, html in parts.items()}  # noqa: S704 - made by our templates, which escape


def _digest(html: str) -> str:
    return hashlib.sha256(html.encode()).hexdigest()[:12]
