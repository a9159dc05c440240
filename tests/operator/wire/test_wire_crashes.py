"""Operators that die between two writes, and operators that start with an old view of the world."""

from __future__ import annotations

import asyncio
import itertools
from datetime import UTC, datetime
from pathlib import Path

import pytest

from srlm_operator.cluster.client import Client, load_configuration
from srlm_operator.cluster.index import World
from srlm_operator.errors import Unavailable
from srlm_operator.metrics.operator import Metrics
from srlm_operator.reconcile import Reconciler
from support.wire import JOBS, RUNS, SHORT, Wire, wire


async def live_for(w: Wire, writes: int) -> None:
    """One life of the operator that ends just before its next write after so many."""
    await w.start_operator()
    assert w.operator is not None
    left, died = itertools.count(1), asyncio.Event()

    def on_write(verb: str, resource: str) -> None:
        if next(left) > writes:
            died.set()
            raise Unavailable(f"the operator is dead before {verb} {resource}")

    w.operator.client.on_write = on_write
    ready = asyncio.create_task(w.until(lambda: w.condition("Ready")))
    over = asyncio.create_task(died.wait())
    await asyncio.wait({ready, over}, return_when=asyncio.FIRST_COMPLETED)
    await w.kill_operator()
    over.cancel()
    ready.cancel()
    await asyncio.gather(over, ready, return_exceptions=True)


@pytest.mark.timeout(300)
async def test_death_between_any_two_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with wire(tmp_path, monkeypatch) as w:
        watcher = w.cluster.storage.watcher(w.cluster.version)
        w.apply(**SHORT)
        for writes in itertools.cycle((1, 2, 1, 3)):
            if w.condition("Ready"):
                break
            await live_for(w, writes)
        created = [c.name for c in watcher.poll() if c.resource == JOBS and c.type == "ADDED"]
        watcher.close()
        assert len(created) == len(set(created)) == 9
        assert w.status()["phase"] == "Succeeded"
        assert sorted(w.pods.stages.ran) == sorted(
            ["0/data", "0/sft", "1/prompts", "1/generate", "1/generate", "1/judge", "1/pairs", "1/train"]
        )


async def test_an_old_view_repeats_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with wire(tmp_path, monkeypatch) as w:
        old = w.apply(**SHORT)
        await w.start_operator()
        await w.until(w.reported)
        await w.stop_operator()
        for job in w.jobs():
            w.cluster.delete(JOBS, job["metadata"]["name"], "default", propagation="Background")
        before = w.status()
        world = World()
        world.feed("runs", old)
        async with Client(load_configuration()) as client:
            reconciler = Reconciler(client, world, w.settings, Metrics(), lambda: datetime.now(UTC))
            await reconciler.reconcile(("default", "run"))
        assert w.jobs() == []
        assert w.status() == before
        assert world.run(("default", "run")) == w.cluster.get(RUNS, "run", "default")
