"""Answers: objects and errors as JSON, with Warning headers."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from aiohttp import web

from srlm_local.store.errors import ApiError

Object = dict[str, Any]


def wants_table(request: web.Request) -> bool:
    """Whether the client, which is kubectl then, would rather have a Table. Raises 406 for one that takes no JSON."""
    for alternative in (request.headers.get("Accept") or "*/*").split(","):
        kind, *parameters = [part.strip() for part in alternative.split(";")]
        if kind in ("application/json", "application/*", "*/*"):
            return "as=Table" in parameters
    raise ApiError(406, "NotAcceptable", "only JSON is served: application/json")


def answer(body: Any, status: int = 200, *, warnings: Iterable[str] = ()) -> web.Response:
    """A finished response; `warnings` become Warning headers."""
    text = json.dumps(body, separators=(",", ":"), ensure_ascii=False) + "\n"
    response = web.Response(body=text.encode(), status=status, content_type="application/json")
    for message in warnings:
        escaped = message.replace("\\", "\\\\").replace('"', '\\"')
        response.headers.add("Warning", f'299 - "{escaped}"')
    return response


def error_answer(error: ApiError) -> web.Response:
    response = answer(error.body(), error.code)
    if retry := (error.details or {}).get("retryAfterSeconds"):
        response.headers["Retry-After"] = str(retry)
    return response


def nowhere() -> web.Response:
    return web.Response(status=404, text="404 page not found\n")
