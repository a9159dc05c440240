"""A process that is asked to end while it still imports."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_SITE = """
import signal, sys, time

signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as it is for the first process of a container

class Pause:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            sys.meta_path.remove(self)
            print("importing", flush=True)
            time.sleep(20)
            print("imported", flush=True)

sys.meta_path.insert(0, Pause())
"""


def end_while_importing(folder: Path, module: str, command: Sequence[str]) -> tuple[int, str]:
    """Run `python -m COMMAND`, which gets SIGTERM when it begins to import `module`. Exit status and output."""
    (folder / "sitecustomize.py").write_text(_SITE.format(module=module))
    root = Path(__file__).parents[2]
    path = os.pathsep.join(map(str, (folder, root / "operator", root / "stages")))
    process = subprocess.Popen(
        [sys.executable, "-m", *command],
        env={**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    with process:
        first = process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        rest = process.stdout.read()
    return process.returncode, first + rest
