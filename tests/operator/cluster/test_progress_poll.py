"""Logs of many pods: each is read, never more than a few at a time."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from srlm_operator.cluster.client import Client
from srlm_operator.cluster.index import Key, World
from srlm_operator.cluster.progress_poll import ProgressPoll
from srlm_operator.errors import ApiError, NotFound, Refused, Unavailable

LINE = "PROGRESS judge rows=1/4 unit=verdicts"
PODS = 40


class Logs:
    """The one method of the client that is used; counts how many reads are on their way."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self.read: list[str] = []

    async def log_tail(self, _namespace: str, pod: str, _container: str) -> str:
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0)
        self.now -= 1
        self.read.append(pod)
        return LINE


def obj(name: str, uid: str, **fields: Any) -> dict[str, Any]:
    meta = {"name": name, "namespace": "ns", "uid": uid, "resourceVersion": "1"}
    return {"metadata": meta | fields.pop("metadata", {}), **fields}


async def test_a_few_logs_at_a_time() -> None:
    world, logs, touched = World(), Logs(), set[Key]()
    for number in range(PODS):
        run, uid = f"run-{number}", f"uid-{number}"
        labels = {"selfrewarding.dev/run": run, "selfrewarding.dev/run-uid": uid}
        world.feed("runs", obj(run, uid))
        world.feed("pods", obj(f"pod-{number}", f"p{uid}", metadata={"labels": labels}, status={"phase": "Running"}))
    poll = ProgressPoll(cast(Client, logs), world, 5, touched.add)
    assert await poll.look() == PODS
    assert sorted(logs.read) == sorted(f"pod-{number}" for number in range(PODS))
    assert 1 < logs.most <= 8
    assert touched == {("ns", f"run-{number}") for number in range(PODS)}
    touched.clear()
    assert await poll.look() == PODS
    assert touched == set()  # no figure has moved


async def test_a_pod_that_went_meanwhile_leaves_no_figure() -> None:
    world = World()
    labels = {"selfrewarding.dev/run": "run", "selfrewarding.dev/run-uid": "uid"}
    run, pod = obj("run", "uid"), obj("pod", "puid", metadata={"labels": labels}, status={"phase": "Running"})
    world.feed("runs", run)
    world.feed("pods", pod)

    class Leaving(Logs):
        async def log_tail(self, _namespace: str, pod_name: str, _container: str) -> str:
            world.feed("pods", pod, deleted=True)
            world.feed("runs", run, deleted=True)
            return LINE

    touched = set[Key]()
    await ProgressPoll(cast(Client, Leaving()), world, 5, touched.add).look()
    assert touched == set()
    assert not world.progress


@pytest.mark.parametrize(
    ("problem", "told"),
    [
        (Unavailable("dial tcp 10.0.0.1:10250: no route to host", 500), True),
        (Refused("pods is forbidden", 403), True),
        (Refused("container is waiting to start", 400), False),
        (NotFound("no such pod", 404), False),
    ],
)
async def test_a_log_that_cannot_be_read_is_told_once(
    problem: ApiError, told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    world = World()
    labels = {"selfrewarding.dev/run": "run", "selfrewarding.dev/run-uid": "uid"}
    world.feed("runs", obj("run", "uid"))
    world.feed("pods", obj("pod", "puid", metadata={"labels": labels}, status={"phase": "Running"}))
    problems: list[ApiError] = [problem, problem]

    class Unreadable(Logs):
        async def log_tail(self, *_: str) -> str:
            if problems:
                raise problems.pop()
            return LINE

    touched: list[Key] = []
    poll = ProgressPoll(cast(Client, Unreadable()), world, 5, touched.append)
    await poll.look()
    await poll.look()
    assert (len(touched), "pod" in world.unread.get("uid", ())) == (int(told), told)
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) == int(told)
    await poll.look()
    assert not world.unread.get("uid")
