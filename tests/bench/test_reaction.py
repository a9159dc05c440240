"""Reaction: from a finished Job to the next one, and how many writes a transition costs the API server.

Real: API server, RBAC, Job controller, Kopf, the operator's process. Scripted: what happens inside the pods. Side by
side stands a program that only watches Jobs and creates a ready-made one: the price of the wire and the server alone.
Cannot be seen here: a real control plane's own delays (etcd, the Job controller's batching of 1 s).
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pairs import PAIRS, TABLE, Line, Ratios, percentile
from scripted_cluster import JOBS, RUN, Bench, Object, Run, bench

pytestmark = [pytest.mark.bench, pytest.mark.timeout(600)]

TRANSITIONS = 20
MOST_WRITES = 4
OURS: Run = ("default", "run")
BARE: Run = ("bare", "bare")


async def test_reaction(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        b.apply(OURS, iterations=(PAIRS + 1) * TRANSITIONS // JOBS + 1)
        await _batch(b, OURS)  # warm: the first ones pay for imports and connections
        async with _bare_watcher(b):
            await _batch(b, BARE)
            ours, bare, writes = [], [], []
            for _ in range(PAIRS):
                seconds, counts = await _batch(b, OURS)
                ours.append(seconds)
                writes += counts
                bare.append((await _batch(b, BARE))[0])
    most = max(writes, key=_cost)
    every = [x for batch in ours for x in batch]
    ratios = Ratios.of([statistics.median(x) for x in ours], [statistics.median(x) for x in bare])
    TABLE.add(Line("#8 reaction", "bare watcher that posts a ready Job", ratios, note="no plan, no status there"))
    figures = ", ".join(f"p{p} {percentile(every, p) * 1000:.0f} ms" for p in (50, 90, 99))
    TABLE.say(
        f"#8 Job finished -> next Job: {figures} (n={len(every)}; goal p99 200 ms, not asserted);"
        f" writes a transition: median {statistics.median(map(len, writes)):g}, most {len(most)},"
        f" goal {MOST_WRITES} and an event for each further stage of a Job"
    )
    # Single ones cost more where a look falls between two events of one change.
    assert statistics.median(map(_cost, writes)) <= MOST_WRITES, "\n".join(most)


def _cost(writes: list[str]) -> int:
    """Writes but for those that tell of a Job's further stages."""
    events = sum(write.endswith("/events") for write in writes)
    return len(writes) - max(0, events - 1)


async def _batch(b: Bench, run: Run) -> tuple[list[float], list[list[str]]]:
    """Transitions one after the other: seconds of each, and the writes it cost."""
    seconds, writes = [], []
    for _ in range(TRANSITIONS):
        await b.until(lambda: b.waits(run), f"a running pod of {run}")
        await b.quiet(0.1)
        before = len(b.server.writes)
        seconds.append(await b.transition(run))
        await b.quiet(0.1)
        writes.append(b.server.writes[before:])
    return seconds, writes


@asynccontextmanager
async def _bare_watcher(b: Bench) -> AsyncIterator[None]:
    """Its Jobs are copies of one of the operator's."""
    file = b.folder / "job.json"
    job = _bare_job(b)
    file.write_text(json.dumps(job), encoding="utf-8")
    program = Path(__file__).with_name("bare_watcher.py")
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(program), str(b.folder / "kubeconfig"), str(file), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"watching\n"
        b.cluster.create("jobs.batch", job, BARE[0])
        yield
    finally:
        process.terminate()
        await process.wait()


def _bare_job(b: Bench) -> Object:
    b.add_namespace(BARE[0])
    source = b.cluster.list("jobs.batch", OURS[0])[-1]
    template = source["spec"]["template"]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "first", "namespace": BARE[0], "labels": {RUN: BARE[1]}},
        "spec": {
            "backoffLimit": 0,
            "template": {"metadata": {"labels": {RUN: BARE[1]}}, "spec": template["spec"]},
        },
    }
