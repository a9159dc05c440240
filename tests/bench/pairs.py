"""Two things measured in turn, A B A B …, and the table of what came out.

One ratio a pair: what slows the machine down for a while hits both sides of a pair alike. Every ratio is read as
"ours over theirs", and says itself whether more or less of it is better.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

PAIRS = int(os.environ.get("PAIRS", "5"))
"""Pairs of a measure. Fewer, by the variable of that name, are good for a look and not for a figure."""


@dataclass(frozen=True)
class Ratios:
    """One ratio a pair."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @classmethod
    def of(cls, ours: Sequence[float], theirs: Sequence[float]) -> Ratios:
        """Pair by pair. Raises ValueError when a side has fewer measurements."""
        return cls(tuple(a / b for a, b in zip(ours, theirs, strict=True)))

    def inverse(self) -> Ratios:
        """Seconds over seconds → rate over rate."""
        return Ratios(tuple(1 / value for value in self.values))


@dataclass(frozen=True)
class Line:
    """One row of the table."""

    measure: str
    against: str
    ratios: Ratios
    sense: Literal[">=", "<=", ""] = ""
    """What the goal asks of the ratio; empty where there is no goal."""
    goal: float = 0.0
    note: str = ""

    @property
    def met(self) -> bool:
        median = self.ratios.median
        return {">=": median >= self.goal, "<=": median <= self.goal, "": True}[self.sense]

    @property
    def span(self) -> str:
        values = self.ratios.values
        return f"{min(values):.2f}-{max(values):.2f} (n={len(values)})"

    @property
    def verdict(self) -> str:
        return f"{self.sense} {self.goal:g}: {'met' if self.met else 'NOT MET'}" if self.sense else "no goal"

    def text(self) -> str:
        note = f"  [{self.note}]" if self.note else ""
        return f"{self.measure:34} {self.against:40} {self.ratios.median:7.3f}  {self.span:20} {self.verdict:16}{note}"


@dataclass
class Table:
    """What the benchmarks of a session found: printed at once and at its end, and kept in `bench.json`."""

    lines: list[str] = field(default_factory=list)
    found: dict[str, dict[str, list[Any]]] = field(default_factory=dict)
    """By benchmark, as `record.keep` takes it."""

    def add(self, line: Line) -> None:
        self._print(line.text())
        self._part()["ratios"].append(asdict(line) | {"ratios": line.ratios.values})

    def say(self, text: str) -> None:
        """A line that is no ratio: percentiles, memory, counts, what the figures do not show."""
        self._print(text)
        self._part()["said"].append(text)

    def _print(self, text: str) -> None:
        print(text, flush=True)
        self.lines.append(text)

    def _part(self) -> dict[str, list[Any]]:
        name = Path(os.environ["PYTEST_CURRENT_TEST"].partition("::")[0]).stem
        return self.found.setdefault(name.removeprefix("test_"), {"ratios": [], "said": []})


TABLE = Table()
HEAD = f"{'measure':34} {'ours against':40} {'median':>7}  {'range':20} goal"


def in_turn(
    ours: Callable[[], float], theirs: Callable[[], float], pairs: int = PAIRS, warm: bool = True
) -> tuple[list[float], list[float]]:
    """Calls A B A B …; each call returns its own measurement. `warm`: one uncounted call of each before."""
    if warm:
        ours()
        theirs()
    a, b = [], []
    for _ in range(pairs):
        a.append(ours())
        b.append(theirs())
    return a, b


def percentile(values: Sequence[float], percent: float) -> float:
    """Nearest rank: the smallest value that `percent` of all values do not exceed."""
    ranked = sorted(values)
    return ranked[max(0, -(-int(len(ranked) * percent) // 100) - 1)]


def load() -> str:
    """How busy the machine is: figures of a loaded machine are noisier, ratios in turn still mean something."""
    return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
