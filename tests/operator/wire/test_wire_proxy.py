"""An API server that loses answers, refuses, forgets events and shows the past: the run ends as an undisturbed one.

Nothing is done twice: no Job of a name is ever made again, and none is deleted that should run.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

import pytest

from support.cluster.faults import WRITES, Cut, CutWatch, DropEvent, Fail, HoldEvents, Rule
from support.cluster.fixtures import MakeHarness
from support.cluster.harness import SHORT, Harness

OURS = r"/(selfrewardingruns|jobs|pods|services|events)\b"
#: Names, times and versions, and what depends on how often somebody looked.
MASKED = {
    "startedAt", "finishedAt", "attemptStartedAt", "checkedAt", "createdAt", "madeAt", "lastTransitionTime", "job",
    "etaSeconds", "seconds", "end",
}  # fmt: skip
JOBS_OF_A_RUN = 9


Behind = Callable[[], AbstractAsyncContextManager[Harness]]


@pytest.fixture
def behind(make_harness: MakeHarness) -> Behind:
    """Listings find soon what no event told."""
    return partial(make_harness, resync_seconds=0.3, gpu_resource="none")


def masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: masked(v) for k, v in value.items() if k not in MASKED}
    return [masked(v) for v in value] if isinstance(value, list) else value


async def finished(h: Harness) -> list[str]:
    """The masked status as lines of JSON, once the run and its report are done."""
    await h.until(h.reported)
    text = json.dumps(masked(h.status()), indent=1, sort_keys=True)
    return text.replace(h.namespace, "NAMESPACE").splitlines()


_calm: list[str] = []


@pytest.fixture
async def calm(make_harness: MakeHarness) -> list[str]:
    """The end of a run that nothing disturbs; made once."""
    if not _calm:
        async with make_harness(gpu_resource="none") as h:
            await h.start()
            await h.create(**SHORT)
            _calm.extend(await finished(h))
    return _calm


async def ends_as(calm: list[str], h: Harness) -> None:
    """The run ends like an undisturbed one, with nothing done twice."""
    assert await finished(h) == calm
    assert len(h.made()) == len(set(h.made())) == JOBS_OF_A_RUN
    assert len(h.pods.stages.ran) == len(set(h.pods.stages.ran)) + 1  # generate has two shards


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
async def test_requests_that_fail(behind: Behind, calm: list[str], rule: Rule) -> None:
    async with behind() as h:
        await h.start()
        h.proxy.add(rule)
        await h.create(**SHORT)
        await ends_as(calm, h)
        assert rule.seen >= 4


@pytest.mark.parametrize(
    "lost", ["selfrewardingruns MODIFIED", "jobs ADDED", "jobs MODIFIED", "jobs ", "pods ADDED", "pods MODIFIED"]
)
async def test_no_event_of_a_kind_arrives(behind: Behind, calm: list[str], lost: str) -> None:
    plural, kind = lost.split(" ")
    async with behind() as h:
        await h.start()
        rule = h.proxy.add(DropEvent(path=rf"/{plural}\b", kind=kind))
        await h.create(**SHORT)
        await ends_as(calm, h)
        assert rule.seen >= 1


@pytest.mark.parametrize("every", [2, 3])
async def test_some_events_are_lost(behind: Behind, calm: list[str], every: int) -> None:
    async with behind() as h:
        await h.start()
        h.proxy.add(DropEvent(path=OURS, every=every))
        await h.create(**SHORT)
        await ends_as(calm, h)


async def test_watches_that_end_again_and_again(behind: Behind, calm: list[str]) -> None:
    async with behind() as h:
        await h.start()
        rule = h.proxy.add(CutWatch(path=OURS, every=5))
        await h.create(**SHORT)
        await ends_as(calm, h)
        assert rule.seen >= 5


@pytest.mark.parametrize("plural", ["jobs", "pods"])
async def test_events_that_come_late(behind: Behind, calm: list[str], plural: str) -> None:
    async with behind() as h:
        await h.start()
        rule = HoldEvents(path=rf"/{plural}\b", nth=3)
        h.proxy.add(rule)
        await h.create(**SHORT)
        await h.until(lambda: h.jobs("generate"))
        rule.release()  # and all of them come at once, long after listings told the same
        await ends_as(calm, h)


async def test_restart_against_an_older_version(make_harness: MakeHarness, calm: list[str]) -> None:
    """An API server behind the others lists the past, and its watches replay what happened since."""
    async with make_harness(gpu_resource="none") as h:
        await h.start()
        h.pods.held.add("train")
        await h.create(**SHORT)
        await h.until(lambda: h.jobs("data"))
        old = h.job("data")["metadata"]["resourceVersion"]
        # What the past does not show must be in status by then: else it is found in the store, and called reused.
        await h.until(lambda: h.jobs("train") and h.record("pairs").get("state") == "Succeeded")
        before = h.status()
        await h.kill()
        h.proxy.stale_since(old)
        asked = len(h.proxy.requests)
        await h.start()
        listings = ("batch", "jobs", "list")  # the operator's at the start, and Kopf's
        await h.proxy.until(lambda: [r.right for r in h.proxy.requests[asked:]].count(listings) >= 2)
        h.proxy.clear()
        await h.pods.release("train")
        await ends_as(calm, h)
        assert not [c for c in h.view.history if c.kind == "jobs" and "deletionTimestamp" in c.object["metadata"]]
        seen = [c.object.get("status", {}).get("iteration", 0) for c in h.view.history if c.kind == "runs"]
        assert seen == sorted(seen)
        assert before["iteration"] == 1


async def test_a_quota_on_jobs_shows_with_the_servers_words_and_is_waited_for(h: Harness) -> None:
    words = 'jobs.batch "x" is forbidden: exceeded quota: none, requested: count/jobs.batch=1'
    h.proxy.add(Fail(path=r"/jobs$", methods={"POST"}, status=403, message=words))
    await h.start()
    await h.create(**SHORT)
    await h.until(lambda: h.condition("Reconciling").get("reason") == "QuotaExceeded")
    assert "exceeded quota: none" in h.condition("Reconciling")["message"]
    h.proxy.clear()
    await h.succeeded()
    assert h.status()["preflightStage"].get("countedFailures", 0) == 0
