"""GET: one object, lists with selectors, pages and versions, and the forms they can take."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from srlm_contract.schema import FieldError
from srlm_local import errors
from srlm_local.cluster import Cluster
from srlm_local.conversion import outward
from srlm_local.errors import ApiError
from srlm_local.printing import table
from srlm_local.resources import ResourceType
from srlm_local.respond import Accept, answer, partial
from srlm_local.routing import Route

Object = dict[str, Any]
STALE = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without "
    "the continue parameter, or use the continue token in this response to retrieve the remainder of the results. "
    "Continuing with the provided token results in an inconsistent list - objects that were created, modified, or "
    "deleted between the time the first chunk was returned and now may show up in the list."
)


@dataclass(frozen=True)
class ListOptions:
    """The query of a list, checked."""

    labels: str
    fields: str
    version: str
    match: str
    limit: int
    token: str

    @classmethod
    def of(cls, query: Any) -> ListOptions:
        limit = query.get("limit", "")
        try:
            number = int(limit or 0)
        except ValueError:
            raise errors.bad_request(f'strconv.ParseInt: parsing "{limit}": invalid syntax') from None
        return cls(
            query.get("labelSelector", ""),
            query.get("fieldSelector", ""),
            query.get("resourceVersion", ""),
            query.get("resourceVersionMatch", ""),
            number,
            query.get("continue", ""),
        )

    def check(self) -> None:
        problem = ""
        reason = "Forbidden"
        if self.match and self.token:
            problem = "resourceVersionMatch is forbidden when continue is provided"
        elif self.match and not self.version:
            problem = "resourceVersionMatch is forbidden unless resourceVersion is provided"
        elif self.match == "Exact" and self.version == "0":
            problem = 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"'
        elif self.match not in ("", "Exact", "NotOlderThan"):
            reason = "NotSupported"
            problem = f'"{self.match}": supported values: "Exact", "NotOlderThan", ""'
        if problem:
            prefix = "Forbidden" if reason == "Forbidden" else "Unsupported value"
            error = FieldError("resourceVersionMatch", f"{prefix}: {problem}", f"FieldValue{reason}")
            raise errors.invalid("ListOptions", "meta.k8s.io", "", [error])
        if self.token and self.version not in ("", "0"):
            raise errors.bad_request("specifying resource version is not allowed when using continue")


def parse_version(text: str) -> int:
    """A resourceVersion of a query. Raises what the real server answers for a bad one."""
    if not text.isdigit():
        error = FieldError(
            "resourceVersion",
            f'Invalid value: "{text}": strconv.ParseUint: parsing "{text}": invalid syntax',
            "FieldValueInvalid",
        )
        raise errors.invalid("ListOptions", "meta.k8s.io", "", [error])
    return int(text)


def too_large(asked: int, current: int) -> errors.ApiError:
    """504: the client has seen the future (it talked to another or a restored server)."""
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    return errors.ApiError(
        504,
        "Timeout",
        f"Timeout: Too large resource version: {asked}, current: {current}",
        {"causes": [cause], "retryAfterSeconds": 1},
    )


def read_one(cluster: Cluster, rt: ResourceType, route: Route, query: Any, accept: Accept) -> web.Response:
    obj = outward(rt, cluster.get(rt, route.name, route.namespace))
    if accept.form == "Table":
        body = table(cluster, rt, [obj], accept.version, query.get("includeObject", "Metadata"))
        body["metadata"] = {"resourceVersion": obj["metadata"]["resourceVersion"]}
        return answer(body, as_yaml=accept.yaml)
    return answer(partial(obj, accept.version) if accept.partial else obj, as_yaml=accept.yaml)


def read_list(cluster: Cluster, rt: ResourceType, route: Route, query: Any, accept: Accept) -> web.Response:
    options = ListOptions.of(query)
    options.check()
    items, meta = select(cluster, rt, route, options)
    if accept.form == "Table":
        body = table(cluster, rt, items, accept.version, query.get("includeObject", "Metadata"))
        body["metadata"] = meta
        return answer(body, as_yaml=accept.yaml)
    return answer(as_list(rt, items, meta, accept), as_yaml=accept.yaml)


def as_list(rt: ResourceType, items: list[Object], meta: Object, accept: Accept) -> Object:
    """The list object: items of built-in kinds come without kind and apiVersion."""
    if accept.partial:
        return {
            "kind": "PartialObjectMetadataList",
            "apiVersion": f"meta.k8s.io/{accept.version}",
            "metadata": meta,
            "items": [partial(item, accept.version) for item in items],
        }
    if rt.custom:
        meta = {"continue": "", **meta}
    else:
        items = [{k: v for k, v in item.items() if k not in ("kind", "apiVersion")} for item in items]
    return {"kind": rt.list_kind or f"{rt.kind}List", "apiVersion": rt.api_version, "metadata": meta, "items": items}


def select(cluster: Cluster, rt: ResourceType, route: Route, options: ListOptions) -> tuple[list[Object], Object]:
    """The objects that are asked for and the list's metadata."""
    match = cluster.predicate(rt, options.labels, options.fields)
    storage, namespace = cluster.storage, route.namespace or None
    start = ""
    if options.token:
        version, start = _token(options.token)
        try:
            found = storage.list_at(rt.storage, namespace, version)
        except ApiError:
            raise _stale_token(storage.version, start) from None
    elif options.version and options.match == "Exact":
        version = parse_version(options.version)
        if version > storage.version:
            raise too_large(version, storage.version)
        try:
            found = storage.list_at(rt.storage, namespace, version)
        except ApiError:
            raise errors.expired("The resourceVersion for the provided list is too old.") from None
    else:
        version = storage.version
        if options.version and (asked := parse_version(options.version)) > version:
            raise too_large(asked, version)
        found = storage.list(rt.storage, namespace)
    found = [obj for obj in found if not start or _key(obj) >= start]
    chosen = [obj for obj in found if match(obj)]
    meta: Object = {"resourceVersion": str(version)}
    if options.limit and len(chosen) > options.limit:
        last = chosen[options.limit - 1]
        meta["continue"] = _make_token(version, _key(last) + "\u0000")
        if not options.labels and not options.fields:
            meta["remainingItemCount"] = len(chosen) - options.limit
        chosen = chosen[: options.limit]
    return [outward(rt, obj) for obj in chosen], meta


def _key(obj: Object) -> str:
    meta = obj["metadata"]
    return f"{meta.get('namespace', '')}/{meta['name']}"


def _make_token(version: int, start: str) -> str:
    token = {"v": "meta.k8s.io/v1", "rv": version, "start": start}
    return base64.urlsafe_b64encode(json.dumps(token, separators=(",", ":")).encode()).decode().rstrip("=")


def _stale_token(version: int, start: str) -> ApiError:
    """410 with a token to go on with, at the price of consistency."""
    error = errors.expired(STALE)
    error.list_meta = {"continue": _make_token(version, start)}
    return error


def _token(text: str) -> tuple[int, str]:
    """(version, first key). Raises 400 for anything that is no token of ours."""
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        token = json.loads(raw)
        return int(token["rv"]), str(token["start"])
    except (binascii.Error, ValueError, KeyError, TypeError) as error:
        raise errors.bad_request(f"invalid continue token: continue key is not valid: {error}") from None
