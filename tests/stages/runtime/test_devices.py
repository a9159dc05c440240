"""What `Auto` means on which machine."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from srlm_stages.runtime import devices

pytestmark = pytest.mark.heavy


def gpus(monkeypatch: pytest.MonkeyPatch, *capabilities: tuple[int, int]) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(capabilities))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda i: capabilities[i])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A GPU")


@pytest.fixture(autouse=True)
def _ask_anew() -> None:
    devices.native_bf16.cache_clear()


@pytest.mark.parametrize(
    ("capabilities", "precision", "dtype"),
    [
        ([(9, 0), (9, 0)], "BF16Mixed", "BFloat16"),
        ([(8, 0)], "BF16Mixed", "BFloat16"),
        ([(9, 0), (7, 5)], "Float32", "Float16"),  # the weakest decides: all work on one model
        ([(7, 0)], "Float32", "Float16"),
        ([(6, 1)], "Float32", "Float32"),
    ],
)
def test_auto_on_gpus(
    capabilities: list[tuple[int, int]], precision: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus(monkeypatch, *capabilities)
    assert devices.training_precision("Auto") == precision
    assert devices.inference_dtype("Auto") == dtype


@pytest.mark.parametrize(
    ("onednn", "capabilities", "precision", "dtype"),
    [
        (True, {"architecture": "x86_64", "avx512_bf16": True}, "BF16Mixed", "BFloat16"),
        (True, {"architecture": "x86_64", "amx_bf16": True}, "BF16Mixed", "BFloat16"),
        (True, {"architecture": "x86_64", "avx512_bf16": False, "amx_bf16": False}, "Float32", "Float32"),
        (False, {"architecture": "x86_64", "avx512_bf16": True}, "Float32", "Float32"),  # ONEDNN_MAX_CPU_ISA
        (True, {"architecture": "aarch64", "bf16": True}, "BF16Mixed", "BFloat16"),
        (False, {"architecture": "aarch64", "bf16": False}, "Float32", "Float32"),
    ],
)
def test_auto_on_cpus(
    onednn: bool, capabilities: dict[str, object], precision: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: onednn)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert devices.training_precision("Auto") == precision
    assert devices.inference_dtype("Auto") == dtype


def test_the_slow_kind_of_machine_can_be_imitated_on_a_fast_one() -> None:
    environ = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "CUDA_VISIBLE_DEVICES": ""}
    code = "from srlm_stages.runtime import devices as d; print(d.native_bf16(), d.inference_dtype('Auto'))"
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "Float32"]


def test_what_is_asked_for_by_hand_is_done_and_what_is_only_emulated_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, (7, 5))
    assert devices.training_precision("BF16Mixed") == "BF16Mixed"
    assert devices.inference_dtype("BFloat16") == "BFloat16"
    line = devices.choice("training.precision", "BF16Mixed", "BF16Mixed")
    assert line.startswith("warning: training.precision is BF16Mixed, which A GPU can only emulate")
    assert "set it to Auto or Float32" in line
    assert devices.choice("engine.dtype", "Float16", "Float16") == "engine.dtype: Float16"
    said = devices.choice("engine.dtype", "Auto", "Float16")
    assert said == "engine.dtype: Float16 (Auto: A GPU has no bf16 instructions)"
