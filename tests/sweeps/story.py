"""The story of the sweeps: two iterations with all that people do to a run. However it is disturbed, its end is one."""

from __future__ import annotations

import asyncio
import copy
import difflib
import functools
import json
import os
import re
from dataclasses import dataclass
from typing import Any, Literal

from support.stage_script import Ending
from sweeps.jumping import JumpingLoop
from sweeps.simulation import JOBS, PODS, RUNS, Blow, Faults, Loss, Object, Simulation, simulation

#: All of a sweep, and longer random ones: `make fuzz`.
FUZZ = bool(os.environ.get("SRLM_TEST_FUZZ"))
#: Tests that share a sweep.
PARTS = 4
LIMIT_SECONDS = 12 * 3600
BACK = 15
HELD_SECONDS = 120
#: GPU-seconds: pods on their way out are not counted any more, and times are whole seconds.
UNCOUNTED, ROUNDED = 100, 20


async def story(sim: Simulation) -> Object:
    """One failed shard, one edit, one pause, the report, and a deletion that keeps the models only.

    Returns the run's status before it was deleted.
    """
    sim.stages.fail("generate", Ending(1, "one shard breaks"))
    sim.held |= {"1/train", "2/generate"}
    sim.create(
        iterations=2,
        seedData={"uri": "hf://org/data", "eft": {"enabled": False}},
        evaluation={"enabled": False},
        storage={"uri": "s3://bucket/prefix", "retention": "DeleteIntermediate"},
    )
    (before,) = await sim.until(lambda: sim.running("1/train"))
    await asyncio.sleep(HELD_SECONDS)
    sim.edit({"training": {"dpo": {"beta": 0.3}}})
    await sim.until(lambda: [p for p in sim.running("1/train") if p["metadata"]["uid"] != before["metadata"]["uid"]])
    sim.release("1/train")
    await sim.until(lambda: len(sim.running("2/generate")) == 2)
    await asyncio.sleep(HELD_SECONDS)
    sim.edit({"suspend": True})
    await sim.until(lambda: sim.status()["phase"] == "Suspended" and sim.gone("2/generate"))
    sim.held.discard("2/generate")
    sim.edit({"suspend": False})
    await sim.until(sim.reported)
    check_gpu_seconds(sim)
    status = copy.deepcopy(sim.status())
    sim.delete()
    await sim.until(lambda: not any(sim.objects(kind) for kind in (RUNS, JOBS, PODS)))
    return status


def check_gpu_seconds(sim: Simulation) -> None:
    used, counted = sim.gpu_seconds(), sim.status()["gpuSeconds"]
    assert used - UNCOUNTED <= counted <= used + ROUNDED, f"{counted} GPU-seconds counted of {used}"


@dataclass(frozen=True)
class End:
    """What the story comes to."""

    status: str
    """Of the run, as JSON, before it is deleted; names, times and UIDs masked."""
    made: tuple[str, ...]
    """`<iteration>/<node> x<completions>` of all Jobs that there ever were."""
    ran: tuple[str, ...]
    """`<iteration>/<node>` of all pods that computed something."""
    left: tuple[str, ...]
    """Objects that are still there."""


def tell(faults: Faults) -> tuple[End, Simulation]:
    """Tell the story while these things go wrong."""

    async def play() -> tuple[End, Simulation]:
        async with simulation(faults) as sim:
            async with asyncio.timeout(LIMIT_SECONDS):
                status = await story(sim)
            text = json.dumps(masked(status), indent=1, sort_keys=True)
            end = End(text, tuple(sorted(sim.made)), tuple(sorted(sim.stages.ran)), tuple(sim.left()))
            return end, sim

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(play())


#: Times, and what follows from them.
_MASKED = {
    "startedAt", "finishedAt", "attemptStartedAt", "checkedAt", "createdAt", "madeAt", "lastTransitionTime", "at",
    "job", "etaSeconds", "seconds", "gpuSeconds", "end", "observedGeneration",
}  # fmt: skip


def masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: masked(v) for k, v in value.items() if k not in _MASKED}
    if isinstance(value, str):
        return re.sub(r"srr-run-[a-z0-9-]+", "JOB", value)
    return [masked(v) for v in value] if isinstance(value, list) else value


@functools.cache
def calm() -> tuple[End, int, int]:
    """How the story ends when nothing goes wrong; the operator's writes and the events it saw."""
    end, sim = tell(Faults())
    assert end.left == ()
    return end, sim.writes, sim.events


def sweep(kind: Blow | Loss | Literal["old-view"], part: int, each: int) -> None:
    """Tell the story once for every fault of a kind, or for every `each`th of them; all of it with `make fuzz`."""
    end, writes, events = calm()
    wrong = []
    for number in numbers(events if kind in ("drop", "delay") else writes, part, 1 if FUZZ else each):
        faults = fault(kind, number)
        try:
            found, _ = tell(faults)
        except (AssertionError, TimeoutError) as problem:
            wrong.append(f"{kind} {number}: {problem!r}")
            continue
        wrong += [f"{kind} {number}: {line}" for line in differences(end, found)]
        assert faults.met == 1, f"{kind} {number} did not happen"
    assert not wrong, "\n".join(wrong)


def numbers(count: int, part: int, each: int) -> range:
    """Every `each`th of 1 to `count`, shared out among the parts."""
    return range(1 + part * each, count + 1, PARTS * each)


def fault(kind: Blow | Loss | Literal["old-view"], number: int) -> Faults:
    match kind:
        case "drop" | "delay":
            return Faults(events={number: kind})
        case "old-view":
            return Faults(writes={number: "crash-after"}, back=BACK)
        case _:
            return Faults(writes={number: kind})


def differences(wanted: End, found: End) -> list[str]:
    """Lines of what is not as it should be."""
    lines = list(difflib.unified_diff(wanted.status.splitlines(), found.status.splitlines(), "calm", "status", n=1))
    for name in ("made", "ran", "left"):
        if getattr(wanted, name) != getattr(found, name):
            lines.append(f"{name}: {getattr(found, name)} instead of {getattr(wanted, name)}")
    return lines
