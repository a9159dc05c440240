"""The API boundary: every answer of the server as one of our errors, over real HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from kubernetes.client import Configuration

from srlm_operator import errors
from srlm_operator.cluster.client import JOBS, PODS, RUNS, Client, load_configuration


@asynccontextmanager
async def server(status: int, body: Any) -> AsyncIterator[Client]:
    """A server with one answer."""

    async def answer(_: web.Request) -> web.Response:
        return web.json_response(body, status=status)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    configuration = Configuration()
    configuration.host = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        async with Client(configuration) as client:
            yield client
    finally:
        await runner.cleanup()


def problem(reason: str, message: str = "no", cause: str = "") -> dict[str, Any]:
    details = {"causes": [{"reason": cause}]} if cause else {}
    return {"kind": "Status", "reason": reason, "message": message, "details": details}


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (404, problem("NotFound"), errors.NotFound),
        (409, problem("AlreadyExists"), errors.AlreadyExists),
        (409, problem("Conflict"), errors.Conflict),
        (403, problem("Forbidden", "pods is forbidden: exceeded quota: q"), errors.QuotaExceeded),
        (403, problem("Forbidden", "no", "NamespaceTerminating"), errors.NamespaceTerminating),
        (403, problem("Forbidden"), errors.Refused),
        (422, problem("Invalid"), errors.Refused),
        (400, problem("BadRequest", 'admission webhook "x" denied the request'), errors.Refused),
        (429, problem("TooManyRequests"), errors.Unavailable),
        (503, problem("ServiceUnavailable"), errors.Unavailable),
        (500, ["not a Status"], errors.Unavailable),
    ],
)
async def test_answers_become_errors(status: int, body: Any, kind: type[errors.ApiError]) -> None:
    async with server(status, body) as client:
        with pytest.raises(errors.ApiError) as caught:
            await client.create(JOBS, "ns", {})
    assert type(caught.value) is kind
    assert caught.value.status == status


async def test_nobody_listens() -> None:
    configuration = Configuration()
    configuration.host = "http://127.0.0.1:9"
    async with Client(configuration) as client:
        with pytest.raises(errors.Unavailable):
            await client.get(RUNS, "ns", "x")


async def test_writes_are_told() -> None:
    told: list[tuple[str, str]] = []
    async with server(200, {}) as client:
        client.on_write = lambda verb, resource: told.append((verb, resource))
        await client.create(JOBS, "ns", {})
        await client.merge(RUNS, "ns", "x", {}, sub="status")
        await client.get(PODS, "ns", "x")
    assert told == [("post", "jobs"), ("patch", "selfrewardingruns")]


def test_no_kubeconfig_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))
    with pytest.raises(errors.ConfigurationError, match="KUBECONFIG"):
        load_configuration()


def test_paths() -> None:
    assert JOBS.path("ns", "x", "status") == "/apis/batch/v1/namespaces/ns/jobs/x/status"
    assert PODS.path() == "/api/v1/pods"
