"""Training: our DPO steps against TRL's own trainer with the same settings, and against TRL's defaults.

A random Llama of 1 million weights on CPU, two steps of 8 pairs: it shows what batching by length, reference
log-probabilities and our callbacks cost or save in one process. FSDP, GPU kernels and checkpoints cannot be seen here.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from pairs import TABLE, Line, Ratios, in_turn, load

pytestmark = [
    pytest.mark.bench,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="TRL is not installed"),
]


class Side:
    """`training_sides.py` of one side."""

    def __init__(self, side: str, folder: Path) -> None:
        program = Path(__file__).with_name("training_sides.py")
        environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "TOKENIZERS_PARALLELISM": "false"}
        self.log = (folder / f"{side}.log").open("w+", encoding="utf-8")
        self.process = subprocess.Popen(
            [sys.executable, str(program), side, str(folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True, env=environ,
        )  # fmt: skip

    def ask(self, what: str) -> float:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            self.log.seek(0)
            pytest.fail(f"{what} failed: {self.log.read()[-4000:]}")
        return float(answer)


@contextmanager
def side(name: str, folder: Path) -> Iterator[Side]:
    made = Side(name, folder)
    try:
        yield made
    finally:
        made.process.communicate()
        made.log.close()


def test_train(tmp_path: Path) -> None:
    with ExitStack() as stack:
        ours, bare, defaults = (stack.enter_context(side(name, tmp_path)) for name in ("ours", "bare", "defaults"))
        ours.ask("build")
        for against, kind, text, goal in (
            (bare, "even", "bare TRL, same settings, even lengths", 0.99),
            (bare, "mixed", "bare TRL, same settings, mixed lengths", 0.99),
            (defaults, "mixed", "TRL defaults, mixed lengths", 1.5),
        ):
            a, b = in_turn(lambda kind=kind: ours.ask(kind), lambda it=against, kind=kind: it.ask(kind))  # type: ignore[misc]
            TABLE.add(Line("#7 training, rows/s", text, Ratios.of(b, a), ">=", goal, load()))
