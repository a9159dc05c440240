"""One finding of the report: a statement in words with the numbers behind it; alike ones are told once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One statement, worst kind first."""

    level: Level
    title: str
    figures: str
    """The numbers behind it, and what to do; a line each where several were merged."""
    where: str = ""
    """The model, stage or comparison it is about; appended to the title by `merged`."""
    fact: str = ""
    """The gate that watches the same figure, where there is one: who has missed it is told once, with what to do."""


def merged(findings: Iterable[Finding]) -> list[Finding]:
    """Findings about the same fact of a model as one, the first of them; then those of the same level and title as one
    that names all places: a reader sees each matter once."""
    alike: dict[tuple[Level, str], list[Finding]] = {}
    for finding in _by_fact(findings):
        alike.setdefault((finding.level, finding.title), []).append(finding)
    return [_one(some) for some in alike.values()]


def _by_fact(findings: Iterable[Finding]) -> list[Finding]:
    kept: dict[tuple[str, str, int], Finding] = {}
    for number, finding in enumerate(findings):
        key = (finding.fact, finding.where, 0) if finding.fact else ("", "", number)
        first = kept.get(key)
        kept[key] = finding if first is None else replace(first, figures=f"{first.figures}. {finding.figures}")
    return list(kept.values())


def _one(alike: list[Finding]) -> Finding:
    first = alike[0]
    places = ", ".join(dict.fromkeys(f.where for f in alike if f.where))
    lines = [f"{f.where}: {f.figures}" if f.where and len(alike) > 1 else f.figures for f in alike]
    return Finding(first.level, f"{first.title} {places}" if places else first.title, "\n".join(dict.fromkeys(lines)))
