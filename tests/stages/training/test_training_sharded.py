"""Sharded training (FSDP) computes what replicated training (DDP) does: two processes on CPUs, a tiny model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from srlm_contract.errors import BadInput
from srlm_contract.jsonl import write_rows
from srlm_contract.rows import PreferencePair
from support.stage_world import QUESTIONS

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(600)]
PROGRAM = Path(__file__).with_name("sharded_training.py")
EXACT = ("full", "resumed", "dropout", "lora", "lora-dropout", "reference")


@dataclass(frozen=True)
class Outcome:
    series: list[dict[str, float]]
    weights: Mapping[str, Any]


def pair(number: int) -> PreferencePair:
    text = "The answer is relevant and useful. " * (number % 3 + 4)
    return PreferencePair(
        id=f"{number:016x}", prompt=f"{QUESTIONS[number % 6]} {number}", chosen=text + "a" * number,
        rejected="No. " + text, chosen_id="a", rejected_id="b", chosen_score=4, rejected_score=1,
    )  # fmt: skip


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Outcome]:
    """By way and DDP or FSDP; one start of two processes trains them all."""
    from safetensors.numpy import load_file

    folder = tmp_path_factory.mktemp("sharded")
    write_rows(folder / "rows.jsonl", [pair(i) for i in range(8)])
    env = os.environ | {
        "MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1",
        "PYTHONPATH": os.pathsep.join(sys.path), "TRL_EXPERIMENTAL_SILENCE": "1",
    }  # fmt: skip
    line = [sys.executable, str(PROGRAM), str(folder)]
    done = subprocess.run(line, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:]
    found = {}
    for path in folder.glob("*/result.json"):
        way, _, place = path.parent.name.rpartition("-")
        series = json.loads(path.read_text())["series"]
        found[way, place] = Outcome(series, load_file(path.parent / "model.safetensors"))
    return found


@pytest.mark.parametrize("way", EXACT)
def test_sharded_training_is_replicated_training(outcomes: dict[tuple[str, str], Outcome], way: str) -> None:
    """In fp32, losses agree to 1e-4, gradient norms to 1e-3, and weights to a hundredth of what a step changes."""
    ddp, fsdp = outcomes[way, "DDP"], outcomes[way, "FSDP"]
    assert [row["loss"] for row in fsdp.series] == pytest.approx([row["loss"] for row in ddp.series], rel=1e-4)
    norms = [[row["gradientNorm"] for row in series] for series in (fsdp.series, ddp.series)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)
    assert set(ddp.weights) == set(fsdp.weights)
    off = total = 0
    for name, one in ddp.weights.items():
        other = fsdp.weights[name]
        off += int((abs(one - other) > 1e-6).sum())
        total += one.size
    # Adam's first steps are the learning rate times the sign of a gradient: where that is 0, rounding decides.
    assert off < total / 100


@pytest.mark.parametrize("place", ["DDP", "FSDP"])
def test_a_resumed_training_is_the_uninterrupted_one(outcomes: dict[tuple[str, str], Outcome], place: str) -> None:
    whole, resumed = outcomes["full", place], outcomes["resumed", place]
    assert [row["step"] for row in whole.series] == [1, 2]
    assert [row["step"] for row in resumed.series] == [1, 2], "the first step's figures come with the resume point"
    for name in ("loss", "gradientNorm"):
        assert resumed.series[-1][name] == pytest.approx(whole.series[-1][name], rel=1e-5)
    for name, weights in whole.weights.items():
        assert abs(resumed.weights[name] - weights).max() < 1e-6, name


def test_bf16_training_is_close_to_fp32(outcomes: dict[tuple[str, str], Outcome]) -> None:
    """Products in bf16 round to 3 digits: losses agree to 1e-2 and gradient norms to 5% with those in fp32."""
    exact = outcomes["full", "DDP"].series
    for place in ("DDP", "FSDP"):
        series = outcomes["bf16", place].series
        assert [row["loss"] for row in series] == pytest.approx([row["loss"] for row in exact], rel=1e-2)
        assert series[0]["gradientNorm"] == pytest.approx(exact[0]["gradientNorm"], rel=0.05)


@pytest.mark.parametrize("place", ["DDP", "FSDP"])
@pytest.mark.parametrize("way", ["full", "lora", "bf16"])
def test_a_model_has_no_reward_margin_against_itself(
    outcomes: dict[tuple[str, str], Outcome], way: str, place: str
) -> None:
    first = outcomes[way, place].series[0]
    rewards = [first[name] for name in ("rewardMargin", "rewardChosen", "rewardRejected")]
    assert rewards == pytest.approx([0, 0, 0], abs=1e-6)
    assert first["loss"] == pytest.approx(0.693147, abs=1e-5)


def test_another_reference_has_a_margin(outcomes: dict[tuple[str, str], Outcome]) -> None:
    assert abs(outcomes["reference", "FSDP"].series[0]["rewardMargin"]) > 0.01


def test_dropout_changes_the_gradient(outcomes: dict[tuple[str, str], Outcome]) -> None:
    """So that the comparison of sharded (recomputed) and replicated dropout compares something."""
    norms = [outcomes[way, "DDP"].series[0]["gradientNorm"] for way in ("full", "dropout")]
    assert norms[0] != pytest.approx(norms[1], rel=1e-3)


@pytest.mark.parametrize("margin", [2e-4, -2e-4, float("nan")])
def test_a_start_model_that_differs_from_itself_is_refused(margin: float) -> None:
    from srlm_stages.training.reference import check_start

    check_start(9e-5)
    with pytest.raises(BadInput, match="before the first update") as error:
        check_start(margin)
    assert error.value.reason == "ModelNotUsable"
