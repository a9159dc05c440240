"""Progress lines: one line of a stage's log that people read and the operator parses.

`PROGRESS judge rows=4120/12000 unit=verdicts tok/s=3900 eta=1260` or
`PROGRESS train rows=12/40 unit=steps tok/s=310 eta=95 loss=0.6931`. Before the first row it says what is being done:
`PROGRESS judge rows=0/12000 unit=verdicts doing=starting_vLLM`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from pydantic import Field

from .base import Contract

_FIELD = re.compile(r"([a-z/]+)=(\S+)")
_MARK = "PROGRESS "


class Progress(Contract):
    """How far a pod has come."""

    stage: str
    """Stage name."""
    done: int = Field(ge=0)
    """Rows (or steps) done."""
    total: int = Field(ge=0)
    """Rows (or steps) in all; 0 while unknown."""
    unit: str = "rows"
    """What is counted."""
    tokens_per_second: float | None = None
    """Tokens per second since the first row was begun."""
    eta_seconds: int | None = None
    """Estimated seconds left; absent before the first row and after the last."""
    loss: float | None = None
    """Training loss of the last step."""
    activity: str = ""
    """What is being done before the first row, such as `starting vLLM`."""


def format_progress(progress: Progress) -> str:
    """One log line."""
    parts = [f"{_MARK}{progress.stage}", f"rows={progress.done}/{progress.total}", f"unit={progress.unit}"]
    if progress.tokens_per_second is not None:
        parts.append(f"tok/s={progress.tokens_per_second:.0f}")
    if progress.eta_seconds is not None:
        parts.append(f"eta={progress.eta_seconds}")
    if progress.loss is not None:
        parts.append(f"loss={progress.loss:.4f}")
    if progress.activity:
        parts.append(f"doing={'_'.join(progress.activity.split())}")
    return " ".join(parts)


def parse_progress(lines: Iterable[str]) -> Progress | None:
    """The last well-formed progress line, or None. Never raises: log text is not ours to trust."""
    for line in reversed(list(lines)):
        _, mark, rest = line.rpartition(_MARK)
        if not mark:
            continue
        stage, _, tail = rest.strip().partition(" ")
        fields = dict(_FIELD.findall(tail))
        try:
            done, _, total = fields["rows"].partition("/")
            return Progress(
                stage=stage[:32],
                done=int(done),
                total=int(total),
                unit=fields.get("unit", "rows")[:32],
                tokens_per_second=float(fields["tok/s"]) if "tok/s" in fields else None,
                eta_seconds=int(fields["eta"]) if "eta" in fields else None,
                loss=float(fields["loss"]) if "loss" in fields else None,
                activity=fields.get("doing", "").replace("_", " ")[:64],
            )
        except (KeyError, ValueError):
            continue
    return None


def whole_seconds(seconds: float) -> str:
    """A time for people: `1h 02m`, `3m 05s` or `42s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h {minutes:02d}m"
    return f"{minutes}m {rest:02d}s" if minutes else f"{rest}s"
