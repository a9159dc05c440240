"""Runs of one iteration that people change, and how they end when nothing goes wrong."""

from __future__ import annotations

import asyncio
import functools
import json
from dataclasses import dataclass
from typing import Any

from sweeps.jumping import JumpingLoop
from sweeps.simulation import NAMESPACE, RUNS, Object, Simulation, simulation

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
    """The shortest spec: no EFT, no evaluation, one iteration."""
    return {
        "iterations": 1,
        "seedData": {"uri": "hf://org/data", "eft": {"enabled": False}},
        "evaluation": {"enabled": False},
        "storage": {"uri": "s3://bucket/prefix", "retention": retention},
        **changes,
    }


def made(status: Object) -> str:
    """What a run has made, as JSON: key and digest of every model and stage."""
    stages = [
        (f"{n}/{stage['name']}", stage.get("key"), stage.get("contentDigest"), stage["state"])
        for n, iteration in enumerate(status.get("iterations", []))
        for stage in iteration["stages"]
    ]
    models = [(model["name"], model.get("key"), model.get("contentDigest")) for model in status.get("models", [])]
    return json.dumps({"models": models, "stages": stages, "phase": status["phase"]}, indent=1)


@dataclass(frozen=True)
class Ended:
    """A run that has come to its end: spec, and what it has made, as JSON."""

    spec: str
    made: str

    def check(self) -> None:
        """It has made what an undisturbed one of this spec makes. Plays that one: not within an event loop."""
        assert self.made == expected(self.spec)


def ended(run: Object) -> Ended:
    spec = {**run["spec"], "storage": {"uri": run["spec"]["storage"]["uri"]}, "suspend": False}
    return Ended(json.dumps(spec, sort_keys=True), made(run["status"]))


@functools.cache
def expected(spec: str) -> str:
    """What a run of this spec makes when nothing goes wrong."""

    async def play() -> str:
        async with simulation() as sim, asyncio.timeout(LIMIT_SECONDS):
            sim.create(**json.loads(spec))
            await sim.until(sim.reported)
            return made(sim.status())

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(play())


def settled(sim: Simulation, name: str) -> bool:
    """Whether the run has done all that its spec says now."""
    run = sim.cluster.storage.get(RUNS, NAMESPACE, name)
    assert run is not None
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in run.get("status", {}).get("conditions", ()))
    return ready and run["status"]["observedGeneration"] == run["metadata"]["generation"] and sim.reported(name)
