"""DDP and FSDP on a GPU: the same numbers, in bf16 those of fp32, and what they cost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(1800)]
PROGRAM = Path(__file__).with_name("gpu_training.py")
EXACT = ("full", "lora", "reference")


@pytest.fixture(scope="module")
def figures(gpu: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """By way and place, `full-FSDP` say; printed as a table."""
    folder = tmp_path_factory.mktemp("gpu")
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1"}
    line = [sys.executable, str(PROGRAM), str(folder)]
    done = subprocess.run(line, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:]
    found: dict[str, Any] = json.loads((folder / "figures.json").read_text())
    print(f"\n{gpu}\n{'training':<20}{'peak MiB':>10}{'tokens/s':>12}{'seconds':>10}")
    for name, row in found.items():
        if "error" in row:
            print(f"{name:<20} failed")
            continue
        speed = [step["tokensPerSecond"] for step in row["series"][1:] if "tokensPerSecond" in step]
        shown = f"{sum(speed) / len(speed):,.0f}" if speed else "-"
        print(f"{name:<20}{row['peakMiB']:>10,.0f}{shown:>12}{row['seconds']:>10.1f}")
    return found


def values(figures: dict[str, Any], name: str, figure: str) -> list[float]:
    if "error" in figures[name]:
        pytest.fail(f"{name}: {figures[name]['error'][-3000:]}")
    return [row[figure] for row in figures[name]["series"]]


@pytest.mark.parametrize("place", ["DDP", "FSDP"])
def test_a_resumed_training_ends_as_one_that_was_not_interrupted(figures: dict[str, Any], place: str) -> None:
    whole, resumed = (values(figures, f"{way}-{place}", "loss") for way in ("full", "resumed"))
    assert resumed[-1] == pytest.approx(whole[-1], rel=1e-3)


@pytest.mark.parametrize("way", EXACT)
def test_fsdp_is_ddp(figures: dict[str, Any], way: str) -> None:
    """In fp32: losses within 1e-3, gradient norms within 1% (kernels add up in another order)."""
    for figure, tolerance in (("loss", 1e-3), ("gradientNorm", 1e-2)):
        sharded, replicated = (values(figures, f"{way}-{place}", figure) for place in ("FSDP", "DDP"))
        assert sharded == pytest.approx(replicated, rel=tolerance)


@pytest.mark.parametrize("place", ["DDP", "FSDP"])
def test_bf16_is_close_to_fp32(figures: dict[str, Any], place: str) -> None:
    """Losses within 2%, the first gradient's norm within 10%."""
    mixed, exact = (values(figures, f"{way}-{place}", "loss") for way in ("bf16", "full"))
    assert mixed == pytest.approx(exact, rel=2e-2)
    mixed, exact = (values(figures, f"{way}-{place}", "gradientNorm") for way in ("bf16", "full"))
    assert mixed[0] == pytest.approx(exact[0], rel=0.1)


@pytest.mark.parametrize("way", ["full", "lora", "bf16", "bf16-large", "fp32-large"])
@pytest.mark.parametrize("place", ["DDP", "FSDP"])
def test_a_model_has_no_reward_margin_against_itself(figures: dict[str, Any], way: str, place: str) -> None:
    assert values(figures, f"{way}-{place}", "rewardMargin")[0] == pytest.approx(0, abs=1e-4)


def test_recomputed_dropout_trains(figures: dict[str, Any]) -> None:
    """Sharded trainings with dropout recompute activations, replicated ones do not; the gradient is of one size."""
    for way in ("dropout", "lora-dropout"):
        sharded, replicated = (values(figures, f"{way}-{place}", "gradientNorm") for place in ("FSDP", "DDP"))
        assert sharded[0] == pytest.approx(replicated[0], rel=0.3)
