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

from srlm_operator.settings import Settings
from support.stage_script import Ending
from sweeps.jumping import JumpingLoop
from sweeps.record import JOBS, PODS, RUNS, Object
from sweeps.simulation import LATE_SECONDS, Blow, Faults, Loss, Simulation, simulation

#: All of a sweep, and longer random ones: `make fuzz`.
FUZZ = bool(os.environ.get("SRLM_TEST_FUZZ"))
#: Tests that share a sweep.
PARTS = 4
LIMIT_SECONDS = 12 * 3600
BACK = 15
HELD_SECONDS = 120
#: Of the whole story, but for what people wait.
CALM_SECONDS, TOKENS = 100, 30_200
#: GPU-seconds: pods on their way out are not counted any more, and times are whole seconds.
UNCOUNTED, ROUNDED = 100, 20
#: What a pod holds while the story waits: where the event of its start is lost, the operator knows of none of them.
HELD_GPU_SECONDS = 8 * HELD_SECONDS


async def story(sim: Simulation) -> Object:
    """One failed shard, one edit, one pause, the report, and a deletion that keeps the models only.

    Returns the run's status before it was deleted.
    """
    sim.stages.fail("generate", Ending(1, "one shard breaks"))
    sim.held |= {"1/train", "2/generate"}
    sim.create(
        iterations=2,
        evaluation={"enabled": False},
        judging={"shards": 2},
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
    used, counted = sim.record.gpu_seconds(), sim.status()["gpuSeconds"]
    unseen = HELD_GPU_SECONDS * sum(sim.record.lost.values())
    assert used - UNCOUNTED - unseen <= counted <= used + ROUNDED, f"{counted} GPU-seconds counted of {used}"


@dataclass(frozen=True)
class End:
    """What the story comes to."""

    status: str
    """Of the run, as JSON, before it is deleted; names, times and UIDs masked."""
    made: tuple[str, ...]
    """`<iteration>/<node> x<completions>` of all Jobs that there ever were."""
    ran: tuple[str, ...]
    """`<iteration>/<node>` of all pods that computed something."""
    names: tuple[str, ...]
    """Of these Jobs."""
    kept: tuple[str, ...]
    """Stages of the artifacts that the deletion has left."""
    left: tuple[str, ...]
    """Objects that are still there."""
    seconds: float
    """Until everything was gone."""


def tell(faults: Faults) -> tuple[End, Simulation]:
    """Tell the story while these things go wrong."""

    async def play() -> tuple[End, Simulation]:
        async with simulation(faults) as sim:
            async with asyncio.timeout(LIMIT_SECONDS):
                status = await story(sim)
            text = json.dumps(masked(status), indent=1, sort_keys=True)
            end = End(
                text, tuple(sorted(sim.record.made)), tuple(sorted(sim.stages.ran)), tuple(sorted(sim.record.names)),
                tuple(sorted(sim.stages.made_by.values())), tuple(sim.left()), asyncio.get_running_loop().time(),
            )  # fmt: skip
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
def calm() -> tuple[End, Simulation]:
    """How the story ends when nothing goes wrong. Checked by itself too: all others are compared with it."""
    end, sim = tell(Faults())
    assert end.left == ()
    assert end.kept == ("sft", "train", "train"), "M1 to M3, and not what M1 was made from"
    assert end.seconds < 2 * HELD_SECONDS + CALM_SECONDS, "the operator looks when something has happened"
    assert json.loads(end.status)["tokens"] == TOKENS, "each result is counted once"
    return end, sim


def sweep(kind: Blow | Loss | Literal["old-view"], part: int, each: int) -> None:
    """Tell the story once for every fault of a kind, or for every `each`th of them; all of it with `make fuzz`."""
    end, _ = calm()
    wrong = []
    for number in points(kind, 1 if FUZZ else each)[part::PARTS]:
        faults = fault(kind, number)
        try:
            found, _ = tell(faults)
        except (AssertionError, TimeoutError) as problem:
            wrong.append(f"{kind} {number}: {problem!r}")
            continue
        wrong += [f"{kind} {number}: {line}" for line in differences(end, found)]
        assert faults.met == 1, f"{kind} {number} did not happen"
    assert not wrong, "\n".join(wrong)


def points(kind: str, each: int) -> list[int]:
    """Numbers of the writes or events of a sweep: every `each`th, and all that nothing after them makes good."""
    _, sim = calm()
    if kind in ("drop", "delay"):
        telling = {n for n, by_a_person in enumerate(sim.told, 1) if by_a_person}
        return sorted(telling | set(range(1, sim.events + 1, each)))
    telling = {n for n, what in enumerate(sim.written, 1) if kind in TELLING and what.partition(" ")[0] in TELLING[kind]
               and "/jobs" in what}  # fmt: skip
    return sorted(telling | set(range(1, sim.writes + 1, each)))


#: Writes that must not be done twice, or not be forgotten.
TELLING = {
    "crash-before": ("POST", "PATCH"),
    "crash-after": ("POST", "DELETE"),
    "answer-lost": ("POST",),
    "overtaken": ("DELETE",),
}


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
    for name in ("made", "ran", "names", "kept", "left"):
        if getattr(wanted, name) != getattr(found, name):
            lines.append(f"{name}: {getattr(found, name)} instead of {getattr(wanted, name)}")
    if found.seconds > wanted.seconds + Settings().resync_seconds + LATE_SECONDS:
        lines.append(f"it took {found.seconds:.0f} seconds instead of {wanted.seconds:.0f}")
    return lines
