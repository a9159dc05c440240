"""A line of rank 0 for every step, with its figures: the entry sends them to trackers, the workers have no secrets."""

from __future__ import annotations

import json
from collections.abc import Mapping

MARK = "STEP "


def line_of(row: Mapping[str, float]) -> str:
    return MARK + json.dumps(row)


def row_of(line: str) -> dict[str, float] | None:
    """The figures of a step; None for any other line."""
    if not line.startswith(MARK + "{"):
        return None
    try:
        row = json.loads(line.removeprefix(MARK))
    except ValueError:
        return None
    return row if isinstance(row, dict) and "step" in row else None
