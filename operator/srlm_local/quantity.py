"""Kubernetes quantities: `500m`, `1Gi`, `2e3`."""

from __future__ import annotations

import re
from decimal import Decimal

_QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))([eE][+-]?\d+|[numkMGTPE]|[KMGTPE]i)?")
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}


def parse_quantity(text: object) -> Decimal | None:
    """The number a quantity stands for; None if it is none."""
    match = _QUANTITY.fullmatch(str(text))
    if match is None:
        return None
    number, suffix = Decimal(match[1]), match[2] or ""
    if suffix in _BINARY:
        return number * Decimal(2 ** _BINARY[suffix])
    if suffix in _DECIMAL:
        return number.scaleb(_DECIMAL[suffix])
    return number.scaleb(int(suffix[1:]))


def format_like(value: Decimal, sample: str = "") -> str:
    """A whole or fractional number as a plain decimal quantity, in thousandths if it is no whole number."""
    if value == value.to_integral_value():
        return str(int(value))
    return f"{int(value.scaleb(3).to_integral_value())}m"
