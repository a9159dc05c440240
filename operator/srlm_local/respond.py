"""Answers: JSON or YAML, errors as Status, Warning headers, and the forms of metadata-only objects."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import yaml
from aiohttp import web

from srlm_local.errors import ApiError

Object = dict[str, Any]
PROTOBUF = "application/vnd.kubernetes.protobuf"
SUPPORTED = f"application/json, application/yaml, {PROTOBUF}"


class Accept:
    """The first acceptable alternative of an Accept header.

    form: "" for the objects themselves, "Table", "PartialObjectMetadata" or "PartialObjectMetadataList";
    version: of the form's API group; yaml: whether YAML is wanted.
    """

    def __init__(self, header: str) -> None:
        self.form, self.version, self.yaml, self.group = "", "v1", False, ""
        for alternative in header.split(",") if header else ["application/json"]:
            kind, *parameters = [part.strip() for part in alternative.split(";")]
            given = dict(p.split("=", 1) for p in parameters if "=" in p)
            if kind in ("application/json", "application/*", "*/*", "application/yaml"):
                self.yaml = kind == "application/yaml"
                self.form, self.version, self.group = given.get("as", ""), given.get("v", "v1"), given.get("g", "")
                return
        raise ApiError(406, "NotAcceptable", f"only the following media types are accepted: {SUPPORTED}", None)

    @property
    def partial(self) -> bool:
        return self.form.startswith("PartialObjectMetadata")


def accept_of(request: web.Request) -> Accept:
    return Accept(request.headers.get("Accept", ""))


def warning_header(message: str) -> str:
    escaped = message.replace("\\", "\\\\").replace('"', '\\"')
    return f'299 - "{escaped}"'


def answer(
    body: Any, status: int = 200, *, as_yaml: bool = False, warnings: Iterable[str] = (), content_type: str = ""
) -> web.Response:
    """A finished response; `warnings` become Warning headers."""
    if as_yaml:
        text, kind = yaml.safe_dump(body, sort_keys=False), "application/yaml"
    else:
        text, kind = json.dumps(body, separators=(",", ":"), ensure_ascii=False) + "\n", "application/json"
    response = web.Response(body=text.encode(), status=status)
    response.headers["Content-Type"] = content_type or kind
    for message in warnings:
        response.headers.add("Warning", warning_header(message))
    return response


def error_answer(error: ApiError, warnings: Iterable[str] = ()) -> web.Response:
    response = answer(error.body(), error.code, warnings=warnings)
    retry = (error.details or {}).get("retryAfterSeconds")
    if retry:
        response.headers["Retry-After"] = str(retry)
    return response


def partial(obj: Object, version: str = "v1") -> Object:
    """Only the metadata of an object, as PartialObjectMetadata."""
    return {
        "kind": "PartialObjectMetadata",
        "apiVersion": f"meta.k8s.io/{version}",
        "metadata": obj.get("metadata", {}),
    }
