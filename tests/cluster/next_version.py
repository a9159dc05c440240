"""A next version of this software: its own source in a folder of its own, with one more defaulted field in the spec."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FIELD = "topK"
#: Where the field is added: sampling is part of the parameters, and so of the keys, of several stages.
_PLACE = '''class SamplingSpec(Contract):
    """Sampling of an engine."""
'''
_NEW = '''
    top_k: Annotated[int, Field(ge=0, le=1000)] = 0
    """Only the most likely tokens; 0 for all."""
'''


def make(folder: Path) -> tuple[Path, ...]:
    """Write the next version. Returns what goes in front of the import path."""
    parts = {"operator": "srlm_operator", "stages": "srlm_contract"}
    for part, package in parts.items():
        shutil.copytree(ROOT / part / package, folder / part / package, ignore=shutil.ignore_patterns("__pycache__"))
    source = folder / "stages" / "srlm_contract" / "spec" / "loop.py"
    text = source.read_text(encoding="utf-8")
    assert text.count(_PLACE) == 1, "SamplingSpec has changed: say here how a field is added to it"
    source.write_text(text.replace(_PLACE, _PLACE + _NEW), encoding="utf-8")
    return tuple(folder / part for part in parts)


def definition(path: tuple[Path, ...]) -> dict[str, Any]:
    """The definition of runs of the version in `path`."""
    script = (
        "import json; from srlm_operator.crd import definition as d; print(json.dumps(d.custom_resource_definition()))"
    )
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(str(folder) for folder in path)}
    done = subprocess.run([sys.executable, "-c", script], env=environ, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found
