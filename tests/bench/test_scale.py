"""Scale: a thousand runs at once on one operator against one run on another.

Both clusters stand at the same time and are asked in turn, so load of the machine hits both. The runs go on in batches:
the cost of a run (processor time of the operator, requests) in the first batch and in the last tells whether cost grows
with the number of runs. API server and pods share one Python process and the two cores with the operator: the rate
of the whole is a lower bound. A real control plane's own limits cannot be seen here.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from pairs import PAIRS, TABLE, Line, Ratios, load, percentile
from scripted_cluster import JOBS, Bench, Run, bench

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]

RUNS = int(os.environ.get("BENCH_RUNS", "1000"))
BATCH = RUNS // 10
"""Runs of one namespace, begun together."""
TRANSITIONS = 10
MOST_MIB = 300
ALONE: Run = ("default", "alone")


async def test_scale(tmp_path: Path) -> None:
    folders = (tmp_path / "one", tmp_path / "many")
    for folder in folders:
        folder.mkdir()
    async with bench(folders[0]) as one, bench(folders[1]) as many:
        one.apply(ALONE, iterations=(PAIRS + 1) * TRANSITIONS // JOBS + 1)
        await _reactions(one, [ALONE] * TRANSITIONS)
        empty = many.resident_mib()
        batches = [await _begin(many, f"team-{number}") for number in range(RUNS // BATCH)]
        runs = [(f"team-{i % (RUNS // BATCH)}", f"run-{i % BATCH}") for i in range(0, RUNS * 7, 7)]
        ours, alone, each = [], [], []
        for pair in range(PAIRS):
            found = await _reactions(many, runs[pair * TRANSITIONS : (pair + 1) * TRANSITIONS])
            each += found
            ours.append(percentile(found, 50))
            alone.append(percentile(await _reactions(one, [ALONE] * TRANSITIONS), 50))
        memory = many.resident_mib()
    last, first = batches[-1], batches[0]
    TABLE.add(Line(f"#9 reaction with {RUNS} runs", "the same with one run", Ratios.of(ours, alone), "<=", 2.0))
    cpu = Ratios.of([b["cpu"] for b in batches[1:]], [first["cpu"]] * (len(batches) - 1))
    TABLE.add(Line("#9 processor time a run, by batch", "the first batch of runs", cpu, note="no growth = linear"))
    TABLE.say(
        f"#9 a run up to its held stage (3 Jobs): {first['cpu'] * 1000:.0f} ms of the operator's processor time in the"
        f" first batch, {last['cpu'] * 1000:.0f} in the last; requests {first['calls']:.1f} and {last['calls']:.1f};"
        f" {BATCH / last['seconds']:.1f} runs/s begun with {RUNS} present"
    )
    p50, p99 = percentile(each, 50) * 1000, percentile(each, 99) * 1000
    TABLE.say(
        f"#9 reaction with {RUNS} runs: p50 {p50:.0f} ms, p99 {p99:.0f} ms (n={len(each)}); the operator's resident"
        f" memory {empty:.0f} MiB empty, {memory:.0f} MiB with all runs (goal {MOST_MIB}); {load()}"
    )
    assert memory <= MOST_MIB


async def _begin(b: Bench, namespace: str) -> dict[str, float]:
    """A batch of runs up to the stage that is held: processor seconds, requests and wall seconds."""
    b.add_namespace(namespace)
    runs: list[Run] = [(namespace, f"run-{number}") for number in range(BATCH)]
    await b.quiet()
    cpu, calls, began = b.cpu_seconds(), b.server.calls.total(), time.perf_counter()
    b.pods.free = {"preflight", "data"}
    for run in runs:
        b.apply(run, iterations=1)
    await b.until(lambda: all(map(b.waits, runs)), f"all runs of {namespace} at their first training")
    seconds = time.perf_counter() - began
    await b.quiet()
    return {
        "cpu": (b.cpu_seconds() - cpu) / BATCH,
        "calls": (b.server.calls.total() - calls) / BATCH,
        "seconds": seconds,
    }


async def _reactions(b: Bench, runs: list[Run]) -> list[float]:
    """One transition of each run, one after the other."""
    found = []
    for run in runs:
        await b.until(lambda run=run: b.waits(run), f"a running pod of {run}")  # type: ignore[misc]
        await b.quiet(0.05)
        found.append(await b.transition(run))
    return found
