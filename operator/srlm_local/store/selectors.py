"""Label and field selectors."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from srlm_local.store import names
from srlm_local.store.errors import bad_request
from srlm_local.store.values import dig

Object = dict[str, Any]
Predicate = Callable[[Object], bool]

_REQUIREMENT = re.compile(
    r"""\s*(?:
      (?P<not>!)\s*(?P<absent>[^\s,=!()<>]+)
    | (?P<key>[^\s,=!()<>]+)\s*(?:(?P<op>==|=|!=)\s*(?P<value>[^\s,()=!<>]*)
        | \s(?P<set>in|notin)\s*\((?P<values>[^()]*)\))?
    )\s*(?:,|$)""",
    re.VERBOSE,
)


def label_selector(text: str) -> Predicate:
    """`a=b,c!=d,e in (f,g),h,!i` as a predicate over objects. Raises 400 if it is none."""
    tests: list[Callable[[dict[str, str]], bool]] = []
    position = 0
    while position < len(text):
        match = _REQUIREMENT.match(text, position)
        if match is None or names.qualified_name(match["absent"] or match["key"]):
            raise bad_request(f"unable to parse requirement: {text[position:].strip()!r}")
        tests.append(_label_test(match))
        position = match.end()
    return lambda obj: all(test(obj["metadata"].get("labels") or {}) for test in tests)


def _label_test(match: re.Match[str]) -> Callable[[dict[str, str]], bool]:
    if (absent := match["absent"]) is not None:
        return lambda labels: absent not in labels
    key, op, value = match["key"], match["op"], match["value"]
    if match["set"]:
        values = {part.strip() for part in match["values"].split(",")}
        if match["set"] == "in":
            return lambda labels: labels.get(key) in values
        return lambda labels: labels.get(key) not in values
    if op in ("=", "=="):
        return lambda labels: labels.get(key) == value
    if op == "!=":
        return lambda labels: labels.get(key) != value
    return lambda labels: key in labels


#: Which fields may be selected, by resource; metadata.name and metadata.namespace always may.
_FIELDS: dict[str, tuple[str, ...]] = {
    "pods": ("spec.nodeName", "spec.restartPolicy", "status.phase"),
    "events": (*(f"involvedObject.{key}" for key in ("kind", "namespace", "name", "uid")), "reason", "type"),
}


def field_selector(text: str, resource: str) -> Predicate:
    """`metadata.name=a,status.phase!=Running`. Raises 400 for a field that cannot be selected."""
    tests: list[tuple[str, bool, str]] = []
    allowed = ("metadata.name", "metadata.namespace", *_FIELDS.get(resource, ()))
    for part in filter(None, (p.strip() for p in text.split(","))):
        match = re.fullmatch(r"([^=!]+)(==|!=|=)(.*)", part)
        if match is None:
            raise bad_request(f"invalid selector: '{text}'; can't understand '{part}'")
        path, op, value = match[1].strip(), match[2], match[3]
        if path not in allowed:
            raise bad_request(f"field label not supported: {path}")
        tests.append((path, op != "!=", value))
    return lambda obj: all(((dig(obj, *path.split(".")) or "") == value) is equal for path, equal, value in tests)
