"""Training over several nodes, over the wire: one Indexed Job, the headless Service its pods meet through, and the
PodGroup by which they start together where the cluster has such."""

from __future__ import annotations

import pytest

from srlm_operator.cluster.client import JOBS, POD_GROUPS
from support.cluster.faults import Cut, Fail
from support.cluster.fixtures import MakeHarness
from support.cluster.harness import SHORT, Harness
from support.cluster.pod_groups import pod_groups
from support.cluster.pods import task_of
from support.cluster.target import gone
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
            assert ("schedulingGroup" in pod["spec"]) == bool(await h.admin.first_served(POD_GROUPS))
        assert sorted(pod["spec"]["hostname"] for pod in h.pods_of("train")) == [f"{name}-0", f"{name}-1"]
        await h.pods.release("train")
        await h.succeeded()
        assert len(h.left()["services"]) == 1, "one for all trainings of the run"
        await h.delete()
        await h.until(lambda: not h.left())


async def test_both_pods_start_together_where_the_cluster_has_pod_groups(h: Harness) -> None:
    served = await pod_groups(h)
    if served is None:
        pytest.skip("the cluster serves no PodGroups")
    h.pods.held.add("train")
    await h.start()
    run = await h.create(**SHORT, **TWO_NODES, ttlSecondsAfterFinished=0)
    await h.until(lambda: len(h.pods_of("train")) == 2)
    group = await h.admin.get(served, h.namespace, f"{h.job('train')['metadata']['name']}-n2")
    assert group["spec"]["schedulingPolicy"] == {"gang": {"minCount": 2}}
    assert [owner["uid"] for owner in group["metadata"]["ownerReferences"]] == [run["metadata"]["uid"]]
    for pod in h.pods_of("train"):
        assert pod["spec"]["schedulingGroup"] == {"podGroupName": group["metadata"]["name"]}
    made = [seen.path.rpartition("/")[2] for seen in h.proxy.writes() if seen.method == "POST"]
    before = [made[n - 1] for n, kind in enumerate(made) if kind == "jobs"]
    assert before.count("podgroups") == made.count("podgroups") == 2, "one before each training's Job: sft and train"
    await h.pods.release("train")
    await h.succeeded()
    await h.delete()
    await h.until(lambda: not h.left())
    await gone(h.admin, served, group["metadata"]["name"], h.namespace)


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


async def test_death_between_what_a_job_needs_and_the_job(h: Harness) -> None:
    served = await pod_groups(h)
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
    if served is not None:
        assert len((await h.admin.list(served, h.namespace)).items) == 2, "sft's is the one from before"


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
