"""The JSONPath of printer columns: `.a.b`, `.a[0]`, `.a[*].b`, `.conditions[?(@.type=="Ready")].status`."""

from __future__ import annotations

import json
import re
from typing import Any

_STEP = re.compile(
    r"""\.?\[\?\(\s*@\.(?P<filter>[\w.\-]+)\s*==\s*(?P<literal>"[^"]*"|'[^']*'|[\w.\-]+)\s*\)\]
      | \.?\[(?P<index>-?\d+|\*)\]
      | \.?\[(?P<quote>['"])(?P<quoted>.*?)(?P=quote)\]
      | \.(?P<name>(?:\\.|[^.\[\\])+)""",
    re.VERBOSE,
)


def find(path: str, value: Any) -> list[Any]:
    """All values at the path, in order; none if something on the way is missing."""
    found = [value]
    position = 0
    text = path.strip().removeprefix("{").removesuffix("}").removeprefix("$")
    while position < len(text):
        step = _STEP.match(text, position)
        if step is None:
            return []
        found = [item for node in found for item in _take(step, node)]
        position = step.end()
    return found


def _take(step: re.Match[str], node: Any) -> list[Any]:
    if step["filter"]:
        literal = step["literal"].strip("'\"")
        keys = step["filter"].split(".")
        return [item for item in node if _text(_dig(item, keys)) == literal] if isinstance(node, list) else []
    if step["index"] == "*":
        return list(node) if isinstance(node, list) else list(node.values()) if isinstance(node, dict) else []
    if step["index"]:
        index = int(step["index"])
        return [node[index]] if isinstance(node, list) and -len(node) <= index < len(node) else []
    name = step["quoted"] if step["quoted"] is not None else re.sub(r"\\(.)", r"\1", step["name"])
    return [node[name]] if isinstance(node, dict) and name in node else []


def _dig(value: Any, keys: list[str]) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
