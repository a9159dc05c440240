"""Jobs under a queue's control, with a stand-in for Kueue: it admits by starting a Job, and evicts by suspending it."""

from __future__ import annotations

from srlm_operator.cluster.client import JOBS
from srlm_operator.names import QUEUE_LABEL
from support.cluster.admin import PRIORITIES
from support.cluster.harness import SHORT, Harness, node_id

QUEUED = {"scheduling": {"queueName": "gpu-queue", "cpuQueueName": "gpu-queue"}}


async def admit(h: Harness, node: str) -> None:
    """Kueue puts the flavour's node selector into the template, and starts the Job, in one write."""
    change = {"suspend": False, "template": {"spec": {"nodeSelector": {"flavor": "h100"}}}}
    await h.admin.merge(JOBS, h.namespace, h.job(node)["metadata"]["name"], {"spec": change})


async def evict(h: Harness, node: str) -> None:
    await h.admin.merge(JOBS, h.namespace, h.job(node)["metadata"]["name"], {"spec": {"suspend": True}})


def waits(h: Harness, node: str) -> bool:
    found, job = h.condition("Reconciling"), h.job(node)
    return bool(job) and found.get("reason") == "WaitingForQueue" and job["metadata"]["name"] in found["message"]


async def test_every_job_waits_until_the_queue_admits_it(h: Harness) -> None:
    priority = f"{h.namespace}-research"
    await h.put_unscoped(PRIORITIES, priority, value=1)
    await h.start()
    await h.create(**SHORT, scheduling={**QUEUED["scheduling"], "priorityClassName": priority})
    seen: set[str] = set()

    def asking() -> list[str]:
        return [node_id(job) for job in h.jobs() if job["spec"].get("suspend") and node_id(job) not in seen]

    while not h.condition("Ready"):
        await h.until(lambda: h.condition("Ready") or asking())
        for node in asking():
            job = h.job(node.partition("/")[2])
            assert job["metadata"]["labels"][QUEUE_LABEL] == "gpu-queue"
            assert job["spec"]["template"]["spec"]["priorityClassName"] == priority
            seen.add(node)
            await admit(h, node.partition("/")[2])
    assert len(h.made()) == len(set(h.made())), "no node was made twice"
    assert {"0/data", "0/sft", "1/prompts", "1/generate", "1/judge", "1/pairs", "1/train"} <= seen


async def test_a_waiting_job_says_so(h: Harness) -> None:
    await h.start()
    await h.create(**SHORT, **QUEUED)
    await h.until(lambda: waits(h, "preflight"))
    await h.until(lambda: h.events("WaitingForQueue"))
    assert h.pods_of("preflight") == []


async def test_an_evicted_job_waits_and_goes_on_without_counting(h: Harness) -> None:
    h.pods.held.add("data")
    await h.start()
    await h.create(**SHORT, **QUEUED)
    await h.until(lambda: waits(h, "preflight"))
    await admit(h, "preflight")
    await h.until(lambda: waits(h, "data"))
    await admit(h, "data")
    await h.until(lambda: h.job("data").get("status", {}).get("active"))
    first = h.job("data")
    await evict(h, "data")
    await h.until(lambda: waits(h, "data") and not h.job("data")["status"].get("active"))
    assert h.job("data")["metadata"]["uid"] == first["metadata"]["uid"]
    # What the queue wrote into the Job is the queue's.
    assert h.job("data")["spec"]["template"]["spec"]["nodeSelector"] == {"flavor": "h100"}
    assert h.job("data")["spec"]["suspend"] is True
    await h.pods.release("data")
    await admit(h, "data")
    await h.until(lambda: waits(h, "sft"))
    record = h.record("data", 0)
    assert (record["state"], record["attempt"], record.get("countedFailures", 0)) == ("Succeeded", 1, 0)


async def test_leaving_the_queue_replaces_the_job_that_waits(h: Harness) -> None:
    await h.start()
    await h.create(**SHORT, **QUEUED)
    await h.until(lambda: waits(h, "preflight"))
    await h.edit({"scheduling": {"queueName": None, "cpuQueueName": None}})
    await h.succeeded()
    assert h.status()["preflightStage"].get("countedFailures", 0) == 0
