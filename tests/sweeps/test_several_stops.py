"""Several attempts are stopped at once, and one of the Jobs changes just then."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from sweeps.jumping import JumpingLoop
from sweeps.record import Object
from sweeps.simulation import STAGE_SECONDS, Blow, Faults, Simulation, simulation
from sweeps.story import HELD_SECONDS, LIMIT_SECONDS, check_gpu_seconds

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(600)]
#: Its held-out verdicts need no model: they are made while the model is trained.
OUTSIDE = {"external": {"url": "https://judge.example/v1", "model": "judge"}, "shards": 1}
BLOWS: tuple[Blow, ...] = ("overtaken", "crash-after")
CHANGES: dict[str, Object] = {
    "suspended": {"suspend": True},
    "superseded": {"seed": 7},
    "over-budget": {"budget": {"gpuSeconds": 200}},
}


async def stopped(sim: Simulation, change: Object) -> int:
    """Two stages run for a while, and then a person changes what their run shall do. Returns the number of the first
    write after that."""
    both = {"0/sft", "0/judge-heldout"}
    sim.held |= both
    sim.create(iterations=1, seedData={"uri": "hf://org/data", "eft": {"enabled": False}}, judging=OUTSIDE)
    await sim.until(lambda: all(sim.running(node) for node in both))
    await asyncio.sleep(HELD_SECONDS)
    pods, first = {pod["metadata"]["uid"] for node in both for pod in sim.running(node)}, sim.writes + 1
    sim.edit(change)
    await sim.until(lambda: not pods & {pod["metadata"]["uid"] for pod in sim.objects("pods")})
    await asyncio.sleep(STAGE_SECONDS)
    return first


def play(change: str, faults: Faults) -> range:
    """The writes from the change on."""

    async def run() -> range:
        async with simulation(faults) as sim, asyncio.timeout(LIMIT_SECONDS):
            first = await stopped(sim, CHANGES[change])
            check_gpu_seconds(sim)
            assert not [event for event in sim.objects("events") if event["reason"] == "JobGone"]
            return range(first, sim.writes + 1)

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(run())


@pytest.mark.parametrize("change", CHANGES)
def test_all_that_was_used_is_counted_and_no_job_is_missed(change: str) -> None:
    """Whatever happens to any write from the change on."""
    for number, kind in itertools.product(play(change, Faults()), BLOWS):
        try:
            play(change, Faults(writes={number: kind}))
        except AssertionError as problem:
            raise AssertionError(f"{kind} {number}") from problem
