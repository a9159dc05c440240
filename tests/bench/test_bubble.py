"""Bubble: the share of an iteration in which no stage works; and engine starts, counted from a run's Jobs.

Real: API server, Job controller, the operator's process. Scripted: pods that run for a fixed time. Stages of two
seconds are far shorter than real ones, so the share is an upper bound; what pods need to be scheduled, to pull images
and to load models cannot be seen here.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path

import pytest
from pairs import PAIRS, TABLE, Line, Ratios, load
from scripted_cluster import JOBS, Bench, Run, bench

from support.builders import spec
from support.fake_cluster import FakeCluster

pytestmark = [pytest.mark.bench, pytest.mark.timeout(600)]

RUN: Run = ("default", "run")
STAGE_SECONDS = 2.0
ENGINES = ("prompts", "generate", "judge", "choose", "evaluate")
"""Stages that load an inference engine; `evaluate` loads one for the answers and one for another model's verdicts."""


async def test_bubble(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        b.apply(RUN, iterations=PAIRS + 1)
        for _ in range(3):  # preflight, data, sft
            await b.transition(RUN)
        found = [await _bubble(b) for _ in range(PAIRS)]
    between = statistics.median(found) * STAGE_SECONDS / (1 - statistics.median(found))
    note = f"{between:.2f} s between stages of {STAGE_SECONDS:g} s, {load()}"
    TABLE.add(Line("#4 bubble of an iteration", "its wall time", Ratios(tuple(found)), "<=", 0.05, note))


async def _bubble(b: Bench) -> float:
    """Of one iteration, from its first Job to the first Job of the next."""
    began, work = time.perf_counter(), 0.0
    for _ in range(JOBS):
        await b.until(lambda: b.waits(RUN), "a running pod")
        started = time.perf_counter()
        await asyncio.sleep(STAGE_SECONDS)
        work += time.perf_counter() - started
        await b.transition(RUN)
    wall = time.perf_counter() - began
    return (wall - work) / wall


def test_engine_starts() -> None:
    world = FakeCluster(spec=spec(generation={"shards": 1}))
    world.settle()
    (second,) = [model.key for model in world.status.models if model.name == "M2"]
    tasks = [world.tasks[name] for name in world.created]
    asked = [t for t in tasks if t.stage in ENGINES and "model" in t.inputs and t.inputs["model"].key == second]
    starts = [task.node for task in asked]
    ratio, note = Ratios((float(len(starts)),)), f"{', '.join(starts)} of M2; a gate stands between them"
    TABLE.add(Line("#5 engine starts an iteration", "one start (judge = generator)", ratio, "<=", 1.0, note))
    assert len(starts) == len(set(starts)), "a stage of an undisturbed run was started twice"
