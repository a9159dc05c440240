"""What tests of trackers share: a run, and what a tracker is given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from srlm_stages.tracking.tracker import Sender
from support.memory_store import MemoryStore
from support.stage_world import RUN

Senders = Callable[..., Sender]


@pytest.fixture
def sender(tmp_path: Path) -> Senders:
    """An sender, with the name of the run and environment variables."""
    store = MemoryStore()

    def make(name: str = "world", **environ: str) -> Sender:
        run = RUN.model_copy(update={"name": name, "uid": f"{name}-uid"})
        return Sender(run, store, tmp_path, environ)

    return make
