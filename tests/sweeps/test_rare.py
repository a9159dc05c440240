"""What chance finds too rarely."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from support.stage_script import Ending
from sweeps.jumping import JumpingLoop
from sweeps.record import JOBS, MAX_ATTEMPTS, conditions
from sweeps.short_runs import short
from sweeps.simulation import STAGE_SECONDS, Faults, Simulation, simulation
from sweeps.story import LIMIT_SECONDS

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(120)]


def play(told: Callable[[Simulation], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        async with simulation(Faults()) as sim, asyncio.timeout(LIMIT_SECONDS):
            await told(sim)

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        runner.run(run())


def test_a_job_that_ended_unseen_is_not_deleted_unread() -> None:
    """Events are late, and a person suspends the run while its stage ends."""

    async def told(sim: Simulation) -> None:
        sim.create(**short("Retain"))
        await sim.until(lambda: sim.running("0/sft"))
        await asyncio.sleep(STAGE_SECONDS / 2)
        sim.faults.events.update(dict.fromkeys(range(sim.events + 1, sim.events + 100), "delay"))
        sim.edit({"suspend": True})
        await sim.until(lambda: sim.status().get("phase") == "Suspended")
        sim.faults.events.clear()
        (record,) = [s for s in sim.status()["iterations"][0]["stages"] if s["name"] == "sft"]
        assert record["state"] == "Succeeded"

    play(told)


def test_attempts_are_counted_across_restarts() -> None:
    async def told(sim: Simulation) -> None:
        sim.stages.fail("sft", *[Ending(1, "it breaks")] * (2 * MAX_ATTEMPTS))
        sim.create(**short("Retain"))
        for number in range(1, MAX_ATTEMPTS):
            await sim.until(lambda n=number: len(failed(sim)) == n)  # type: ignore[misc]
            await asyncio.sleep(1)
            sim.restart()
        await sim.until(lambda: sim.status().get("phase") in ("Failed", "Stalled"))
        await asyncio.sleep(4 * sim.settings.resync_seconds)
        assert len([made for made in sim.record.made if made.startswith("0/sft")]) == MAX_ATTEMPTS

    def failed(sim: Simulation) -> list[str]:
        return [job["metadata"]["name"] for job in sim.objects(JOBS) if "Failed" in conditions(job)]

    play(told)
