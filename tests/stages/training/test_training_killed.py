"""A training that is killed at any step, or while it writes a resume point, ends with the very weights of one that
was not: on CPUs, where sums are always made in the same order."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from srlm_contract.jsonl import write_rows
from srlm_contract.rows import PreferencePair
from stages.training.killed_training import DONE, EVERY
from support.stage_world import QUESTIONS

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(600)]


def test_killed_trainings_end_with_the_weights_of_one_that_was_not(tmp_path: Path) -> None:
    pairs = [
        PreferencePair(
            id=f"{i:016x}", prompt=f"{QUESTIONS[i % 6]} {i}", chosen="Yes. " * (i % 5 + 1),
            rejected="No. " * (i % 3 + 1), chosen_id="a", rejected_id="b", chosen_score=4, rejected_score=1,
        )
        for i in range(12)
    ]  # fmt: skip
    write_rows(tmp_path / "rows.jsonl", pairs)
    env = os.environ | {
        "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "PYTHONPATH": os.pathsep.join(sys.path),
        "TRL_EXPERIMENTAL_SILENCE": "1", "GLOO_SOCKET_IFNAME": "lo",
    }  # fmt: skip
    program = Path(__file__).with_name("killed_training.py")
    line = [sys.executable, str(program), str(tmp_path)]
    done = subprocess.run(line, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:]
    whole = load_file(tmp_path / "whole" / "model" / "model.safetensors")
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert len(set(figures.values())) > 1
    for case, done in DONE.items():
        assert 0 <= done - figures[case] <= EVERY, "at most one interval is repeated"
        found = load_file(tmp_path / case / "model" / "model.safetensors")
        assert all((found[name] == weights).all() for name, weights in whole.items()), case
