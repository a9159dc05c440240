"""The Job controller in virtual time, pods played by hand. What a real one does is in the recordings
(test_job_replay.py); this needs none, and adds crashes of the controller itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from local.cluster_kit import job, new_cluster
from srlm_local.jobcontroller import indexes
from srlm_local.jobcontroller.backoff import Backoff
from srlm_local.jobcontroller.controller import JobController
from srlm_local.jobcontroller.sync import Pass
from srlm_local.kinds import bootstrap
from srlm_local.store.clock import to_seconds
from srlm_local.store.cluster import Cluster
from support.virtual_clock import VirtualClock

Object = dict[str, Any]
DISRUPTION = {"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]}
NO_ACCESS = {"rules": [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [77]}}]}


class World:
    """A cluster with its controllers; time moves by `advance`."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.cluster: Cluster = new_cluster(self.clock)

    async def advance(self, seconds: float = 0) -> None:
        """Lets everything happen that happens within so many seconds."""
        for _ in range(60):
            await asyncio.sleep(0)
        await self.clock.advance(seconds)
        for _ in range(60):
            await asyncio.sleep(0)

    async def create(self, name: str = "j", **spec: Any) -> None:
        self.cluster.create("jobs.batch", job(name, **spec), "default")
        await self.advance()

    def job(self, name: str = "j") -> Object:
        return self.cluster.get("jobs.batch", name, "default")

    def status(self) -> Object:
        status: Object = self.job()["status"]
        return status

    def conditions(self) -> list[str]:
        return [f"{c['type']}:{c['reason']}" for c in self.status().get("conditions", []) if c["status"] == "True"]

    def pods(self, phase: str = "Pending") -> list[Object]:
        return [p for p in self.cluster.list("pods", "default") if p["status"]["phase"] == phase]

    async def end(self, pod: Object, code: int = 0, *, disrupted: bool = False) -> None:
        """The pod's container ends with an exit code."""
        name, now = pod["metadata"]["name"], to_seconds(self.clock.now())
        state = {"terminated": {"exitCode": code, "startedAt": now, "finishedAt": now}}
        container = {"name": "main", "image": "i", "imageID": "", "ready": False, "restartCount": 0, "state": state}
        target = {"type": "DisruptionTarget", "status": "True", "lastTransitionTime": now, "reason": "Test"}
        pod = self.cluster.get("pods", name, "default")
        pod["status"] |= {"phase": "Failed" if code else "Succeeded", "containerStatuses": [container]}
        pod["status"]["conditions"] = [target] if disrupted else []
        self.cluster.update("pods", pod, subresource="status")
        await self.advance()

    async def end_index(self, index: int, code: int = 0) -> None:
        key = "batch.kubernetes.io/job-completion-index"
        await self.end(next(p for p in self.pods() if p["metadata"]["labels"][key] == str(index)), code)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    async with running(made):
        yield made


@asynccontextmanager
async def running(made: World) -> AsyncIterator[None]:
    tasks = [*bootstrap.start(made.cluster), asyncio.create_task(JobController(made.cluster).run())]
    await made.advance()
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_two_completions_one_after_the_other(world: World) -> None:
    await world.create(completions=2)
    for _ in range(2):
        [pod] = world.pods()
        await world.end(pod)
    assert world.status()["succeeded"] == 2
    assert world.conditions() == ["SuccessCriteriaMet:CompletionsReached", "Complete:CompletionsReached"]
    assert all("finalizers" not in p["metadata"] for p in world.pods("Succeeded"))
    assert world.status()["uncountedTerminatedPods"] == {}


async def test_backoff_doubles_and_the_limit_ends_it(world: World) -> None:
    await world.create(backoffLimit=2)
    for wait in (10, 20):
        await world.end(world.pods()[0], 1)
        await world.advance(wait - 1)
        assert world.pods() == []
        await world.advance(1)
        assert len(world.pods()) == 1
    await world.end(world.pods()[0], 1)
    assert world.status()["failed"] == 3
    assert world.conditions() == ["FailureTarget:BackoffLimitExceeded", "Failed:BackoffLimitExceeded"]


async def test_disrupted_pods_are_replaced_and_not_counted(world: World) -> None:
    await world.create(backoffLimit=0, podFailurePolicy=DISRUPTION)
    await world.end(world.pods()[0], 137, disrupted=True)
    await world.advance(10)
    await world.end(world.pods()[0])
    assert "failed" not in world.status()
    assert world.conditions()[-1] == "Complete:CompletionsReached"


async def test_policy_fails_the_job_at_once(world: World) -> None:
    await world.create(backoffLimit=6, podFailurePolicy=NO_ACCESS, parallelism=2, completions=2)
    first, _ = world.pods()
    await world.end(first, 77)
    assert world.conditions() == ["FailureTarget:PodFailurePolicy", "Failed:PodFailurePolicy"]
    name = first["metadata"]["name"]
    message = f"Container main for pod default/{name} failed with exit code 77 matching FailJob rule at index 0"
    assert world.status()["conditions"][0]["message"] == message
    assert world.pods() == []  # the other one is gone


async def test_indexed_job_has_a_pod_for_each_index(world: World) -> None:
    await world.create(completionMode="Indexed", completions=5, parallelism=5)
    made = world.pods()
    assert [p["spec"]["hostname"] for p in made] == [f"j-{n}" for n in range(5)]
    assert {e["name"] for e in made[0]["spec"]["containers"][0]["env"]} == {"JOB_COMPLETION_INDEX"}
    for index in (4, 0, 2, 1):
        await world.end_index(index)
    assert world.status()["completedIndexes"] == "0-2,4"
    await world.end_index(3)
    assert world.status()["completedIndexes"] == "0-4"
    assert world.conditions()[-1] == "Complete:CompletionsReached"


async def test_failures_are_limited_for_each_index(world: World) -> None:
    await world.create(completionMode="Indexed", completions=2, parallelism=2, backoffLimitPerIndex=1)
    await world.end_index(0, 1)
    assert "failed" not in world.status()  # counted once it is replaced
    await world.advance(10)
    assert world.status()["failed"] == 1
    await world.end_index(0, 1)
    assert world.status()["failedIndexes"] == "0"
    assert world.conditions() == []
    await world.end_index(1)
    assert world.conditions() == ["FailureTarget:FailedIndexes", "Failed:FailedIndexes"]
    assert world.status()["completedIndexes"] == "1"


async def test_suspension_removes_pods_and_counts_nothing(world: World) -> None:
    await world.create()
    world.cluster.patch("jobs.batch", "j", {"spec": {"suspend": True}}, "default")
    await world.advance()
    assert world.pods() == []
    assert world.conditions() == ["Suspended:JobSuspended"]
    assert "startTime" not in world.status()
    await world.advance(100)
    world.cluster.patch("jobs.batch", "j", {"spec": {"suspend": False}}, "default")
    await world.advance()
    assert world.status()["startTime"] == to_seconds(world.clock.now())
    assert "failed" not in world.status()
    assert len(world.pods()) == 1


async def test_deadline(world: World) -> None:
    await world.create(activeDeadlineSeconds=30)
    await world.advance(29)
    assert world.conditions() == []
    await world.advance(1)
    assert world.conditions() == ["FailureTarget:DeadlineExceeded", "Failed:DeadlineExceeded"]
    assert world.pods() == []


async def test_ttl_removes_job_and_pods(world: World) -> None:
    await world.create(ttlSecondsAfterFinished=60)
    await world.end(world.pods()[0])
    await world.advance(59)
    assert world.conditions()[-1] == "Complete:CompletionsReached"
    await world.advance(1)
    assert world.cluster.list("jobs.batch") == []
    assert world.cluster.list("pods") == []


async def test_ttl_given_later_counts_from_the_end(world: World) -> None:
    await world.create()
    await world.end(world.pods()[0])
    await world.advance(100)
    world.cluster.patch("jobs.batch", "j", {"spec": {"ttlSecondsAfterFinished": 60}}, "default")
    await world.advance()
    assert world.cluster.list("jobs.batch") == []


@pytest.mark.parametrize("propagation", ["Background", "Foreground"])
async def test_deletion_takes_the_pods_along(world: World, propagation: str) -> None:
    await world.create()
    world.cluster.delete("jobs.batch", "j", "default", propagation=propagation)
    await world.advance()
    assert world.cluster.list("jobs.batch") == []
    assert world.cluster.list("pods") == []


@pytest.mark.parametrize("crash_before", range(1, 7))
async def test_a_controller_killed_between_two_writes_counts_nothing_twice(crash_before: int) -> None:
    """The writes of a pass fail from the n-th on, as if the controller had died there; a new one takes over."""
    made = World()
    async with running(made):
        await made.create(completions=2, parallelism=2, backoffLimit=6)
        pods = made.pods()
    for pod, code in zip(pods, (0, 1), strict=True):
        await made.end(pod, code)
    one = Pass(made.cluster, made.job(), made.cluster.list("pods", "default"), Backoff())
    left = crash_before

    class Killed(Exception):
        pass

    def die(_: object) -> None:
        nonlocal left
        left -= 1
        if left <= 0:
            raise Killed

    made.cluster.storage.hooks.append(die)
    with pytest.raises(Killed):
        one.run()
    made.cluster.storage.hooks.remove(die)
    async with running(made):
        await made.advance(60)
        assert (made.status()["succeeded"], made.status()["failed"]) == (1, 1)
        await made.end(made.pods()[0])
        assert made.status()["succeeded"] == 2
        assert made.conditions()[-1] == "Complete:CompletionsReached"


@pytest.mark.parametrize(
    ("found", "text"), [([], ""), ([3], "3"), ([0, 1], "0,1"), ([2, 0, 1], "0-2"), ([0, 1, 2, 4, 6, 7], "0-2,4,6,7")]
)
def test_index_lists(found: list[int], text: str) -> None:
    assert indexes.render(found) == text
    assert indexes.parse(text) == set(found)
