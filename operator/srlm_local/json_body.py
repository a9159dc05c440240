"""Reading JSON as the API server does: it notices fields that are given twice."""

from __future__ import annotations

import json
from typing import Any

_SEEN_TWICE = "\x00twice"


def parse_json(text: str) -> Any:
    """As json.loads (the last of two equal keys wins), but keeps a note of duplicates for `duplicates`.

    Raises ValueError for what is no JSON, and for NaN and infinities.
    """
    return json.loads(text, object_pairs_hook=_pairs, parse_constant=_no_constant, parse_float=_number)


def _number(text: str) -> float | int:
    """Whole numbers lose their fraction, as they do on their way through the real server."""
    value = float(text)
    return int(value) if value.is_integer() and abs(value) < 1e15 else value


def _no_constant(name: str) -> Any:
    raise ValueError(f"invalid character '{name[0]}' looking for beginning of value")


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        names = [name for name, _ in pairs]
        result[_SEEN_TWICE] = sorted({name for name in names if names.count(name) > 1})
    return result


def duplicates(value: Any, path: str = "") -> list[str]:
    """Paths of fields given twice, as `spec.size`; removes the notes that `parse_json` left."""
    found: list[str] = []
    if isinstance(value, dict):
        found += [f"{path}.{name}" if path else name for name in value.pop(_SEEN_TWICE, [])]
        for key, item in value.items():
            found += duplicates(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            found += duplicates(item, f"{path}[{index}]")
    return found
