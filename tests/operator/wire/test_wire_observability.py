"""Probes and metrics as kubelet and Prometheus see them: over HTTP, with a real API server behind the operator."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from srlm_local.provision import SYSTEM_NAMESPACE
from srlm_operator.cluster.resync import Resync
from srlm_operator.process import Operator
from srlm_operator.settings import Settings
from support.faults import Fail, FaultProxy, StallWatch
from support.stage_script import Ending
from support.wire import RUNS, SHORT, Wire, wire

Folder = tuple[Path, pytest.MonkeyPatch]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    return tmp_path, monkeypatch


@pytest.fixture
def port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass
class Prober:
    """kubelet and Prometheus."""

    session: aiohttp.ClientSession
    port: int

    async def get(self, path: str) -> tuple[int, str]:
        async with self.session.get(f"http://127.0.0.1:{self.port}{path}") as answer:
            return answer.status, await answer.text()

    async def scrape(self) -> dict[str, float]:
        """`name{label="value"}` → figure."""
        status, text = await self.get("/metrics")
        assert status == 200
        found = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = ",".join(f"{name}={text}" for name, text in sorted(sample.labels.items()))
                found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
        return found

    async def until(self, holds: Callable[[dict[str, float]], Any]) -> dict[str, float]:
        """Scrape until it holds."""
        async for _ in looks():
            if holds(found := await self.scrape()):
                return found
        raise AssertionError

    async def ready(self) -> None:
        """Probe until readiness holds."""
        async for _ in looks():
            if await self.get("/readyz") == (200, "ok"):
                return
        raise AssertionError

    async def health(self, status: int) -> str:
        """Probe until liveness answers so."""
        async for _ in looks():
            with suppress(aiohttp.ClientConnectionError):
                answered, text = await self.get("/healthz")
                if answered == status:
                    return text
        raise AssertionError


async def looks() -> AsyncIterator[None]:
    """As often as needed, for a minute at most."""
    async with asyncio.timeout(60):
        while True:
            yield
            await asyncio.sleep(0.02)


@asynccontextmanager
async def probed(folder: Folder, port: int, **settings: Any) -> AsyncIterator[tuple[Wire, Prober]]:
    more = {"health_port": port, "health_host": "127.0.0.1"}
    async with wire(*folder, **(more | settings)) as w, aiohttp.ClientSession() as session:
        yield w, Prober(session, port)


async def test_a_run_as_prometheus_sees_it(folder: Folder, port: int) -> None:
    async with probed(folder, port) as (w, prober):
        w.pods.stages.fail("train", Ending(1))
        w.pods.held.add("train")
        await w.start_operator()
        w.apply(**SHORT, failurePolicy={"backoffSeconds": 1})
        await w.until(lambda: any("train" in node for node in w.nodes()))
        seen = await prober.until(lambda m: m["srlm_runs{phase=Running}"] == 1)
        assert seen["srlm_run_phase{phase=Running,run=run,run_namespace=default}"] == 1
        assert seen["srlm_leader"] == 1
        assert seen["srlm_watch_silent"] == 0
        resources = [name for name in seen if name.startswith("srlm_watch_last_seen_timestamp_seconds{")]
        assert [name[len("srlm_watch_last_seen_timestamp_seconds{resource=") : -1] for name in resources] == [
            "selfrewardingruns", "jobs", "pods",
        ]  # fmt: skip
        w.pods.release("train")
        await w.until(lambda: w.condition("Ready"))
        seen = await prober.until(lambda m: m["srlm_runs{phase=Succeeded}"] == 1)
        assert seen["srlm_attempt_failures_total{reason=Crashed,stage=train}"] == 1
        assert seen["srlm_stage_retries_total{reason=Crashed,stage=train}"] == 1
        assert seen["srlm_jobs_created_total{stage=train}"] == 2
        assert seen["srlm_shards_done_total{stage=generate}"] == 2
        assert seen["srlm_preference_pairs_total"] == 600
        assert seen["srlm_api_writes_total{resource=jobs,verb=post}"] == len(w.jobs())
        assert seen["srlm_api_writes_total{resource=selfrewardingruns,verb=patch}"] > len(w.jobs())
        assert seen["srlm_reconcile_duration_seconds_count"] >= len(w.jobs())
        await prober.until(lambda m: m["srlm_reconcile_queue_length"] == m["srlm_reconciles_in_progress"] == 0)
        assert seen["process_resident_memory_bytes"] > 0

        await w.stop_operator()
        await w.start_operator()
        again = await prober.until(lambda m: m["srlm_runs{phase=Succeeded}"] == 1)
        counted = {n: x for n, x in again.items() if n.startswith("srlm_") and "_total" in n and "api" not in n}
        assert set(counted.values()) == {0.0}, "nothing is counted again by the next process"

        w.cluster.delete(RUNS, "run", "default")
        gone = await prober.until(lambda m: m["srlm_runs{phase=Succeeded}"] == 0)
        assert not [name for name in gone if "run=run" in name]


async def test_errors_of_the_api_are_counted_by_reason(folder: Folder, port: int) -> None:
    async with probed(folder, port) as (w, prober):
        path = w.folder / "kubeconfig"
        proxy = await FaultProxy(json.loads(path.read_text())).start()
        path.write_text(json.dumps(proxy.kubeconfig()))
        message = "jobs.batch is forbidden: exceeded quota: none"
        proxy.add(Fail(path="/jobs$", methods={"POST"}, status=403, message=message))
        try:
            await w.start_operator()
            w.apply(**SHORT)
            seen = await prober.until(lambda m: any(name.startswith("srlm_api_errors_total") for name in m))
            assert seen["srlm_api_errors_total{reason=QuotaExceeded,verb=post}"] >= 1
        finally:
            await w.stop_operator()
            await proxy.stop()


async def test_a_standby_answers_probes_and_has_sane_metrics(folder: Folder, port: int) -> None:
    more: dict[str, Any] = {"leader_elect": True, "lease_namespace": SYSTEM_NAMESPACE, "lease_seconds": 6}
    async with probed(folder, port, **more) as (w, prober):
        w.settings = w.settings.override(health_port=0)
        await w.start_operator()
        w.apply(**SHORT)
        await w.until(lambda: w.condition("Ready"))
        standby = Operator(w.settings.override(health_port=port))
        stop = asyncio.Event()
        task = asyncio.create_task(standby.run(stop))
        try:
            assert await prober.health(200) == "ok"
            assert await prober.get("/readyz") == (200, "ok"), "a rollout must not wait for the lease"
            seen = await prober.scrape()
            assert seen["srlm_leader"] == 0
            assert {x for n, x in seen.items() if n.startswith("srlm_runs{")} == {0.0}
            assert not [n for n in seen if n.startswith(("srlm_watch_last_seen", "srlm_run_"))]
            assert seen["srlm_watch_silent"] == 0
            await w.stop_operator()
            await prober.until(lambda m: m["srlm_leader"] == 1 and m["srlm_runs{phase=Succeeded}"] == 1)
        finally:
            stop.set()
            await task


@pytest.mark.parametrize("namespaces", [(), ("default", "kube-system")])
async def test_a_quiet_cluster_is_not_a_silent_one(folder: Folder, port: int, namespaces: tuple[str, ...]) -> None:
    """The clock of liveness is the test's own; reconnects are real."""
    async with probed(folder, port, namespaces=namespaces, watch_silence_seconds=2) as (w, prober):
        now = [0.0]
        await w.start_operator()
        assert w.operator is not None
        w.operator.life._clock = lambda: now[0]
        w.operator.life.begin()
        for _ in range(3):
            now[0] += 1.9
            assert await prober.get("/healthz") == (200, "ok")
            async for _ in looks():
                if set(w.operator.life.ages().values()) == {0.0}:
                    break
        assert now[0] > 5, "more than twice the limit, without a single event"
        assert set(w.operator.life.ages()) == {"selfrewardingruns", "jobs", "pods"}


@pytest.mark.parametrize("resource", ["selfrewardingruns", "jobs", "pods"])
async def test_a_watch_that_goes_silent_fails_liveness(folder: Folder, port: int, resource: str) -> None:
    async with probed(folder, port, watch_silence_seconds=1.5) as (w, prober):
        path = w.folder / "kubeconfig"
        proxy = await FaultProxy(json.loads(path.read_text())).start()
        path.write_text(json.dumps(proxy.kubeconfig()))
        try:
            await w.start_operator()
            await prober.ready()
            proxy.add(StallWatch(path=f"/{resource}$"))
            text = await prober.health(503)
            assert text.startswith("no sign of life from the watch of ")
            assert f"{resource} (" in text
            assert text.endswith("the limit is 2 s")
            seen = await prober.scrape()
            assert seen["srlm_watch_silent"] == 1
            dates = {n: x for n, x in seen.items() if n.startswith("srlm_watch_last_seen_timestamp_seconds{")}
            assert f"resource={resource}" in min(dates, key=lambda name: dates[name])
            assert (await prober.get("/readyz"))[0] == 200
            proxy.clear()
            assert await prober.health(200) == "ok", "the watch came back before anybody restarted us"
        finally:
            await w.stop_operator()
            await proxy.stop()


async def test_a_namespace_that_refuses_does_not_stop_the_others(folder: Folder, port: int) -> None:
    """Deleted, or without the Role: it is left out, and taken up by a new start once it can be listed."""
    async with probed(folder, port, namespaces=("default", "kube-system"), resync_seconds=0.2) as (w, prober):
        path = w.folder / "kubeconfig"
        proxy = await FaultProxy(json.loads(path.read_text())).start()
        path.write_text(json.dumps(proxy.kubeconfig()))
        proxy.add(Fail(path="/namespaces/kube-system/", status=403))
        try:
            await w.start_operator()
            w.apply(**SHORT)
            await w.until(lambda: w.condition("Ready"))
            assert await prober.health(200) == "ok"
            proxy.clear()
            assert await prober.health(503) == "namespace kube-system can be served now: a new start takes it up"
            await w.stop_operator()
            await w.start_operator()
            assert await prober.health(200) == "ok"
            assert w.operator is not None
            assert w.operator.resync.served == ("default", "kube-system")
        finally:
            await w.stop_operator()
            await proxy.stop()


async def test_a_run_deleted_while_the_operator_starts_is_forgotten(folder: Folder, port: int) -> None:
    """Deleted after our listing and before Kopf's: no watch tells of it."""
    async with probed(folder, port) as (w, prober):
        w.apply(**SHORT, suspend=True)
        fill = Resync.fill

        async def fill_and_delete(self: Resync) -> None:
            await fill(self)
            w.cluster.delete(RUNS, "run", "default")

        folder[1].setattr(Resync, "fill", fill_and_delete)
        await w.start_operator()
        assert w.operator is not None
        async for _ in looks():
            if w.operator.world.run(("default", "run")) is None:
                break
        await prober.until(lambda m: m["srlm_runs{phase=Pending}"] == m["srlm_runs{phase=Suspended}"] == 0)


async def test_a_stop_is_not_lost_when_a_watch_begins_anew_just_then(folder: Folder, port: int) -> None:
    async with probed(folder, port) as (w, _):
        await w.start_operator()
        assert w.operator is not None
        new_watch = asyncio.Event()
        comparing = asyncio.create_task(w.operator._keep_comparing(new_watch))
        await asyncio.sleep(0)
        new_watch.set()
        comparing.cancel()
        done, _pending = await asyncio.wait({comparing}, timeout=5)
        assert done
        assert comparing.cancelled()


async def test_a_leader_is_not_ready_before_its_watches_run(folder: Folder, port: int) -> None:
    async with probed(folder, port) as (w, prober):
        path = w.folder / "kubeconfig"
        proxy = await FaultProxy(json.loads(path.read_text())).start()
        path.write_text(json.dumps(proxy.kubeconfig()))
        proxy.add(StallWatch(path="/pods$"))
        try:
            await w.start_operator()
            await prober.health(200)
            assert await prober.get("/readyz") == (503, "not ready")
            proxy.clear()
            await prober.ready()
        finally:
            await w.stop_operator()
            await proxy.stop()


async def test_watches_that_have_ended_fail_liveness(folder: Folder, port: int) -> None:
    async with probed(folder, port) as (w, prober):
        await w.start_operator()
        assert w.operator is not None
        ended = asyncio.get_running_loop().create_future()
        ended.set_result(None)
        w.operator._following, real = ended, w.operator._following
        assert await prober.get("/healthz") == (503, "the watches have ended")
        w.operator._following = real
        assert await prober.get("/healthz") == (200, "ok")


def test_the_default_allows_ten_minutes() -> None:
    assert Settings().watch_silence_seconds == 600
