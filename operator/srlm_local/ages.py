"""Durations as kubectl shows them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from srlm_local.clock import parse_time


def duration(seconds: float) -> str:
    """`45s`, `3m20s`, `17m`, `5h3m`, `2d4h`, `400d`, `3y`."""
    s = int(seconds)
    if s < 0:
        return "0s" if s > -2 else "<invalid>"
    minutes, hours, days = s // 60, s // 3600, s // 86400
    if s < 120:
        return f"{s}s"
    if minutes < 10:
        return _two(minutes, "m", s % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return _two(days, "d", hours % 24, "h")
    if days < 730:
        return f"{days}d"
    if days < 365 * 8:
        return _two(days // 365, "y", days % 365, "d")
    return f"{days // 365}y"


def _two(large: int, unit: str, small: int, small_unit: str) -> str:
    return f"{large}{unit}{small}{small_unit}" if small else f"{large}{unit}"


def age(moment: Any, now: datetime) -> str:
    """How long ago a time was; `<unknown>` if it is none."""
    try:
        return duration((now - parse_time(moment)).total_seconds())
    except (TypeError, ValueError, AttributeError):
        return "<unknown>"
