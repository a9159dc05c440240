"""Probes and metrics as kubelet and Prometheus see them: over HTTP, with a real API server behind the operator."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from srlm_operator.cluster.resync import Resync
from srlm_operator.process import Operator
from srlm_operator.settings import Settings
from support.cluster.faults import Fail, StallWatch
from support.cluster.fixtures import MakeHarness
from support.cluster.harness import SHORT, Harness
from support.stage_script import Ending


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
            with suppress(aiohttp.ClientConnectionError):  # a process takes a while to start
                if holds(found := await self.scrape()):
                    return found
        raise AssertionError

    async def ready(self) -> None:
        """Probe until readiness holds."""
        async for _ in looks():
            with suppress(aiohttp.ClientConnectionError):
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


Probed = Callable[..., AbstractAsyncContextManager[tuple[Harness, Prober]]]


@pytest.fixture
def probed(make_harness: MakeHarness) -> Probed:
    """A harness whose operator can be probed."""

    @asynccontextmanager
    async def make(**settings: Any) -> AsyncIterator[tuple[Harness, Prober]]:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = int(listener.getsockname()[1])
        more = {"health_port": port, "health_host": "127.0.0.1"}
        async with make_harness(**(more | settings)) as h, aiohttp.ClientSession() as session:
            yield h, Prober(session, port)

    return make


async def test_a_run_as_prometheus_sees_it(probed: Probed) -> None:
    async with probed() as (h, prober):
        h.pods.stages.fail("train", Ending(1))
        h.pods.held.add("train")
        await h.start()
        await h.create(**SHORT, failurePolicy={"backoffSeconds": 1})
        await h.until(lambda: h.jobs("train"))
        seen = await prober.until(lambda m: m["srlm_runs{phase=Running}"] == 1)
        assert seen[f"srlm_run_phase{{phase=Running,run=run,run_namespace={h.namespace}}}"] == 1
        assert seen["srlm_leader"] == 1
        assert seen["srlm_watch_silent"] == 0
        resources = [name for name in seen if name.startswith("srlm_watch_last_seen_timestamp_seconds{")]
        assert [name[len("srlm_watch_last_seen_timestamp_seconds{resource=") : -1] for name in resources] == [
            "selfrewardingruns", "jobs", "pods",
        ]  # fmt: skip
        await h.pods.release("train")
        await h.succeeded()
        seen = await prober.until(lambda m: m["srlm_runs{phase=Succeeded}"] == 1)
        assert seen["srlm_attempt_failures_total{reason=Crashed,stage=train}"] == 1
        assert seen["srlm_stage_retries_total{reason=Crashed,stage=train}"] == 1
        assert seen["srlm_jobs_created_total{stage=train}"] == 2
        assert seen["srlm_shards_done_total{stage=generate}"] == 2
        assert seen["srlm_preference_pairs_total"] == 600
        assert seen["srlm_api_writes_total{resource=jobs,verb=post}"] == len(h.jobs())
        assert seen["srlm_api_writes_total{resource=selfrewardingruns,verb=patch}"] > len(h.jobs())
        assert seen["srlm_reconcile_duration_seconds_count"] >= len(h.jobs())
        await prober.until(lambda m: m["srlm_reconcile_queue_length"] == m["srlm_reconciles_in_progress"] == 0)
        assert seen["process_resident_memory_bytes"] > 0

        await h.until(h.reported)  # whoever sees the report's end counts it
        await h.stop()
        await h.start()
        again = await prober.until(lambda m: m["srlm_runs{phase=Succeeded}"] == 1)
        counted = {n: x for n, x in again.items() if n.startswith("srlm_") and "_total" in n and "api" not in n}
        assert {n: x for n, x in counted.items() if x} == {}, "nothing is counted again by the next process"

        await h.delete()
        gone = await prober.until(lambda m: m["srlm_runs{phase=Succeeded}"] == 0)
        assert not [name for name in gone if "run=run" in name]


async def test_errors_of_the_api_are_counted_by_reason(probed: Probed) -> None:
    async with probed() as (h, prober):
        message = "jobs.batch is forbidden: exceeded quota: none"
        h.proxy.add(Fail(path="/jobs$", methods={"POST"}, status=403, message=message))
        await h.start()
        await h.create(**SHORT)
        seen = await prober.until(lambda m: any(name.startswith("srlm_api_errors_total") for name in m))
        assert seen["srlm_api_errors_total{reason=QuotaExceeded,verb=post}"] >= 1


@pytest.mark.one_machine("two operators, of which one is in this process")
async def test_a_standby_answers_probes_and_has_sane_metrics(probed: Probed) -> None:
    async with probed(leader_elect=True, lease_seconds=6) as (h, prober):
        probed_settings = Settings(**h.settings)
        h.settings["health_port"] = 0
        await h.start()
        await h.create(**SHORT)
        await h.succeeded()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("KUBECONFIG", str(h.kubeconfig))
            standby = Operator(probed_settings)
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
            await h.stop()
            await prober.until(lambda m: m["srlm_leader"] == 1 and m["srlm_runs{phase=Succeeded}"] == 1)
        finally:
            stop.set()
            await task


@pytest.mark.one_machine("reaches into the operator in this process")
@pytest.mark.parametrize("namespaces", [(), ("team", "kube-system")])
async def test_a_quiet_cluster_is_not_a_silent_one(probed: Probed, namespaces: tuple[str, ...]) -> None:
    """The clock of liveness is the test's own; reconnects are real."""
    async with probed(clusterwide=True, namespaces=namespaces, watch_silence_seconds=2) as (h, prober):
        now = [0.0]
        await h.start()
        assert h.operator is not None
        h.operator.life._clock = lambda: now[0]
        h.operator.life.begin()
        for _ in range(3):
            now[0] += 1.9
            assert await prober.get("/healthz") == (200, "ok")
            async for _ in looks():
                if set(h.operator.life.ages().values()) == {0.0}:
                    break
        assert now[0] > 5, "more than twice the limit, without a single event"
        assert set(h.operator.life.ages()) == {"selfrewardingruns", "jobs", "pods"}


@pytest.mark.parametrize("resource", ["selfrewardingruns", "jobs", "pods"])
async def test_a_watch_that_goes_silent_fails_liveness(probed: Probed, resource: str) -> None:
    async with probed(watch_silence_seconds=1.5) as (h, prober):
        await h.start()
        await prober.ready()
        h.proxy.add(StallWatch(path=f"/{resource}$"))
        text = await prober.health(503)
        assert text.startswith("no sign of life from the watch of ")
        assert f"{resource} (" in text
        assert text.endswith("the limit is 2 s")
        seen = await prober.scrape()
        assert seen["srlm_watch_silent"] == 1
        dates = {n: x for n, x in seen.items() if n.startswith("srlm_watch_last_seen_timestamp_seconds{")}
        assert f"resource={resource}" in min(dates, key=lambda name: dates[name])
        assert (await prober.get("/readyz"))[0] == 200
        h.proxy.clear()
        assert await prober.health(200) == "ok", "the watch came back before anybody restarted us"


async def test_a_namespace_that_refuses_does_not_stop_the_others(probed: Probed) -> None:
    """Deleted, or without the Role: it is left out, and taken up by a new start once it can be listed."""
    async with probed(clusterwide=True, resync_seconds=0.2) as (h, prober):
        h.settings["namespaces"] = (h.namespace, "kube-system")
        h.proxy.add(Fail(path="/namespaces/kube-system/", status=403))
        await h.start()
        await h.create(**SHORT)
        await h.succeeded()
        assert await prober.health(200) == "ok"
        h.proxy.clear()
        assert await prober.health(503) == "namespace kube-system can be served now: a new start takes it up"
        await h.stop()
        await h.start()
        assert await prober.health(200) == "ok"
        assert "/apis/batch/v1/namespaces/kube-system/jobs" in [r.path for r in h.proxy.requests if r.status == 200]


@pytest.mark.one_machine("reaches into the operator in this process")
async def test_a_run_deleted_while_the_operator_starts_is_forgotten(
    probed: Probed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deleted after our listing and before Kopf's: no watch tells of it."""
    async with probed() as (h, prober):
        await h.create(**SHORT, suspend=True)
        fill = Resync.fill

        async def fill_and_delete(self: Resync) -> None:
            await fill(self)
            await h.delete()

        monkeypatch.setattr(Resync, "fill", fill_and_delete)
        await h.start()
        assert h.operator is not None
        async for _ in looks():
            if h.operator.world.run((h.namespace, "run")) is None:
                break
        await prober.until(lambda m: m["srlm_runs{phase=Pending}"] == m["srlm_runs{phase=Suspended}"] == 0)


@pytest.mark.one_machine("reaches into the operator in this process")
async def test_a_stop_is_not_lost_when_a_watch_begins_anew_just_then(probed: Probed) -> None:
    async with probed() as (h, _):
        await h.start()
        assert h.operator is not None
        new_watch = asyncio.Event()
        comparing = asyncio.create_task(h.operator._keep_comparing(new_watch))
        await asyncio.sleep(0)
        new_watch.set()
        comparing.cancel()
        done, _pending = await asyncio.wait({comparing}, timeout=5)
        assert done
        assert comparing.cancelled()


async def test_a_leader_is_not_ready_before_its_watches_run(probed: Probed) -> None:
    async with probed() as (h, prober):
        h.proxy.add(StallWatch(path="/pods$"))
        await h.start()
        await prober.health(200)
        assert await prober.get("/readyz") == (503, "not ready")
        h.proxy.clear()
        await prober.ready()


@pytest.mark.one_machine("reaches into the operator in this process")
async def test_watches_that_have_ended_fail_liveness(probed: Probed) -> None:
    async with probed() as (h, prober):
        await h.start()
        assert h.operator is not None
        ended = asyncio.get_running_loop().create_future()
        ended.set_result(None)
        h.operator._following, real = ended, h.operator._following
        assert await prober.get("/healthz") == (503, "the watches have ended")
        h.operator._following = real
        assert await prober.get("/healthz") == (200, "ok")


def test_the_default_allows_ten_minutes() -> None:
    assert Settings().watch_silence_seconds == 600
