"""Leader election against the one-machine API server."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from srlm_local.http.server import ApiServer
from srlm_local.kinds import bootstrap
from srlm_local.kinds.table import new_cluster
from srlm_local.store.cluster import Cluster
from srlm_operator.cluster.client import Client, load_configuration
from srlm_operator.cluster.leader import LeaderElection, LeadershipLost
from srlm_operator.settings import Settings

LEASES = "leases.coordination.k8s.io"


@asynccontextmanager
async def api(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Cluster, Client]]:
    cluster = new_cluster()
    bootstrap.prepare(cluster)
    server = ApiServer(cluster)
    await server.start()
    server.write_kubeconfig(folder / "kubeconfig")
    monkeypatch.setenv("KUBECONFIG", str(folder / "kubeconfig"))
    try:
        async with Client(load_configuration()) as client:
            yield cluster, client
    finally:
        await server.stop()


@contextmanager
def served_elsewhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """The API server in a thread, with an event loop of its own."""
    begun: Future[tuple[Cluster, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve() -> None:
        stop = asyncio.Event()
        async with api(folder, monkeypatch) as (cluster, _):
            begun.set_result((cluster, asyncio.get_running_loop(), stop))
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    cluster, loop, stop = begun.result(timeout=30)
    try:
        yield cluster
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


def candidate(client: Client, seconds: float = 60) -> LeaderElection:
    return LeaderElection(client, Settings(lease_namespace="default", lease_seconds=seconds))


async def test_one_leads_the_other_takes_over_when_it_lets_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with api(tmp_path, monkeypatch) as (cluster, client):
        first, second = candidate(client), candidate(client)
        stop = asyncio.Event()
        assert await first.acquire(stop)
        assert not await second._try(client)
        holder = cluster.get(LEASES, "self-rewarding-operator", "default")["spec"]
        assert holder["holderIdentity"] == first.identity
        await first.release()
        assert await second._try(client)
        holder = cluster.get(LEASES, "self-rewarding-operator", "default")["spec"]
        assert (holder["holderIdentity"], holder["leaseTransitions"]) == (second.identity, 1)


async def test_a_dead_holder_is_replaced_after_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with api(tmp_path, monkeypatch) as (_, client):
        assert await candidate(client, 1).acquire(asyncio.Event())  # and never renews
        second = candidate(client, 1)
        async with asyncio.timeout(20):
            assert await second.acquire(asyncio.Event())


async def test_a_stolen_lease_ends_the_holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with api(tmp_path, monkeypatch) as (cluster, client):
        first = candidate(client, 1)
        assert await first.acquire(asyncio.Event())
        lease = cluster.get(LEASES, "self-rewarding-operator", "default")
        lease["spec"] |= {"holderIdentity": "thief", "leaseDurationSeconds": 3600}
        cluster.update(LEASES, lease)
        with pytest.raises(LeadershipLost):
            await first.keep()


def renewed(cluster: Cluster, holder: LeaderElection) -> int:
    """Versions of the Lease that were seen, at most four, while the event loop that calls this stands still."""
    versions, end = set[str](), time.monotonic() + 10
    while len(versions) < 4 and time.monotonic() < end:
        lease = cluster.get(LEASES, "self-rewarding-operator", "default")
        assert lease["spec"]["holderIdentity"] == holder.identity
        versions.add(lease["metadata"]["resourceVersion"])
        time.sleep(0.01)  # leaves the interpreter to the threads that renew and answer
    return len(versions)


def test_a_busy_loop_does_not_lose_the_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with served_elsewhere(tmp_path, monkeypatch) as cluster:

        async def lead() -> None:
            async with Client(load_configuration()) as client:
                first = candidate(client, 0.5)
                assert await first.acquire(asyncio.Event())
                keeping = asyncio.create_task(first.keep())
                await asyncio.sleep(0)
                assert renewed(cluster, first) == 4, "one acquired, three renewed"
                await asyncio.sleep(0)
                assert not keeping.done()
                keeping.cancel()
                await asyncio.wait([keeping])
                assert keeping.cancelled()

        asyncio.run(lead())


async def test_requests_that_hang_end_the_holder_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not when they time out, after 30 s: by then another one leads."""
    async with api(tmp_path, monkeypatch) as (_, client):
        first = candidate(client, 1)
        assert await first.acquire(asyncio.Event())
        monkeypatch.setattr(Client, "get", lambda *_: asyncio.Event().wait())
        with pytest.raises(LeadershipLost, match="in time"):
            async with asyncio.timeout(20):
                await first.keep()


async def test_a_lease_that_cannot_be_had_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with api(tmp_path, monkeypatch) as (_, client):
        settings = Settings(lease_namespace="nowhere", lease_seconds=0.05)
        stop = asyncio.Event()
        waiting = asyncio.create_task(LeaderElection(client, settings).acquire(stop))
        await asyncio.wait([waiting], timeout=0.5)
        stop.set()
        assert not await waiting
        told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert len(told) == 1
        assert "nowhere" in told[0]


async def test_stop_ends_the_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with api(tmp_path, monkeypatch) as (_, client):
        assert await candidate(client).acquire(asyncio.Event())
        stop = asyncio.Event()
        waiting = asyncio.create_task(candidate(client).acquire(stop))
        stop.set()
        assert not await waiting
