"""Runs a benchmark's program in a process of its own and reads the ratios it leaves in `ratios.json`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pairs import Ratios

ROOT = Path(__file__).parents[2]
MODEL = Path(os.environ.get("MODEL", ROOT / ".cache/models/smollm2-135m-instruct"))


def small_model() -> Path:
    """The demo's model, which `make model` fetches."""
    if not (MODEL / "config.json").is_file():
        pytest.fail(f"{MODEL} is not there: run `make model` first, or name a model folder in MODEL")
    return MODEL


def ratios_of(program: str, *arguments: str | Path, folder: Path) -> dict[str, Ratios]:
    """By name; the program gets `arguments` and then `folder`."""
    command = [sys.executable, str(Path(__file__).with_name(program)), *map(str, arguments), str(folder)]
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{program} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    found = json.loads((folder / "ratios.json").read_text(encoding="utf-8"))
    return {name: Ratios(tuple(values)) for name, values in found.items()}
