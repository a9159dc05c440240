"""JSON values and Kubernetes quantities."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any, TypeVar, cast

T = TypeVar("T")
_PLAIN = frozenset({str, int, float, bool, type(None)})
_QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))([eE][+-]?\d+|[numkMGTPE]|[KMGTPE]i)?")
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}


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


def dig(value: Any, *path: str) -> Any:
    """The value at a path of keys, or None if anything on the way is missing."""
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def compact(value: Any) -> str:
    """JSON without spaces, as messages quote values."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def parse_quantity(text: object) -> Decimal | None:
    """The number that a quantity such as `500m`, `1Gi` or `2e3` stands for; None if it is none."""
    match = _QUANTITY.fullmatch(str(text))
    if match is None:
        return None
    number, suffix = Decimal(match[1]), match[2] or ""
    if suffix in _BINARY:
        return number * Decimal(2 ** _BINARY[suffix])
    if suffix in _DECIMAL:
        return number.scaleb(_DECIMAL[suffix])
    return number.scaleb(int(suffix[1:]))
