"""Jobs under a queue's control, with a stand-in for Kueue: it admits by starting a Job, and evicts by suspending it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from srlm_operator.names import QUEUE_LABEL
from support.wire import JOBS, SHORT, Wire, wire

QUEUED = {"scheduling": {"queueName": "gpu-queue", "cpuQueueName": "gpu-queue", "priorityClassName": "research"}}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, pytest.MonkeyPatch]:
    return tmp_path, monkeypatch


def job(w: Wire, node: str) -> dict[str, Any]:
    """The Job of a node that is not on its way out."""
    found = [j for j in w.jobs() if j["metadata"]["labels"]["selfrewarding.dev/node"] == node]
    return found[-1] if found else {}


def admit(w: Wire, node: str) -> None:
    """Kueue puts the flavour's node selector into the template, and starts the Job, in one write."""
    change = {"suspend": False, "template": {"spec": {"nodeSelector": {"flavor": "h100"}}}}
    w.cluster.patch(JOBS, job(w, node)["metadata"]["name"], {"spec": change}, "default")


def evict(w: Wire, node: str) -> None:
    w.cluster.patch(JOBS, job(w, node)["metadata"]["name"], {"spec": {"suspend": True}}, "default")


def waits(w: Wire, node: str) -> bool:
    found = w.condition("Reconciling")
    mine = job(w, node)
    return bool(mine) and found.get("reason") == "WaitingForQueue" and mine["metadata"]["name"] in found["message"]


async def test_every_job_waits_until_the_queue_admits_it(folder: Any) -> None:
    async with wire(*folder) as w:
        w.cluster.create("priorityclasses.scheduling.k8s.io", {"metadata": {"name": "research"}, "value": 1})
        await w.start_operator()
        w.apply(**SHORT, **QUEUED)
        seen: set[str] = set()
        while not w.condition("Ready"):
            await w.until(lambda: w.condition("Ready") or any(j["spec"].get("suspend") for j in w.jobs()))
            for found in [j for j in w.jobs() if j["spec"].get("suspend")]:
                node = found["metadata"]["labels"]["selfrewarding.dev/node"]
                assert found["metadata"]["labels"][QUEUE_LABEL] == "gpu-queue"
                assert found["spec"]["template"]["spec"]["priorityClassName"] == "research"
                assert node not in seen, f"{node} was made twice"
                seen.add(node)
                admit(w, node)
        assert {"preflight", "data", "sft", "prompts", "generate", "judge", "pairs", "train"} <= seen


async def test_a_waiting_job_says_so(folder: Any) -> None:
    async with wire(*folder) as w:
        await w.start_operator()
        w.apply(**SHORT, scheduling={"queueName": "gpu-queue", "cpuQueueName": "gpu-queue"})
        await w.until(lambda: waits(w, "preflight"))
        await w.until(lambda: any(e["reason"] == "WaitingForQueue" for e in w.cluster.list("events")))
        assert w.cluster.list("pods") == []


async def test_an_evicted_job_waits_and_goes_on_without_counting(folder: Any) -> None:
    async with wire(*folder) as w:
        w.pods.held.add("data")
        await w.start_operator()
        w.apply(**SHORT, scheduling={"queueName": "gpu-queue", "cpuQueueName": "gpu-queue"})
        await w.until(lambda: waits(w, "preflight"))
        admit(w, "preflight")
        await w.until(lambda: waits(w, "data"))
        admit(w, "data")
        await w.until(lambda: job(w, "data").get("status", {}).get("active"))
        first = job(w, "data")
        evict(w, "data")
        await w.until(lambda: waits(w, "data") and not job(w, "data")["status"].get("active"))
        assert job(w, "data")["metadata"]["uid"] == first["metadata"]["uid"]
        # What the queue wrote into the Job is the queue's.
        assert job(w, "data")["spec"]["template"]["spec"]["nodeSelector"] == {"flavor": "h100"}
        assert job(w, "data")["spec"]["suspend"] is True
        w.pods.release("data")
        admit(w, "data")
        await w.until(lambda: waits(w, "sft"))
        record = next(s for s in w.status()["iterations"][0]["stages"] if s["name"] == "data")
        assert (record["state"], record["attempt"], record.get("countedFailures", 0)) == ("Succeeded", 1, 0)


async def test_leaving_the_queue_replaces_the_job_that_waits(folder: Any) -> None:
    async with wire(*folder) as w:
        await w.start_operator()
        w.apply(**SHORT, scheduling={"queueName": "gpu-queue", "cpuQueueName": "gpu-queue"})
        await w.until(lambda: waits(w, "preflight"))
        w.edit({"scheduling": {"queueName": None, "cpuQueueName": None}})
        await w.until(lambda: w.condition("Ready"))
        assert w.status()["preflightStage"].get("countedFailures", 0) == 0
