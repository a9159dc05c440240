"""Small helpers for JSON values."""

from __future__ import annotations

import json
from typing import Any, TypeVar, cast

T = TypeVar("T")
_PLAIN = frozenset({str, int, float, bool, type(None)})


def copy(value: T) -> T:
    """A deep copy of a JSON value; many times faster than copy.deepcopy."""
    return cast(T, _copy(value))


def _copy(value: Any) -> Any:
    # Most values are plain: not calling itself for them halves the time, and the API server copies a lot.
    if isinstance(value, dict):
        return {key: item if item.__class__ in _PLAIN else _copy(item) for key, item in value.items()}
    if isinstance(value, list):
        return [item if item.__class__ in _PLAIN else _copy(item) for item in value]
    return value


def dig(value: Any, *path: str | int) -> Any:
    """The value at a path, or None if anything on the way is missing."""
    for part in path:
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
        else:
            return None
    return value


def go_json(value: Any) -> str:
    """Compact JSON as Go writes it, with <, > and & escaped."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def go_quote(value: str) -> str:
    """A string as Go's %q prints it."""
    return json.dumps(value, ensure_ascii=False)
