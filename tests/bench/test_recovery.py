"""Recovery: iterations with one pod killed at a random time in every stage, against undisturbed ones, in turn.

Scripted pods of one second; a killed one loses all it did, so a stage of one pod costs up to twice its time whatever
the operator does, and only the stage in shards shows what is lost there. Real stages lose less: they are longer than
the pauses of the Job controller, and training has checkpoints. What must hold is asserted: one pod redone for each
that was killed, nothing committed twice.
"""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path

import pytest
from pairs import PAIRS, TABLE, Line, Ratios, load
from scripted_cluster import RUN as RUN_LABEL
from scripted_cluster import Bench, Object, Run, bench

pytestmark = [pytest.mark.bench, pytest.mark.timeout(600)]

RUN: Run = ("default", "run")
SHARDS = 8
PODS = {"prompts": 1, "generate": SHARDS, "judge": 1, "pairs": 1, "train": 1}
"""Pods of the stages of an iteration, in order."""
STAGE_SECONDS = 1.0


async def test_recovery(tmp_path: Path) -> None:
    chance = random.Random(0)
    async with bench(tmp_path) as b:
        b.apply(RUN, iterations=2 * PAIRS + 2, shards=SHARDS)
        for _ in range(3):  # preflight, data, sft
            await b.transition(RUN)
        disturbed, calm = [], []
        await _iteration(b, None)
        for _ in range(PAIRS):
            disturbed.append(await _iteration(b, chance))
            calm.append(await _iteration(b, None))
        ran = b.pods.stages.ran
        pods = len(b.cluster.list("pods", RUN[0]))
    killed = PAIRS * len(PODS)
    note = f"{killed} pods killed, {load()}"
    TABLE.add(Line("#10 wall time, a pod killed a stage", "undisturbed", Ratios.of(disturbed, calm), "<=", 1.1, note))
    expected = 3 + (2 * PAIRS + 1) * sum(PODS.values())
    # The last pod has only begun, and preflight computes nothing.
    redone, twice = pods - expected - 1, len(ran) - expected + 1
    TABLE.say(f"#10 {killed} pods killed: {redone} pods redone, {twice} stages or shards computed twice")
    assert redone <= killed
    assert twice == 0


async def _iteration(b: Bench, chance: random.Random | None) -> float:
    """Seconds of one iteration; with `chance` one pod of every stage is killed somewhere on its way."""
    began = time.perf_counter()
    for count in PODS.values():
        await b.until(lambda count=count: len(_running(b)) == count, f"{count} running pods")  # type: ignore[misc]
        pods, left = _running(b), STAGE_SECONDS
        if chance is not None:
            left *= chance.random()
            await asyncio.sleep(left)
            b.pods.kill(chance.choice(pods))
            await b.until(lambda count=count: len(_running(b)) == count, "a pod in its place")  # type: ignore[misc]
            names = {pod["metadata"]["name"] for pod in pods}
            late = [pod for pod in _running(b) if pod["metadata"]["name"] not in names]
            replaced = time.perf_counter()
            await asyncio.sleep(STAGE_SECONDS - left)
            for pod in _running(b):
                if pod not in late:
                    b.pods.end(pod)
            left = STAGE_SECONDS - (time.perf_counter() - replaced)
        await asyncio.sleep(max(0.0, left))
        for pod in _running(b):
            b.pods.end(pod)
        await b.until(lambda: not _running(b), "the end of the stage")
    await b.until(lambda: len(_running(b)) == 1, "the first pod of the next iteration")
    return time.perf_counter() - began


def _running(b: Bench) -> list[Object]:
    pods = b.cluster.list("pods", RUN[0])
    return [p for p in pods if p["metadata"]["labels"][RUN_LABEL] == RUN[1] and p["status"]["phase"] == "Running"]
