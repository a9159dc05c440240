"""Lists of completion indexes as Jobs write them: `0,1,4-6`. Pure."""

from __future__ import annotations

from collections.abc import Iterable


def parse(text: str | None) -> set[int]:
    """The indexes in a list like `0,1,4-6`."""
    found: set[int] = set()
    for part in (text or "").split(","):
        if part:
            first, _, last = part.partition("-")
            found.update(range(int(first), int(last or first) + 1))
    return found


def render(indexes: Iterable[int]) -> str:
    """The shortest list: runs of three and more with a dash, two neighbours with a comma."""
    runs: list[list[int]] = []
    for index in sorted(indexes):
        if runs and index == runs[-1][-1] + 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    parts = []
    for run in runs:
        parts.append(f"{run[0]}-{run[-1]}" if len(run) > 2 else ",".join(map(str, run)))
    return ",".join(parts)
