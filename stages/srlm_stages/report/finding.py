"""One finding of the report: a statement in words with the numbers behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One statement, worst kind first."""

    level: Level
    title: str
    figures: str
    """The numbers behind it, and what to do."""
