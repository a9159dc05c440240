"""Tests of one GPU machine (`make test-gpu`): skipped where there is no CUDA GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

#: Made by NVIDIA's driver: without it torch need not even be imported.
DRIVER = Path("/dev/nvidiactl")


@pytest.fixture(scope="session", autouse=True)
def gpu() -> str:
    """The GPU's name."""
    if not DRIVER.exists():
        pytest.skip("no CUDA GPU: this machine has no NVIDIA driver")
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA GPU that this build of torch can use (setup: FLAVOUR=cuda)")
    name: str = torch.cuda.get_device_name()
    return name
