"""Answers: objects and errors as JSON or YAML, Warning headers, and the forms in which a client may want objects."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import yaml
from aiohttp import web

from srlm_local.store.errors import ApiError

Object = dict[str, Any]


class Accept:
    """The first acceptable alternative of an Accept header.

    form: "" for the objects themselves, "Table", "PartialObjectMetadata" or "PartialObjectMetadataList".
    """

    def __init__(self, request: web.Request) -> None:
        for alternative in (request.headers.get("Accept") or "*/*").split(","):
            kind, *parameters = [part.strip() for part in alternative.split(";")]
            if kind in ("application/json", "application/*", "*/*", "application/yaml"):
                self.yaml = kind == "application/yaml"
                self.form = dict(p.split("=", 1) for p in parameters if "=" in p).get("as", "")
                return
        raise ApiError(406, "NotAcceptable", "only JSON and YAML are served: application/json, application/yaml")

    @property
    def partial(self) -> bool:
        return self.form.startswith("PartialObjectMetadata")


def answer(body: Any, status: int = 200, *, as_yaml: bool = False, warnings: Iterable[str] = ()) -> web.Response:
    """A finished response; `warnings` become Warning headers."""
    if as_yaml:
        text, kind = yaml.safe_dump(body, sort_keys=False), "application/yaml"
    else:
        text, kind = json.dumps(body, separators=(",", ":"), ensure_ascii=False) + "\n", "application/json"
    response = web.Response(body=text.encode(), status=status, headers={"Content-Type": kind})
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


def partial(obj: Object) -> Object:
    """Only the metadata of an object."""
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}
