"""Watches over HTTP: one JSON object a line, bookmarks, and an end by timeout."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from aiohttp import web

from srlm_contract.schema import FieldError
from srlm_local import errors
from srlm_local.cluster import Cluster
from srlm_local.conversion import outward
from srlm_local.errors import ApiError
from srlm_local.http_read import too_large
from srlm_local.printing import table
from srlm_local.reader import seen_as
from srlm_local.resources import ResourceType
from srlm_local.respond import Accept, partial
from srlm_local.routing import Route

Object = dict[str, Any]
DEFAULT_TIMEOUT = 1800.0
BOOKMARK_EVERY = 60.0
BOOKMARK_BEFORE_END = 2.0


class Stream:
    """Writes events in the form that was asked for, batched so that a burst is one write."""

    def __init__(
        self, cluster: Cluster, rt: ResourceType, response: web.StreamResponse, accept: Accept, include: str
    ) -> None:
        self._cluster, self._rt, self._response, self._accept = cluster, rt, response, accept
        self._include = include
        self._first = True
        self._pending: list[bytes] = []

    def add(self, kind: str, obj: Object) -> None:
        shown = obj
        if kind != "ERROR":
            shown = outward(self._rt, obj)
            if self._accept.form == "Table":
                shown = self._table(kind, shown)
            elif self._accept.partial:
                shown = partial(shown, self._accept.version)
        line = json.dumps({"type": kind, "object": shown}, separators=(",", ":"), ensure_ascii=False)
        self._pending.append(line.encode() + b"\n")

    def _table(self, kind: str, obj: Object) -> Object:
        shown = table(self._cluster, self._rt, [] if kind == "BOOKMARK" else [obj], self._accept.version, self._include)
        shown["metadata"] = {"resourceVersion": obj["metadata"]["resourceVersion"]}
        if not self._first:
            shown["columnDefinitions"] = None
        self._first = False
        return shown

    async def flush(self) -> None:
        if self._pending:
            data, self._pending = b"".join(self._pending), []
            await self._response.write(data)


def _seconds(query: Any) -> float:
    text = query.get("timeoutSeconds", "")
    if not text:
        return DEFAULT_TIMEOUT
    try:
        return float(int(text)) or DEFAULT_TIMEOUT
    except ValueError:
        raise errors.bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None


def _flag(query: Any, name: str) -> bool:
    return query.get(name, "") in ("true", "1", "True", "t", "T")


def _check(query: Any) -> None:
    """sendInitialEvents and resourceVersionMatch go together."""
    initial, match = query.get("sendInitialEvents"), query.get("resourceVersionMatch", "")
    problem = ""
    field = "resourceVersionMatch"
    if initial is not None and match != "NotOlderThan":
        problem = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
    elif initial is None and match:
        problem = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
    elif initial is not None and not _flag(query, "allowWatchBookmarks") and _flag(query, "sendInitialEvents"):
        return
    if problem:
        error = FieldError(field, f"Forbidden: {problem}", "FieldValueForbidden")
        raise errors.invalid("ListOptions", "meta.k8s.io", "", [error])


async def watch(
    request: web.Request, cluster: Cluster, rt: ResourceType, route: Route, accept: Accept
) -> web.StreamResponse:
    query = request.query
    _check(query)
    fields = query.get("fieldSelector", "")
    if route.name:
        fields = ",".join(filter(None, (fields, f"metadata.name={route.name}")))
    match = cluster.predicate(rt, query.get("labelSelector", ""), fields)
    loop = asyncio.get_running_loop()
    end = loop.time() + _seconds(query)
    text = query.get("resourceVersion", "")
    storage = cluster.storage
    if text and not text.isdigit():
        why = f'resourceVersion: Invalid value: "{text}": strconv.ParseUint: parsing "{text}": invalid syntax'
        raise ApiError(500, "", why)
    asked = int(text or 0)
    if asked > storage.version:
        raise too_large(asked, storage.version)
    initial = _flag(query, "sendInitialEvents") or (asked == 0 and query.get("sendInitialEvents") is None)
    bookmarks = _flag(query, "allowWatchBookmarks")
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Cache-Control": "no-cache, private"})
    stream = Stream(cluster, rt, response, accept, query.get("includeObject", "Metadata"))
    namespace = route.namespace or None
    try:
        watcher = storage.watcher(storage.version if asked == 0 or initial else asked)
    except ApiError as error:
        # The answer to a version that is too old comes as an event of a watch that began well.
        await response.prepare(request)
        stream.add("ERROR", error.body())
        await stream.flush()
        return response
    told = watcher.version if asked == 0 or initial else asked
    try:
        await response.prepare(request)
        if initial:
            for obj in storage.list(rt.storage, namespace):
                if match(obj):
                    stream.add("ADDED", obj)
            if bookmarks and _flag(query, "sendInitialEvents"):
                stream.add("BOOKMARK", _bookmark(rt, told, {"k8s.io/initial-events-end": "true"}))
            await stream.flush()
        next_bookmark = min(loop.time() + BOOKMARK_EVERY, max(loop.time(), end - BOOKMARK_BEFORE_END))
        while (now := loop.time()) < end:
            for change in watcher.poll():
                if seen := seen_as(change, rt, namespace, match):
                    stream.add(*seen)
                    told = change.version
            if bookmarks and now >= next_bookmark:
                if watcher.version > told:
                    told = watcher.version
                    stream.add("BOOKMARK", _bookmark(rt, told, None))
                next_bookmark = now + BOOKMARK_EVERY if now + BOOKMARK_EVERY < end else end
            await stream.flush()
            wake = min(end, next_bookmark) if bookmarks else end
            await watcher.wait(max(0.0, wake - loop.time()))
    except ApiError as error:
        stream.add("ERROR", error.body())
        await stream.flush()
    except ConnectionResetError:
        return response
    finally:
        watcher.close()
    return response


def _bookmark(rt: ResourceType, version: int, annotations: Object | None) -> Object:
    meta: Object = {"resourceVersion": str(version), **({"annotations": annotations} if annotations else {})}
    if not rt.custom:
        meta["creationTimestamp"] = None
    return {"kind": rt.kind, "apiVersion": rt.api_version, "metadata": meta}
