"""/healthz, /readyz and /metrics."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from .operator import Metrics


async def serve(
    host: str, port: int, metrics: Metrics, alive: Callable[[], str], ready: Callable[[], bool]
) -> web.AppRunner:
    """Start the server. `alive` returns what is wrong, or nothing. A standby answers as the leader does."""

    async def healthz(_: web.Request) -> web.Response:
        problem = alive()
        return web.Response(text=problem or "ok", status=503 if problem else 200)

    async def readyz(_: web.Request) -> web.Response:
        return web.Response(text="ok" if ready() else "not ready", status=200 if ready() else 503)

    async def expose(request: web.Request) -> web.Response:
        body, content_type = metrics.render(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", expose)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    return runner
