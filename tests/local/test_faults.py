"""The fault-injecting proxy does what it says, and nothing else."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from srlm_local.http.server import ApiServer
from srlm_local.kinds import bootstrap
from srlm_local.kinds.table import new_cluster
from srlm_local.store.cluster import Cluster
from support.cluster.admin import configuration
from support.cluster.faults import WRITES, Cut, CutWatch, DropEvent, Fail, FaultProxy, HoldEvents

PATH = "/api/v1/namespaces/default/configmaps"


class Kit:
    """A cluster, the proxy before it, and a client of the proxy."""

    def __init__(self, cluster: Cluster, proxy: FaultProxy, session: aiohttp.ClientSession) -> None:
        self.cluster, self.proxy, self.session = cluster, proxy, session

    async def create(self, name: str) -> int:
        async with self.session.post(PATH, json={"metadata": {"name": name}}) as response:
            return response.status

    async def names(self) -> list[str]:
        async with self.session.get(PATH, params={"labelSelector": "!system"}) as response:
            items = (await response.json())["items"]
        return [i["metadata"]["name"] for i in items]

    async def events(self, since: int, count: int) -> list[tuple[str, str]]:
        """The first `count` events of a watch, or fewer if it ends."""
        found: list[tuple[str, str]] = []
        query = {"watch": "true", "resourceVersion": str(since), "timeoutSeconds": "5"}
        async with self.session.get(PATH, params=query) as response:
            while len(found) < count and (line := await response.content.readline()):
                event: dict[str, Any] = json.loads(line)
                found.append((event["type"], event["object"]["metadata"]["name"]))
        return found


@pytest.fixture
async def kit(tmp_path: Path) -> AsyncIterator[Kit]:
    cluster = new_cluster(seed=1)
    bootstrap.prepare(cluster)
    server = await ApiServer(cluster).start()
    server.write_kubeconfig(tmp_path / "kubeconfig")
    proxy = await FaultProxy(configuration(tmp_path / "kubeconfig")).start()
    headers = {"Authorization": f"Bearer {server.tokens.admin}"}
    async with aiohttp.ClientSession(proxy.url, headers=headers) as session:
        yield Kit(cluster, proxy, session)
    await proxy.stop()
    await server.stop()


async def test_without_rules_everything_passes(kit: Kit) -> None:
    assert await kit.create("a") == 201
    assert await kit.names() == ["a"]
    assert [(w.method, w.path, w.status) for w in kit.proxy.writes()] == [("POST", PATH, 201)]


async def test_only_the_nth_write_fails_and_never_arrives(kit: Kit) -> None:
    kit.proxy.add(Fail(methods=WRITES, path="configmaps", nth=2, status=503))
    assert [await kit.create(name) for name in "abc"] == [201, 503, 201]
    assert await kit.names() == ["a", "c"]


async def test_a_refusal_has_the_words_that_were_asked_for(kit: Kit) -> None:
    kit.proxy.add(Fail(path="configmaps", status=403, message="exceeded quota: q"))
    async with kit.session.post(PATH, json={}) as response:
        body = await response.json()
    assert (response.status, body["reason"], body["message"]) == (403, "Forbidden", "exceeded quota: q")


async def test_a_cut_before_the_write_leaves_nothing_done(kit: Kit) -> None:
    kit.proxy.add(Cut(methods=WRITES, nth=1))
    with pytest.raises(aiohttp.ClientConnectionError):
        await kit.create("a")
    assert kit.cluster.find("configmaps", "a", "default") is None


async def test_a_cut_after_the_write_loses_only_the_answer(kit: Kit) -> None:
    kit.proxy.add(Cut(methods=WRITES, nth=1, after=True))
    with pytest.raises(aiohttp.ClientConnectionError):
        await kit.create("a")
    assert kit.cluster.find("configmaps", "a", "default") is not None


async def test_one_event_is_dropped(kit: Kit) -> None:
    start = kit.cluster.version
    for name in "abc":
        kit.cluster.create("configmaps", {"metadata": {"name": name}}, "default")
    kit.proxy.add(DropEvent(path="configmaps", kind="ADDED", nth=2))
    assert await kit.events(start, 2) == [("ADDED", "a"), ("ADDED", "c")]


async def test_a_watch_is_cut_after_an_event(kit: Kit) -> None:
    start = kit.cluster.version
    for name in "abc":
        kit.cluster.create("configmaps", {"metadata": {"name": name}}, "default")
    kit.proxy.add(CutWatch(path="configmaps", nth=1))
    assert await kit.events(start, 3) == [("ADDED", "a")]


async def test_held_events_come_when_they_are_released(kit: Kit) -> None:
    start = kit.cluster.version
    for name in "ab":
        kit.cluster.create("configmaps", {"metadata": {"name": name}}, "default")
    hold = HoldEvents(path="configmaps", nth=2)
    kit.proxy.add(hold)
    query = {"watch": "true", "resourceVersion": str(start), "timeoutSeconds": "30"}
    async with kit.session.get(PATH, params=query) as response:
        first = json.loads(await response.content.readline())
        assert first["object"]["metadata"]["name"] == "a"
        assert hold.seen <= 2
        hold.release()
        second = json.loads(await response.content.readline())
        assert second["object"]["metadata"]["name"] == "b"


async def test_lists_can_be_made_old(kit: Kit) -> None:
    kit.cluster.create("configmaps", {"metadata": {"name": "a"}}, "default")
    version = kit.cluster.version
    kit.cluster.create("configmaps", {"metadata": {"name": "b"}}, "default")
    kit.cluster.delete("configmaps", "a", "default")
    kit.proxy.stale_since(str(version))
    assert await kit.names() == ["a"]
    assert await kit.events(version, 2) == [("ADDED", "b"), ("DELETED", "a")]
    kit.proxy.clear()
    assert await kit.names() == ["b"]
