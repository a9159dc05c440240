"""An API server that loses answers, refuses, forgets events and shows the past: the run ends as an undisturbed one.

Nothing is done twice: no Job of a name is ever made again, and none is deleted that should run.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from support.faults import WRITES, Cut, CutWatch, DropEvent, Fail, FaultProxy, HoldEvents, Rule
from support.wire import JOBS, RUNS, SHORT, Wire, wire

OURS = r"/(selfrewardingruns|jobs|pods|services|events)\b"
#: Names, times and versions, and what depends on how often somebody looked.
MASKED = {
    "startedAt", "finishedAt", "attemptStartedAt", "checkedAt", "createdAt", "madeAt", "lastTransitionTime", "job",
    "etaSeconds", "seconds", "end",
}  # fmt: skip
JOBS_OF_A_RUN = 9


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, pytest.MonkeyPatch]:
    return tmp_path, monkeypatch


@asynccontextmanager
async def behind_proxy(folder: Any, **settings: Any) -> AsyncIterator[tuple[Wire, FaultProxy]]:
    """A cluster that the operator reaches through the proxy only."""
    where, monkeypatch = folder
    async with wire(*folder, resync_seconds=0.3, **settings) as w:
        direct = YAML(typ="safe").load((where / "kubeconfig").read_text())
        proxy = await FaultProxy(direct).start()
        (where / "proxied").write_text(json.dumps(proxy.kubeconfig()))
        monkeypatch.setenv("KUBECONFIG", str(where / "proxied"))
        try:
            yield w, proxy
        finally:
            await w.stop_operator()
            await proxy.stop()


def masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: masked(v) for k, v in value.items() if k not in MASKED}
    return [masked(v) for v in value] if isinstance(value, list) else value


async def finished(w: Wire) -> list[str]:
    """The masked status as lines of JSON, once the run and its report are done."""
    await w.until(w.reported)
    return json.dumps(masked(w.status()), indent=1, sort_keys=True).splitlines()


_calm: list[str] = []


@pytest.fixture
async def calm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The end of a run that nothing disturbs; made once."""
    if not _calm:
        (tmp_path / "calm").mkdir()
        async with wire(tmp_path / "calm", monkeypatch) as w:
            await w.start_operator()
            w.apply(**SHORT)
            _calm.extend(await finished(w))
    return _calm


def jobs_made(changes: Any) -> list[str]:
    return [change.name for change in changes if change.resource == JOBS and change.type == "ADDED"]


async def ends_as(calm: list[str], w: Wire) -> None:
    """The run ends like an undisturbed one, with no Job made twice."""
    watcher = w.cluster.storage.watcher(w.cluster.version)
    w.apply(**SHORT)
    assert await finished(w) == calm
    made = jobs_made(watcher.poll())
    watcher.close()
    assert len(made) == len(set(made)) == JOBS_OF_A_RUN
    assert len(w.pods.stages.ran) == len(set(w.pods.stages.ran)) + 1  # generate has two shards


@pytest.mark.parametrize(
    "rule",
    [
        Cut(path=OURS, methods=WRITES, every=2, after=True),
        Cut(path=OURS, methods=WRITES, every=3),
        Fail(path=OURS, methods=WRITES, every=2, status=500),
        Fail(path=OURS, methods=WRITES, every=3, status=409),
        Fail(path=OURS, every=4, status=429),
        Fail(path=r"/events\b", methods=WRITES, status=403),
    ],
    ids=["answers-lost", "requests-lost", "errors", "conflicts", "overload", "no-events"],
)
async def test_requests_that_fail(folder: Any, calm: list[str], rule: Rule) -> None:
    async with behind_proxy(folder) as (w, proxy):
        await w.start_operator()
        proxy.add(rule)
        await ends_as(calm, w)
        assert rule.seen >= 4


@pytest.mark.parametrize(
    "lost", ["selfrewardingruns MODIFIED", "jobs ADDED", "jobs MODIFIED", "pods ADDED", "pods MODIFIED"]
)
async def test_no_event_of_a_kind_arrives(folder: Any, calm: list[str], lost: str) -> None:
    plural, kind = lost.split()
    async with behind_proxy(folder) as (w, proxy):
        await w.start_operator()
        rule = proxy.add(DropEvent(path=rf"/{plural}\b", kind=kind))
        await ends_as(calm, w)
        assert rule.seen >= 1


@pytest.mark.parametrize("every", [2, 3])
async def test_some_events_are_lost(folder: Any, calm: list[str], every: int) -> None:
    async with behind_proxy(folder) as (w, proxy):
        await w.start_operator()
        proxy.add(DropEvent(path=OURS, every=every))
        await ends_as(calm, w)


async def test_watches_that_end_again_and_again(folder: Any, calm: list[str]) -> None:
    async with behind_proxy(folder) as (w, proxy):
        await w.start_operator()
        rule = proxy.add(CutWatch(path=OURS, every=5))
        await ends_as(calm, w)
        assert rule.seen >= 5


@pytest.mark.parametrize("plural", ["jobs", "pods"])
async def test_events_that_come_late(folder: Any, calm: list[str], plural: str) -> None:
    async with behind_proxy(folder) as (w, proxy):
        await w.start_operator()
        rule = HoldEvents(path=rf"/{plural}\b", nth=3)
        proxy.add(rule)
        watcher = w.cluster.storage.watcher(w.cluster.version)
        w.apply(**SHORT)
        await w.until(lambda: "1/generate" in w.nodes())
        rule.release()  # and all of them come at once, long after listings told the same
        assert await finished(w) == calm
        made = jobs_made(watcher.poll())
        watcher.close()
        assert len(made) == len(set(made)) == JOBS_OF_A_RUN


async def test_restart_against_an_older_version(folder: Any, calm: list[str]) -> None:
    """An API server behind the others lists the past, and its watches replay what happened since."""
    async with behind_proxy(folder) as (w, proxy):
        await w.start_operator()
        watcher = w.cluster.storage.watcher(w.cluster.version)
        w.pods.held.add("train")
        w.apply(**SHORT)
        await w.until(lambda: "0/data" in w.nodes())
        old = str(w.cluster.version)
        await w.until(lambda: "1/train" in w.nodes())
        before = w.cluster.get(RUNS, "run", "default")["status"]
        await w.kill_operator()
        proxy.stale_since(old)
        await w.start_operator()
        assert w.operator is not None
        await w.operator.resync.compare()  # against the past, too
        proxy.clear()
        w.pods.release("train")
        assert await finished(w) == calm
        changes = list(watcher.poll())
        watcher.close()
        made = jobs_made(changes)
        assert len(made) == len(set(made)) == JOBS_OF_A_RUN
        assert not [c.name for c in changes if c.resource == JOBS and "deletionTimestamp" in c.object["metadata"]]
        seen = [c.object.get("status", {}).get("iteration", 0) for c in changes if c.resource == RUNS]
        assert seen == sorted(seen)
        assert before["iteration"] == 1


async def test_a_quota_on_jobs_shows_with_the_servers_words_and_is_waited_for(folder: Any) -> None:
    async with behind_proxy(folder, refused_retry_seconds=0.2) as (w, proxy):
        words = 'jobs.batch "x" is forbidden: exceeded quota: none, requested: count/jobs.batch=1'
        proxy.add(Fail(path=r"/jobs$", methods={"POST"}, status=403, message=words))
        await w.start_operator()
        w.apply(**SHORT)
        waiting = await w.until(lambda: w.condition("Reconciling").get("reason") == "QuotaExceeded")
        assert waiting
        assert "exceeded quota: none" in w.condition("Reconciling")["message"]
        proxy.clear()
        await w.until(lambda: w.condition("Ready"))
        assert w.status()["preflightStage"].get("countedFailures", 0) == 0
