"""Training over several nodes, over the wire: one Indexed Job, and the headless Service its pods meet through."""

from __future__ import annotations

import pytest

from srlm_operator.cluster.client import JOBS
from support.cluster.faults import Cut, Fail
from support.cluster.fixtures import MakeHarness
from support.cluster.harness import SHORT, Harness
from support.cluster.pods import task_of
from support.stage_script import Ending

TWO_NODES = {"training": {"nodes": 2, "processesPerNode": 2}}


async def test_two_pods_of_one_job_find_each_other_by_name(make_harness: MakeHarness) -> None:
    async with make_harness(gpu_resource="none") as h:
        await h.start()
        h.pods.held.add("train")
        await h.create(**SHORT, **TWO_NODES)
        await h.until(lambda: len(h.pods_of("train")) == 2)
        name = h.job("train")["metadata"]["name"]
        (service,) = h.view.objects["services"].values()
        assert service["spec"]["clusterIP"] == "None"
        assert service["spec"]["publishNotReadyAddresses"] is True
        for pod in h.pods_of("train"):
            assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
            assert pod["spec"]["subdomain"] == service["metadata"]["name"]
            # What cluster DNS makes of hostname and subdomain is where all of them look for the first.
            where = f"{name}-0.{service['metadata']['name']}.{h.namespace}.svc"
            assert task_of(pod).process.master_address == where
        assert sorted(pod["spec"]["hostname"] for pod in h.pods_of("train")) == [f"{name}-0", f"{name}-1"]
        await h.pods.release("train")
        await h.succeeded()
        assert len(h.left()["services"]) == 1, "one for all trainings of the run"
        await h.delete()
        await h.until(lambda: not h.left())


async def test_a_refused_service_shows_and_its_job_waits_for_it(h: Harness) -> None:
    message = 'services "x" is forbidden: no headless Services here'
    h.proxy.add(Fail(path="/services$", methods={"POST"}, status=403, message=message))
    await h.start()
    await h.create(**SHORT, **TWO_NODES)
    stalled = await h.until(lambda: h.condition("Stalled"))
    assert (stalled["reason"], "no headless Services here" in stalled["message"]) == ("Forbidden", True)
    assert h.jobs("sft") == []
    h.proxy.clear()
    await h.succeeded()


async def test_death_between_service_and_job(h: Harness) -> None:
    await h.start()
    h.pods.held.add("data")
    await h.create(**SHORT, **TWO_NODES)
    await h.until(lambda: h.jobs("data"))
    death = Cut(path="/jobs$", methods={"POST"})
    h.proxy.add(death)
    await h.pods.release("data")
    await h.until(lambda: h.left().get("services"))
    await h.proxy.until(lambda: death.seen)
    await h.kill()
    assert h.jobs("sft") == []
    h.proxy.clear()
    await h.start()
    await h.succeeded()
    assert len(h.left()["services"]) == 1


@pytest.mark.parametrize(("node", "exit_code"), [(0, 1), (1, 137)])
async def test_one_lost_node_ends_the_attempt_of_all(h: Harness, node: int, exit_code: int) -> None:
    h.pods.held.add("train")
    await h.start()
    await h.create(**SHORT, **TWO_NODES, failurePolicy={"backoffSeconds": 0})
    await h.until(lambda: len(h.running("train")) == 2)
    lost = h.running("train")[node]["metadata"]["name"]
    (job,) = h.jobs("train")
    await h.pods.end(h.running("train")[node], Ending(exit_code))
    await h.until(lambda: len(h.jobs("train")) == 2)
    failed = await h.admin.get(JOBS, h.namespace, job["metadata"]["name"])
    assert any(c["type"] == "Failed" and c["status"] == "True" for c in failed["status"]["conditions"])
    await h.pods.release("train")
    await h.succeeded()
    record = h.record("train")
    assert (record["attempt"], record["countedFailures"]) == (2, 1)
    assert lost in record["lastFailure"]["message"]
