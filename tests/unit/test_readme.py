"""The README's tree names every source file, and only files that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("operator/srlm_operator", "operator/srlm_local", "stages/srlm_contract", "stages/srlm_stages")


def test_the_tree_is_complete() -> None:
    tree = (ROOT / "README.md").read_text().split("## How it is built")[1].split("```")[1]
    named = sorted(re.findall(r"^\s+(\w+\.py)\b", tree, re.MULTILINE))
    real = sorted(
        path.name for package in PACKAGES for path in (ROOT / package).rglob("*.py") if path.name != "__init__.py"
    )
    assert named == real
