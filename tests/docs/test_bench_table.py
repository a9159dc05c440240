"""The table of the benchmarks' README is that of their record."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[1] / "bench"


def test_the_readme_shows_what_the_record_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCH)
    from record import shown  # the benchmarks import each other by file

    record = json.loads((BENCH / "bench.json").read_text(encoding="utf-8"))
    text = (BENCH / "README.md").read_text(encoding="utf-8")
    assert shown(record, text) == text
    assert all(entry["measure"] in text for part in record.values() for entry in part["ratios"])
