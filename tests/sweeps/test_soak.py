"""Many runs, one batch after the other, with faults by chance: each ends well, and nothing is left in memory."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import re
from collections.abc import Iterator

import pytest

from support.stage_script import Ending, FakeStages, error
from sweeps.jumping import JumpingLoop
from sweeps.record import JOBS, NAMESPACE, RUNS
from sweeps.short_runs import EDITS, LIMIT_SECONDS, RETENTIONS, Ended, outcome, settled, short
from sweeps.simulation import LATE_SECONDS, Blow, Faults, Loss, Simulation, simulation
from sweeps.story import FUZZ

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(7200 if FUZZ else 900)]
BATCH = 4
BATCHES = 50 if FUZZ else 10
BLOWS: tuple[Blow, ...] = ("crash-before", "crash-after", "error", "answer-lost", "refused")
LOSSES: tuple[Loss, ...] = ("drop", "delay")
#: Of all writes and all events.
CHANCE = 0.03
ENDINGS = (
    Ending(1, "it breaks"),
    Ending(137, "", "OOMKilled"),
    error(75, "StorageUnavailable"),
    error(77, "StorageNotPermitted"),
)
NODES = ("preflight", "data", "sft", "prompts", "generate", "judge", "pairs", "train")


def by_chance(chance: random.Random, faults: Faults, sim: Simulation, *, lives_on: bool) -> None:
    """Faults for the next batch. lives_on: the operator does not die."""
    faults.writes.clear()
    faults.events.clear()
    blows = BLOWS[2:] if lives_on else BLOWS
    for ahead in range(1, 2000):
        if chance.random() < CHANCE:
            faults.writes[sim.writes + ahead] = chance.choice(blows)
        if chance.random() < CHANCE:
            faults.events[sim.events + ahead] = chance.choice(LOSSES)
    for node in chance.sample(NODES, 2):  # of three attempts
        sim.stages.fail(node, chance.choice(ENDINGS))


def disturbances(chance: random.Random, sim: Simulation, names: list[str]) -> Iterator[float]:
    """What people and nodes do meanwhile, with pauses in seconds between."""
    for _ in range(6):
        yield chance.uniform(0, 15)
        match chance.choice(("evict", "remove", "edit", "suspend")):
            case "evict":
                if running := sim.running():
                    sim.evict(chance.choice(running))
            case "remove" if sim.objects(JOBS):
                sim.remove_job(chance.choice(sim.objects(JOBS)))
            case "edit":
                sim.edit(chance.choice(EDITS), chance.choice(names))
            case "suspend":
                name = chance.choice(names)
                sim.edit({"suspend": True}, name)
                yield chance.uniform(0, 15)
                sim.edit({"suspend": False}, name)


async def batch(chance: random.Random, sim: Simulation, number: int) -> list[Ended]:
    """Runs from their creation to their deletion. Returns how they ended."""
    names = [f"run-{number}-{i}" for i in range(BATCH)]
    for i, name in enumerate(names):
        sim.create(name, **short(chance.choice(RETENTIONS), seed=1 + i // 2))
    for pause in disturbances(chance, sim, names):
        await asyncio.sleep(pause)
    async with asyncio.timeout(LIMIT_SECONDS):
        await sim.until(lambda: all(settled(sim, name) for name in names))
    ends = [outcome(run) for run in sim.objects(RUNS)]
    for name in names:
        sim.delete(name)
    async with asyncio.timeout(LIMIT_SECONDS):
        await sim.until(lambda: sim.left() == [])
    return ends


async def objects_in_memory(sim: Simulation) -> int:
    """Of the operator and the cluster at rest, without what the simulation itself remembers."""
    await asyncio.sleep(2 * LATE_SECONDS)
    sim.record.made.clear()
    sim.stages = FakeStages()
    sim.faults.writes.clear()
    sim.faults.events.clear()
    for event in sim.objects("events"):
        sim.cluster.delete("events", event["metadata"]["name"], NAMESPACE)
    await asyncio.sleep(1)
    sim.cluster.storage.compact(sim.cluster.version)
    re.purge()
    gc.collect()
    return len(gc.get_objects())


def test_soak(caplog: pytest.LogCaptureFixture) -> None:
    """In the second half the operator lives on, so that what it does not forget adds up."""
    caplog.set_level(logging.ERROR)  # what is logged is kept
    seed = random.SystemRandom().randrange(2**32) if FUZZ else 1

    async def play() -> list[Ended]:
        chance, sizes, ends = random.Random(seed), [], []
        async with simulation() as sim:
            for number in range(BATCHES):
                by_chance(chance, sim.faults, sim, lives_on=number >= BATCHES // 2)
                ends += await batch(chance, sim, number)
                sizes.append(await objects_in_memory(sim))
            print(f"seed {seed}: {BATCH * BATCHES} runs, {sim.faults.met} faults, {sim.lives} lives, objects {sizes}")
        grown = sizes[-1] - sizes[BATCHES // 2 + 1]
        assert grown < 500, sizes
        return ends

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        ends = runner.run(play())
    for end in ends:
        end.check()
