"""Operators that die between two writes, and operators that start with an old view of the world."""

from __future__ import annotations

import asyncio
import itertools
from datetime import UTC, datetime

import pytest

from srlm_operator.cluster.client import Client
from srlm_operator.cluster.index import World
from srlm_operator.metrics.operator import Metrics
from srlm_operator.reconcile import Reconciler
from srlm_operator.settings import Settings
from support.cluster.admin import configuration
from support.cluster.faults import WRITES, Cut
from support.cluster.harness import SHORT, Harness


async def live_for(h: Harness, writes: int) -> None:
    """One life of the operator that ends just before its next write after so many."""
    death = Cut(methods=WRITES, since=writes + 1)
    h.proxy.add(death)
    await h.start()
    ready = asyncio.create_task(h.until(lambda: h.condition("Ready")))
    over = asyncio.create_task(h.proxy.until(lambda: death.seen > writes))
    await asyncio.wait({ready, over}, return_when=asyncio.FIRST_COMPLETED)
    over.cancel()
    ready.cancel()
    await asyncio.gather(over, ready, return_exceptions=True)
    await h.kill()
    h.proxy.clear()


@pytest.mark.one_machine("dies some twenty times, and a process takes seconds to start")
@pytest.mark.timeout(300)
async def test_death_between_any_two_writes(h: Harness) -> None:
    await h.create(**SHORT)
    for writes in itertools.cycle((1, 2, 1, 3)):
        if h.condition("Ready"):
            break
        await live_for(h, writes)
    assert len(h.made()) == 9
    assert h.status()["phase"] == "Succeeded"
    stages = ["0/data", "0/sft", "1/prompts", "1/generate", "1/generate", "1/judge", "1/pairs", "1/train"]
    assert sorted(h.pods.stages.ran) == sorted(stages)


@pytest.mark.one_machine("gives an old view to a reconciler in this process")
async def test_an_old_view_repeats_nothing(h: Harness) -> None:
    old = await h.create(**SHORT)
    await h.start()
    await h.until(h.reported)
    await h.stop()
    await h.remove_jobs()
    before = await h.get()
    world = World()
    world.feed("runs", old)
    async with Client(configuration(h.kubeconfig)) as client:
        reconciler = Reconciler(client, world, Settings(**h.settings), Metrics(), lambda: datetime.now(UTC))
        await reconciler.reconcile((h.namespace, "run"))
    assert h.jobs() == []
    assert world.run((h.namespace, "run")) == await h.get() == before
