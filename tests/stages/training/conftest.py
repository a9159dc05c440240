"""What tests share that build a trainer in their own process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.tiny_model import build_tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A process group of this process alone, as torchrun would give one."""
    import torch

    meeting = tmp_path_factory.mktemp("meeting") / "place"
    torch.distributed.init_process_group("gloo", init_method=meeting.as_uri(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()
