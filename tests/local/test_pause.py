"""Deadlines when the cluster is stopped and started again, on clocks of the test's own."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from local.cluster_kit import job
from srlm_local import pause
from srlm_local.jobcontroller.controller import JobController
from srlm_local.kinds import bootstrap
from srlm_local.kinds.table import new_cluster
from srlm_local.store.clock import to_seconds
from srlm_local.store.cluster import Cluster
from srlm_local.store.journal import Journal
from support.virtual_clock import VirtualClock


class Life:
    """The cluster of a folder from one start to the next stop."""

    def __init__(self, folder: Path, clock: VirtualClock) -> None:
        self.clock = clock
        self.cluster = new_cluster(clock=clock)
        self.journal = Journal.open(folder / "state", self.cluster)
        self.still = pause.resume(folder / "alive", self.cluster)
        bootstrap.prepare(self.cluster)
        self.tasks = [
            asyncio.create_task(JobController(self.cluster).run()),
            asyncio.create_task(pause.keep(folder / "alive", clock)),
        ]

    async def advance(self, seconds: float) -> None:
        for wait in (0.0, seconds, 0.0):
            for _ in range(60):
                await asyncio.sleep(0)
            await self.clock.advance(wait)

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        self.journal.close()

    def conditions(self) -> list[str]:
        status = self.cluster.get("jobs.batch", "j", "default")["status"]
        return [c["reason"] for c in status.get("conditions", []) if c["type"] == "Failed"]


@pytest.mark.parametrize("killed", [False, True])
async def test_a_deadline_goes_on_where_it_stopped(tmp_path: Path, killed: bool) -> None:
    first = Life(tmp_path, VirtualClock())
    assert first.still == timedelta()
    await first.advance(0)
    first.cluster.create("jobs.batch", job("j", activeDeadlineSeconds=30), "default")
    await first.advance(20)
    alive = (tmp_path / "alive").read_text()
    await first.stop()
    if killed:
        (tmp_path / "alive").write_text(alive)  # no farewell was written

    second = Life(tmp_path, VirtualClock(first.clock.now() + timedelta(minutes=40)))
    try:
        assert timedelta(minutes=40) <= second.still <= timedelta(minutes=40, seconds=pause.WRITE_SECONDS)
        await second.advance(9)
        assert second.conditions() == []
        await second.advance(1 + pause.WRITE_SECONDS)
        assert second.conditions() == ["DeadlineExceeded"]
    finally:
        await second.stop()


def stored(cluster: Cluster, resource: str, name: str, **parts: Any) -> None:
    meta = {"name": name, "namespace": "default", **parts.pop("metadata", {})}
    cluster.storage.put(resource, "default", name, {"metadata": meta, **parts})


def test_only_clocks_that_run_are_moved(tmp_path: Path) -> None:
    clock = VirtualClock()
    cluster, then = new_cluster(clock=clock), to_seconds(clock.now())
    done = [{"type": "Complete", "status": "True"}]
    deadline = {"activeDeadlineSeconds": 60}
    stored(cluster, "jobs.batch", "runs", spec=deadline, status={"startTime": then})
    stored(cluster, "jobs.batch", "ended", spec=deadline, status={"startTime": then, "conditions": done})
    stored(cluster, "jobs.batch", "unlimited", spec={}, status={"startTime": then})
    stored(cluster, "jobs.batch", "waits", spec=deadline, status={})
    stages = [{"name": "data", "temporarySince": then}, {"name": "sft"}]
    run = {"iterations": [{"name": "M1", "stages": stages}], "preflightStage": {"temporarySince": then}}
    stored(cluster, pause._RUNS, "tries", status=run)
    stored(cluster, pause._RUNS, "goes", metadata={"deletionTimestamp": then})
    stored(cluster, pause._RUNS, "new")
    before = cluster.version
    pause.write(tmp_path / "alive", clock.now() - timedelta(hours=1))
    assert pause.resume(tmp_path / "alive", cluster) == timedelta(hours=1)

    later = to_seconds(clock.now() + timedelta(hours=1))
    starts = {obj["metadata"]["name"]: obj["status"].get("startTime") for obj in cluster.storage.list("jobs.batch")}
    assert [name for name, start in starts.items() if start == later] == ["runs"]
    tries: Any = cluster.storage.get(pause._RUNS, "default", "tries")
    assert tries["status"]["iterations"][0]["stages"] == [{"name": "data", "temporarySince": later}, {"name": "sft"}]
    assert tries["status"]["preflightStage"] == {"temporarySince": later}
    goes: Any = cluster.storage.get(pause._RUNS, "default", "goes")
    assert goes["metadata"]["deletionTimestamp"] == later
    assert cluster.version == before + 3, "nothing else is written"
    assert pause.resume(tmp_path / "alive", cluster) == timedelta()


@pytest.mark.parametrize("text", ["", "yesterday", "2999-01-01T00:00:00+00:00"])
def test_what_cannot_be_told_moves_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "alive").write_text(text)
    assert pause.resume(tmp_path / "alive", new_cluster(clock=VirtualClock())) == timedelta()
