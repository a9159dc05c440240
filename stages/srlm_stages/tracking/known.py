"""What a tracker has already, so that a repeated step is not sent twice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import isnan

from .tracker import Row, Series


@dataclass
class Known:
    """The last step and value of every curve, and whose curve a name stands for."""

    last: dict[str, tuple[int, float]] = field(default_factory=dict)
    """By full name, such as `M2/train/loss`."""
    keys: dict[str, str] = field(default_factory=dict)
    """Key of the training by name of its series."""

    def place(self, series: Series) -> str:
        """The name that a series goes by: its own, with its key where another training has that name."""
        if not series.key or self.keys.setdefault(series.name, series.key) == series.key:
            return series.name
        return f"{series.name}-{series.key[:8]}"

    def new(self, place: str, rows: Sequence[Row]) -> Iterator[tuple[int, dict[str, float]]]:
        """(step, figures by full name) of what is not there yet: later steps, and other values of the last one."""
        for row in rows:
            step = int(row["step"])
            figures = {f"{place}/{name}": value for name, value in row.items() if name != "step"}
            fresh = {name: value for name, value in figures.items() if self._is_new(name, step, value)}
            if fresh:
                yield step, fresh

    def note(self, step: int, figures: Row) -> None:
        """These have arrived."""
        self.last |= {name: (step, value) for name, value in figures.items()}

    def _is_new(self, name: str, step: int, value: float) -> bool:
        before, known = self.last.get(name, (-1, 0.0))
        return step > before or (step == before and value != known and not (isnan(value) and isnan(known)))
