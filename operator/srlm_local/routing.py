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

    @property
    def collection(self) -> bool:
        return not self.name


_VERBS = {"GET": "get", "HEAD": "get", "PUT": "update", "PATCH": "patch", "POST": "create", "DELETE": "delete"}


def parse(method: str, path: str, watch: bool) -> Route | None:
    """None if the path names no resource (discovery, health, nothing)."""
    parts = [part for part in path.split("/") if part]
    if parts[:1] == ["api"] and len(parts) >= 3:
        group, version, rest = "", parts[1], parts[2:]
    elif parts[:1] == ["apis"] and len(parts) >= 4:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return None
    watch_prefix = rest[0] == "watch" and len(rest) > 1
    if watch_prefix:
        rest, watch = rest[1:], True
    namespace = ""
    if rest[0] == "namespaces" and len(rest) >= 3 and rest[2] not in ("status", "finalize"):
        namespace, rest = rest[1], rest[2:]
    elif rest[0] == "namespaces" and len(rest) >= 2 and not group:
        namespace = rest[1]
    plural = rest[0]
    name = rest[1] if len(rest) > 1 else ""
    subresource = "/".join(rest[2:])
    verb = _VERBS.get(method, method.lower())
    if verb == "get" and watch and (not name or watch_prefix):
        verb = "watch"
    elif verb == "get" and not name:
        verb = "list"
    elif verb == "delete" and not name:
        verb = "deletecollection"
    return Route(group, version, plural, namespace, name, subresource, verb)
