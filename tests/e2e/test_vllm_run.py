"""One run whose inference is vLLM; its models are loaded in vLLM and differ."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from e2e.machine import Machine
from e2e.runs import download_model, small_run, stage_records

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.vllm,
    pytest.mark.timeout(900),
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed"),
]


def test_a_run_with_vllm_trains_models_that_vllm_serves(cluster: Machine, tiny_model: Path, tmp_path: Path) -> None:
    run = small_run(cluster, "served", tiny_model, prefix="served", engine="vllm")
    run["spec"]["iterations"] = 1
    cluster.apply(run)
    cluster.until(lambda: cluster.finished("served"), 800, "the run did not end")
    status = cluster.get("served")["status"]
    assert status["phase"] == "Succeeded", cluster.describe()
    assert stage_records(status)["M2/train"]["statistics"]["changedWeights"] >= 0.05

    folders = [download_model(cluster, "served", m, tmp_path / m["name"]) for m in status["models"]]
    asked = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("ask_vllm.py")), *map(str, folders)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert asked.returncode == 0, asked.stderr[-3000:]
    answers = [json.loads(line) for line in asked.stdout.splitlines() if line.startswith("{")]
    assert len(answers) == 2
    assert answers[0]["logprob"] != answers[1]["logprob"]
    assert all(answer["tokens"] > 0 for answer in answers)
