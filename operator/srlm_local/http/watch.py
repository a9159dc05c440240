"""Watches over HTTP: one JSON object a line, and an end by timeout. A server need not send bookmarks."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

from aiohttp import web

from srlm_local.http.answer import wants_table
from srlm_local.http.read import check_version
from srlm_local.http.routing import Route
from srlm_local.http.tables import table
from srlm_local.store import errors
from srlm_local.store.cluster import Cluster, seen_as
from srlm_local.store.errors import ApiError
from srlm_local.store.resources import ResourceType
from srlm_local.store.selectors import Predicate

Object = dict[str, Any]
DEFAULT_SECONDS = 1800


async def watch(request: web.Request, cluster: Cluster, rt: ResourceType, route: Route) -> web.StreamResponse:
    """Streams changes until the time is over or the client goes. A version that is too old is told as an event."""
    query, as_table = request.query, wants_table(request)
    match = cluster.predicate(rt, query.get("labelSelector", ""), query.get("fieldSelector", ""))
    seconds = float(query.get("timeoutSeconds") or DEFAULT_SECONDS)
    since = query.get("resourceVersion", "")
    if since and not since.isdigit():
        raise ApiError(500, "", f'resourceVersion: Invalid value: "{since}"')
    check_version(cluster.version, since or "0")
    if "sendInitialEvents" in query:  # clients list first, then
        raise errors.invalid("ListOptions", "meta.k8s.io", "", [errors.barred("sendInitialEvents", "not served here")])
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    stream = _Stream(response, cluster, rt, as_table, query)
    with contextlib.suppress(ConnectionResetError, TimeoutError):
        try:
            async with asyncio.timeout(seconds):
                await _follow(stream, route.namespace or None, match, int(since or 0))
        except ApiError as error:
            stream.add("ERROR", error.body())
        finally:
            await stream.flush()
    return response


async def _follow(stream: _Stream, namespace: str | None, match: Predicate, since: int) -> None:
    """`since` 0 begins with everything that there is."""
    storage, rt = stream.cluster.storage, stream.rt
    watcher = storage.watcher(since or storage.version)
    try:
        if not since:
            for obj in storage.list(rt.name, namespace):
                if match(obj):
                    stream.add("ADDED", obj)
        while True:
            for change in watcher.poll():
                if seen := seen_as(change, rt, namespace, match):
                    stream.add(*seen)
            await stream.flush()
            await watcher.wait()
    finally:
        watcher.close()


class _Stream:
    """Writes events in the form that was asked for, batched so that a burst is one write."""

    def __init__(
        self, response: web.StreamResponse, cluster: Cluster, rt: ResourceType, as_table: bool, query: Any
    ) -> None:
        self.cluster, self.rt = cluster, rt
        self._response, self._as_table, self._include = response, as_table, query.get("includeObject", "")
        self._pending: list[bytes] = []
        self._columns_told = False

    def add(self, kind: str, obj: Object) -> None:
        if self._as_table and kind != "ERROR":
            obj = self._table([obj], obj["metadata"]["resourceVersion"])
        line = json.dumps({"type": kind, "object": obj}, separators=(",", ":"), ensure_ascii=False)
        self._pending.append(line.encode() + b"\n")

    def _table(self, items: list[Object], version: str) -> Object:
        """Only the first one tells the columns."""
        shown = table(self.rt, items, self.cluster.clock.now(), self._include)
        if self._columns_told:
            shown["columnDefinitions"] = None
        self._columns_told = True
        return {**shown, "metadata": {"resourceVersion": version}}

    async def flush(self) -> None:
        if self._pending:
            data, self._pending = b"".join(self._pending), []
            await self._response.write(data)
