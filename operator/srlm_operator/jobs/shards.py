"""Shard lists in their short spelling: `0-3,5`, as Jobs report completed indexes."""

from __future__ import annotations

from collections.abc import Iterable


def parse_ranges(text: str) -> tuple[int, ...]:
    """`0-3,5` → (0, 1, 2, 3, 5). Nonsense gives what was readable."""
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if first.isdigit() and (not last or last.isdigit()):
            found.extend(range(int(first), int(last or first) + 1))
    return tuple(found)


def format_ranges(indexes: Iterable[int]) -> str:
    """(0, 1, 2, 3, 5) → `0-3,5`."""
    parts: list[list[int]] = []
    for index in sorted(set(indexes)):
        if parts and parts[-1][1] == index - 1:
            parts[-1][1] = index
        else:
            parts.append([index, index])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)
