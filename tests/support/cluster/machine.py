"""The one-machine API server and its controllers in the test's own event loop, with what Helm needs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from srlm_local.http.answer import answer, error_answer
from srlm_local.http.routing import parse
from srlm_local.http.server import ApiServer
from srlm_local.jobcontroller.controller import JobController
from srlm_local.kinds import bootstrap
from srlm_local.kinds.table import new_cluster
from srlm_local.store.cluster import Cluster
from srlm_local.store.errors import ApiError
from srlm_local.store.request import Request
from srlm_operator.crd.yaml12 import load_documents


class ApplyingServer(ApiServer):
    """With the server-side apply that Helm needs: what is applied is created, or merged into what is there."""

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if "apply-patch" not in request.content_type:
            return await super()._handle(request)
        route = parse("PATCH", request.path, watch=False)
        assert route is not None
        rt = self.cluster.registry.find(route.group, route.version, route.plural)
        assert rt is not None
        wanted: dict[str, Any] = load_documents(await request.text())[0]
        options = Request(dry_run="dryRun" in request.query)
        try:
            if self.cluster.find(rt, route.name, route.namespace) is None:
                return answer(self.cluster.create(rt, wanted, route.namespace, request=options), 201)
            kind: Any = "merge" if rt.custom else "strategic"
            done = self.cluster.patch(rt, route.name, wanted, route.namespace, kind=kind, request=options)
        except ApiError as error:
            return error_answer(error)
        return answer(done)


@dataclass(frozen=True)
class Machine:
    """What only tests on the one-machine cluster may reach into."""

    cluster: Cluster
    server: ApiServer
    kubeconfig: Path
    """The administrator's."""


@asynccontextmanager
async def one_machine(folder: Path) -> AsyncIterator[Machine]:
    """An empty cluster."""
    cluster = new_cluster()
    server = await ApplyingServer(cluster).start()
    bootstrap.prepare(cluster)
    server.write_kubeconfig(folder / "kubeconfig")
    tasks = [*bootstrap.start(cluster), asyncio.create_task(JobController(cluster).run())]
    try:
        yield Machine(cluster, server, folder / "kubeconfig")
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        await server.stop()
    for result in results:
        if isinstance(result, Exception):
            raise result
