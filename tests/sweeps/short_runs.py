"""Runs of one iteration that people change, and how they end when nothing goes wrong."""

from __future__ import annotations

import asyncio
import functools
import json
from dataclasses import dataclass
from typing import Any

from srlm_operator.names import RETRY_ANNOTATION
from sweeps.jumping import JumpingLoop
from sweeps.record import JOBS, NAMESPACE, PODS, RUNS, Object, ended, run_of
from sweeps.simulation import Simulation, simulation

LIMIT_SECONDS = 48 * 3600
RETENTIONS = ("Retain", "DeleteIntermediate", "DeleteAll")
#: What people change. Runs of the same values share their artifacts.
EDITS: tuple[Object, ...] = (
    {"training": {"dpo": {"beta": 0.3}}},
    {"training": {"dpo": {"beta": 0.1}}},
    {"generation": {"shards": 3}},
    {"seed": 7},
    {"iterations": 2},
    {"iterations": 1},
)


def short(retention: str, **changes: Any) -> Object:
    """The shortest spec: no EFT, no evaluation, one iteration; its three stages that ask a model come in one Job."""
    return {
        "iterations": 1,
        "seedData": {"uri": "hf://org/data", "eft": {"enabled": False}},
        "evaluation": {"enabled": False},
        "generation": {"shards": 1},
        "storage": {"uri": "s3://bucket/prefix", "retention": retention},
        **changes,
    }


def made(status: Object, iterations: int) -> str:
    """What a run has made, as JSON: key and digest of every model and stage of its iterations. What is done of others
    that were cut off stays in status."""
    stages = [
        (f"{n}/{stage['name']}", stage.get("key"), stage.get("contentDigest"), stage["state"])
        for n, iteration in enumerate(status.get("iterations", [])[: iterations + 1])
        for stage in iteration["stages"]
    ]
    models = [
        (model["name"], model.get("key"), model.get("contentDigest"))
        for model in status.get("models", [])[: iterations + 1]
    ]
    return json.dumps({"models": models, "stages": stages, "phase": status["phase"]}, indent=1)


@dataclass(frozen=True)
class Ended:
    """A run that has come to its end: spec, and what it has made, as JSON."""

    spec: str
    made: str

    def check(self) -> None:
        """It has made what an undisturbed one of this spec makes. Plays that one: not within an event loop."""
        assert self.made == expected(self.spec)


def outcome(run: Object) -> Ended:
    spec = {**run["spec"], "storage": {"uri": run["spec"]["storage"]["uri"]}, "suspend": False}
    return Ended(json.dumps(spec, sort_keys=True), made(run["status"], spec["iterations"]))


@functools.cache
def expected(spec: str) -> str:
    """What a run of this spec makes when nothing goes wrong."""

    async def play() -> str:
        async with simulation() as sim, asyncio.timeout(LIMIT_SECONDS):
            sim.create(**json.loads(spec))
            await sim.until(sim.reported)
            return made(sim.status(), json.loads(spec)["iterations"])

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(play())


def settled(sim: Simulation, name: str) -> bool:
    """Whether the run has done all that its spec says now."""
    run = sim.cluster.storage.get(RUNS, NAMESPACE, name)
    assert run is not None
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in run.get("status", {}).get("conditions", ()))
    return ready and run["status"]["observedGeneration"] == run["metadata"]["generation"] and sim.reported(name)


async def comes_to_rest(sim: Simulation) -> list[Ended]:
    """All goes well from now on: each run comes to its end, and then nothing is written any more.

    A person resumes what is suspended and asks once more for what has failed. Returns how the runs ended.
    """
    sim.faults.writes.clear()
    sim.faults.events.clear()
    sim.stages.faults.clear()
    kept = [run["metadata"]["name"] for run in sim.objects(RUNS) if "deletionTimestamp" not in run["metadata"]]
    for name in kept:
        sim.edit({"suspend": False}, name)
        sim.annotate({RETRY_ANNOTATION: "at rest"}, name)

    def rest() -> bool:
        return len(sim.objects(RUNS)) == len(kept) and all(settled(sim, name) for name in kept)

    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            await sim.until(rest)
    except TimeoutError:
        raise AssertionError(f"no rest: {json.dumps(sim.objects(RUNS), indent=1)}") from None
    await asyncio.sleep(2 * sim.settings.resync_seconds)  # what an event hid, which a resync finds
    before = sim.writes
    await asyncio.sleep(6 * sim.settings.resync_seconds)
    assert sim.written[before:] == [], "the operator goes on writing"
    check_rest(sim)
    return [outcome(run) for run in sim.objects(RUNS)]


def check_rest(sim: Simulation) -> None:
    """Nothing runs, nothing is left of runs that are gone, and what the others need is there."""
    runs = {(run["metadata"]["name"], run["metadata"]["uid"]): run for run in sim.objects(RUNS)}
    stray = [obj["metadata"]["name"] for kind in (JOBS, PODS) for obj in sim.objects(kind) if run_of(obj) not in runs]
    assert stray == [], "left by runs that are gone"
    assert [job["metadata"]["name"] for job in sim.objects(JOBS) if not ended(job)] == [], "still at work"
    kept = [job for job in sim.objects(JOBS) if "ttlSecondsAfterFinished" not in job["spec"]]
    assert [job["metadata"]["name"] for job in kept] == [], "stay for ever"
    for (name, _), run in runs.items():
        stages = [stage for iteration in run["status"]["iterations"] for stage in iteration["stages"]]
        lost = [stage["name"] for stage in stages if stage["key"] not in sim.stages.committed]
        assert lost == [], f"of {name}, are gone"
