"""Shard lists in their short spelling: `0-3,5`, as Jobs report completed indexes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import islice

_RANGE = re.compile(r"\s*([0-9]{1,9})(?:-([0-9]{1,9}))?\s*")
#: Kubernetes gives an Indexed Job no more.
MAX_COMPLETIONS = 100_000


def parse_ranges(text: str) -> tuple[int, ...]:
    """`0-3,5` → (0, 1, 2, 3, 5). Nonsense gives what was readable, and no more than a Job can have."""
    ranges = (match for part in text.split(",") if (match := _RANGE.fullmatch(part)))
    return tuple(islice((n for m in ranges for n in range(int(m[1]), int(m[2] or m[1]) + 1)), MAX_COMPLETIONS))


def format_ranges(indexes: Iterable[int]) -> str:
    """(0, 1, 2, 3, 5) → `0-3,5`."""
    parts: list[list[int]] = []
    for index in sorted(set(indexes)):
        if parts and parts[-1][1] == index - 1:
            parts[-1][1] = index
        else:
            parts.append([index, index])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)
