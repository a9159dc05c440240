"""Watches over HTTP: one JSON object a line, bookmarks, and an end by timeout."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

from aiohttp import web

from srlm_local.http.answer import wants_table
from srlm_local.http.read import known_version, whole_number
from srlm_local.http.routing import Route
from srlm_local.http.tables import table
from srlm_local.store import errors
from srlm_local.store.cluster import Cluster, seen_as
from srlm_local.store.errors import ApiError
from srlm_local.store.resources import ResourceType

Object = dict[str, Any]
DEFAULT_SECONDS = 1800
BOOKMARK_SECONDS = 60.0
LAST_BOOKMARK = 2.0
"""So long before its end a watch tells once more how far it has come."""


async def watch(request: web.Request, cluster: Cluster, rt: ResourceType, route: Route) -> web.StreamResponse:
    """Streams changes until the time is over or the client goes. A version that is too old is told as an event."""
    query, as_table = request.query, wants_table(request)
    match = cluster.predicate(rt, query.get("labelSelector", ""), query.get("fieldSelector", ""))
    seconds = whole_number(query, "timeoutSeconds") or DEFAULT_SECONDS
    since = query.get("resourceVersion", "")
    if since and not since.isdigit():
        raise ApiError(500, "", f'resourceVersion: Invalid value: "{since}"')
    known_version(cluster.version, since or "0")
    listing = _asks(query, "sendInitialEvents")
    _check(query)
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    stream = _Stream(response, cluster, rt, as_table, query.get("includeObject", ""))
    whole = listing or (since in ("", "0") and "sendInitialEvents" not in query)
    with contextlib.suppress(ConnectionResetError, TimeoutError):
        try:
            async with asyncio.timeout(seconds):
                await _follow(stream, route.namespace or None, match, since, query, seconds, whole=whole)
        except ApiError as error:
            stream.add("ERROR", error.body())
        finally:
            await stream.flush()
    return response


async def _follow(
    stream: _Stream, namespace: str | None, match: Any, since: str, query: Any, seconds: float, *, whole: bool
) -> None:
    storage, rt = stream.cluster.storage, stream.rt
    watcher = storage.watcher(storage.version if whole or not since else int(since))
    told, bookmarks = watcher.version, _asks(query, "allowWatchBookmarks")
    loop = asyncio.get_running_loop()
    last = loop.time() + max(0.0, seconds - LAST_BOOKMARK)
    try:
        if whole:
            for obj in storage.list(rt.name, namespace):
                if match(obj):
                    stream.add("ADDED", obj)
            if bookmarks and _asks(query, "sendInitialEvents"):
                stream.bookmark(told, {"k8s.io/initial-events-end": "true"})
        while True:
            for change in watcher.poll():
                if seen := seen_as(change, rt, namespace, match):
                    stream.add(*seen)
                    told = change.version
            await stream.flush()
            until_bookmark = min(BOOKMARK_SECONDS, last - loop.time()) if bookmarks and loop.time() < last else None
            if not await watcher.wait(until_bookmark) and watcher.version > told:
                told = watcher.version
                stream.bookmark(told)
    finally:
        watcher.close()


def _asks(query: Any, name: str) -> bool:
    return query.get(name, "").lower() in ("true", "1", "t")


def _check(query: Any) -> None:
    """sendInitialEvents and resourceVersionMatch go together. Raises 422."""
    if ("sendInitialEvents" in query) != (query.get("resourceVersionMatch") == "NotOlderThan"):
        error = errors.barred("resourceVersionMatch", "it must be NotOlderThan with sendInitialEvents, else not given")
        raise errors.invalid("ListOptions", "meta.k8s.io", "", [error])


class _Stream:
    """Writes events in the form that was asked for, batched so that a burst is one write."""

    def __init__(
        self, response: web.StreamResponse, cluster: Cluster, rt: ResourceType, as_table: bool, include: str
    ) -> None:
        self.cluster, self.rt = cluster, rt
        self._response, self._as_table, self._include = response, as_table, include
        self._pending: list[bytes] = []
        self._columns_told = False

    def add(self, kind: str, obj: Object) -> None:
        if self._as_table and kind != "ERROR":
            obj = self._table([] if kind == "BOOKMARK" else [obj], obj["metadata"]["resourceVersion"])
        line = json.dumps({"type": kind, "object": obj}, separators=(",", ":"), ensure_ascii=False)
        self._pending.append(line.encode() + b"\n")

    def bookmark(self, version: int, annotations: Object | None = None) -> None:
        meta = {"resourceVersion": str(version), "creationTimestamp": None, "annotations": annotations}
        shown = {k: v for k, v in meta.items() if v is not None or (k == "creationTimestamp" and not self.rt.custom)}
        self.add("BOOKMARK", {"kind": self.rt.kind, "apiVersion": self.rt.api_version, "metadata": shown})

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
