"""From a URL to what is asked: resource, namespace, name, subresource and verb."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Route:
    """A parsed path below /api or /apis that names a resource. `verb` is the RBAC verb."""

    group: str
    version: str
    plural: str
    namespace: str
    name: str
    subresource: str
    verb: str


_VERBS = {"GET": "get", "HEAD": "get", "PUT": "update", "PATCH": "patch", "POST": "create", "DELETE": "delete"}


def parse(method: str, path: str, watch: bool) -> Route | None:
    """None if the path names no resource (discovery, health, nothing)."""
    match [part for part in path.split("/") if part]:
        case ["api", version, *rest] if rest:
            group = ""
        case ["apis", group, version, *rest] if rest:
            pass
        case _:
            return None
    namespace = ""
    if rest[0] == "namespaces" and not group and len(rest) > 1:
        namespace = rest[1]
    if rest[0] == "namespaces" and len(rest) >= 3 and rest[2] != "status":
        namespace, rest = rest[1], rest[2:]
    name = rest[1] if len(rest) > 1 else ""
    verb = _VERBS.get(method, method.lower())
    if not name:
        verb = {"get": "watch" if watch else "list", "delete": "deletecollection"}.get(verb, verb)
    return Route(group, version, rest[0], namespace, name, "/".join(rest[2:]), verb)
