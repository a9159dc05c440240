"""`bench.json`: what each benchmark found when it last ran, and README.md's table of it."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pairs import Line, Ratios

FOLDER = Path(__file__).parent
RECORD, README = FOLDER / "bench.json", FOLDER / "README.md"
BEGIN, END = "<!-- begin: from bench.json -->\n", "<!-- end -->\n"

Record = Mapping[str, Mapping[str, Any]]
"""Benchmark → {`date`, `machine`, `ratios`: [{`measure`, `against`, `values`, `sense`, `goal`, `note`}], `said`}."""


def machine() -> str:
    """Cores, the widest instructions for vectors, Python."""
    info = Path("/proc/cpuinfo")
    flags = set(info.read_text(encoding="utf-8").split()) if info.exists() else set()
    widest = next((name for name in ("amx_bf16", "avx512_bf16", "avx512f", "avx2") if name in flags), "no AVX2")
    return f"{os.cpu_count()} cores ({platform.machine()}, {widest}), Python {platform.python_version()}"


def keep(found: Record) -> None:
    """Replaces the part of each benchmark that ran; the others keep theirs."""
    known = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
    where = {"date": datetime.now(UTC).date().isoformat(), "machine": machine()}
    record = {**known, **{name: {**where, **part} for name, part in found.items()}}
    RECORD.write_text(json.dumps(dict(sorted(record.items())), indent=1) + "\n", encoding="utf-8")
    README.write_text(shown(record, README.read_text(encoding="utf-8")), encoding="utf-8")


def shown(record: Record, text: str) -> str:
    """README.md with these figures between its two marks."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}{_table(record)}{END}{rest.partition(END)[2]}"


def _table(record: Record) -> str:
    lines = ["| measure | ours against | median | range | goal |", "|---|---|---|---|---|"]
    for part in record.values():
        for entry in part["ratios"]:
            line = Line(**{**entry, "ratios": Ratios(tuple(entry["ratios"]))})
            cells = (line.measure, line.against, f"{line.ratios.median:.2f}", line.span, line.verdict)
            lines.append(f"| {' | '.join(cells)} |")
    lines.append("")
    for name, part in record.items():
        notes = [f"{entry['measure']}: {entry['note']}" for entry in part["ratios"] if entry["note"]]
        where = f"- `{name}` ({part['date']}, {part['machine']})."
        lines.append(" ".join([where, *(f"{text}." for text in (*part["said"], *notes))]))
    return "\n".join(lines) + "\n"
