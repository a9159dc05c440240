"""Label and field selectors."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from srlm_local import names
from srlm_local.errors import bad_request

Object = dict[str, Any]
Predicate = Callable[[Object], bool]

_REQUIREMENT = re.compile(
    r"""\s*(?:
      (?P<not>!)\s*(?P<absent>[^\s,=!()<>]+)
    | (?P<key>[^\s,=!()<>]+)\s*(?:(?P<op>==|=|!=|>|<)\s*(?P<value>[^\s,()=!<>]*)
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
        if match is None:
            raise bad_request(_unparsable(text[position:].strip()))
        if problems := names.qualified_name(match["absent"] or match["key"]):
            key = match["absent"] or match["key"]
            why = problems[0].replace("a qualified name", "a valid label key")
            raise bad_request(f'unable to parse requirement: <nil>: Invalid value: "{key}": {why}')
        tests.append(_label_test(match))
        position = match.end()
    return lambda obj: all(test(obj["metadata"].get("labels") or {}) for test in tests)


def _unparsable(rest: str) -> str:
    if match := re.match(r"\S+\s+(?:not)?in\s+([^\s(]\S*)", rest):
        return f"unable to parse requirement: found '{match[1]}' expected: '('"
    if rest[:1] in "=!<>(),":
        return f"found '{rest[0]}', expected: !, identifier, or 'end of string'"
    return f"unable to parse requirement: found '{rest}', expected: in, notin, =, ==, !=, gt, lt"


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
    if op in (">", "<"):
        return lambda labels: _compare(labels.get(key), op, value)
    return lambda labels: key in labels


def _compare(have: str | None, op: str, value: str) -> bool:
    try:
        return have is not None and (int(have) > int(value) if op == ">" else int(have) < int(value))
    except ValueError:
        return False


def label_selector_object(selector: dict[str, Any] | None) -> Predicate:
    """A metav1.LabelSelector (matchLabels, matchExpressions) as a predicate over objects."""
    labels = (selector or {}).get("matchLabels") or {}
    expressions = (selector or {}).get("matchExpressions") or []

    def matches(obj: Object) -> bool:
        have = obj["metadata"].get("labels") or {}
        return all(have.get(k) == v for k, v in labels.items()) and all(_expression(have, e) for e in expressions)

    return matches


def _expression(have: dict[str, str], expression: dict[str, Any]) -> bool:
    key, operator, values = expression["key"], expression["operator"], expression.get("values") or []
    match operator:
        case "In":
            return have.get(key) in values
        case "NotIn":
            return have.get(key) not in values
        case "Exists":
            return key in have
        case _:
            return key not in have


# Which fields may be selected, by resource; metadata.name and metadata.namespace always may.
_FIELDS: dict[str, tuple[str, ...]] = {
    "pods": (
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.nominatedNodeName",
    ),
    "jobs.batch": ("status.successful",),
    "namespaces": ("status.phase",),
    "nodes": ("spec.unschedulable",),
    "secrets": ("type",),
    "events": (
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source",
        "type",
    ),
    "events.events.k8s.io": (
        "regarding.kind",
        "regarding.namespace",
        "regarding.name",
        "regarding.uid",
        "regarding.apiVersion",
        "regarding.resourceVersion",
        "regarding.fieldPath",
        "reason",
        "reportingController",
        "type",
    ),
}
_ALIASES = {"reportingController": "reportingComponent", "regarding": "involvedObject"}


def field_selector(text: str, resource: str, extra: tuple[str, ...] = ()) -> Predicate:
    """`metadata.name=a,status.phase!=Running`. Raises 400 for a field that cannot be selected.

    extra: the selectableFields of a CustomResourceDefinition, as `spec.color`.
    """
    tests: list[tuple[str, bool, str]] = []
    allowed = ("metadata.name", "metadata.namespace", *_FIELDS.get(resource, ()), *extra)
    for part in filter(None, (p.strip() for p in text.split(","))):
        match = re.fullmatch(r"([^=!]+)(==|!=|=)(.*)", part)
        if match is None:
            raise bad_request(f"invalid selector: '{text}'; can't understand '{part}'")
        path, op, value = match[1].strip(), match[2], match[3]
        if path not in allowed:
            raise bad_request(_unsupported(path, resource))
        head, _, tail = path.partition(".")
        tests.append((f"{_ALIASES.get(head, head)}.{tail}" if tail else _ALIASES.get(head, head), op != "!=", value))
    return lambda obj: all((_field(obj, path) == value) is equal for path, equal, value in tests)


def _unsupported(path: str, resource: str) -> str:
    if resource == "jobs.batch":
        return f'field label "{path}" not supported for Job'
    return f"field label not supported: {path}"


def _field(obj: Object, path: str) -> str:
    if path == "status.successful":
        return str((obj.get("status") or {}).get("succeeded", 0))
    if path == "source":
        return str((obj.get("source") or {}).get("component") or obj.get("reportingComponent") or "")
    node: Any = obj
    for part in path.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    if isinstance(node, bool):
        return "true" if node else "false"
    return "" if node is None else str(node)


def both(first: Predicate | None, second: Predicate | None) -> Predicate:
    """Conjunction of two optional predicates."""
    tests = [test for test in (first, second) if test is not None]
    return lambda obj: all(test(obj) for test in tests)
