"""The one-machine API server with the server-side apply that Helm needs: one manager, who never takes a field away."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from srlm_local.http.answer import answer, error_answer
from srlm_local.http.routing import parse
from srlm_local.http.server import ApiServer
from srlm_local.store.errors import ApiError
from srlm_local.store.request import Request
from srlm_operator.crd.yaml12 import load_documents


class ApplyingServer(ApiServer):
    """What is applied is created, or merged into what is there."""

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
