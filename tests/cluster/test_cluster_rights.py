"""The chart's rights are enough for everything the operator does, and none of them is idle, in both modes."""

from __future__ import annotations

from typing import Any

import pytest

from charts.test_chart_rbac import CLUSTER, LEADING, SERVING, Right
from srlm_operator.cluster.client import JOBS, PODS
from support.cluster.fixtures import MakeHarness
from support.cluster.harness import SHORT, Harness
from support.cluster.pod_groups import pod_groups

pytestmark = pytest.mark.e2e
EVENTS: Right = ("", "events", "list")
LOGS: Right = ("", "pods/log", "get")
POD_GROUP: Right = ("scheduling.k8s.io", "podgroups", "create")


def waiting(h: Harness) -> list[dict[str, Any]]:
    return [pod for pod in h.pods_of("data") if pod.get("status", {}).get("containerStatuses")]


async def live_through_everything(h: Harness) -> None:
    """A run that makes the operator do all it can: start again, lose a Job, ask for events, clean up."""
    await h.start()
    # A pod that waits for a volume: only events on it say why, and the operator asks after a while.
    h.pods.waiting["data"] = {"reason": "ContainerCreating"}
    h.pods.held.add("train")
    storage = {"uri": "s3://bucket/prefix", "retention": "DeleteAll"}
    await h.create(**SHORT, storage=storage, training={"nodes": 2}, ttlSecondsAfterFinished=3600)
    (pod,) = await h.until(lambda: waiting(h))
    since = {"status": {"startTime": "2020-01-01T00:00:00Z"}}
    await h.admin.merge(PODS, h.namespace, pod["metadata"]["name"], since, sub="status")
    await h.proxy.until(lambda: EVENTS in h.proxy.used())
    await h.pods.release("data")

    # Two nodes train, and the operator is away while their Job is deleted by hand.
    await h.until(lambda: h.record("train").get("state") == "Running")
    await h.proxy.until(lambda: LOGS in h.proxy.used())
    (job,) = h.jobs("train")
    await h.stop()
    await h.admin.remove(JOBS, h.namespace, job["metadata"]["name"])
    await h.until(lambda: not h.jobs("train"))
    await h.start()
    await h.until(lambda: [j for j in h.jobs("train") if j.get("status", {}).get("active")])

    await h.edit({"suspend": True})
    await h.until(lambda: h.status()["phase"] == "Suspended" and not h.jobs("train"))
    await h.pods.release("train")
    await h.edit({"suspend": False})
    await h.succeeded()
    await h.delete()
    await h.until(lambda: not h.view.objects["runs"])
    await h.stop()


@pytest.mark.parametrize("clusterwide", [True, False], ids=["cluster", "namespaced"])
async def test_rights_are_enough_and_none_is_idle(make_harness: MakeHarness, clusterwide: bool) -> None:
    async with make_harness(apart=True, clusterwide=clusterwide, leader_elect=True, progress_seconds=0.2) as h:
        # A cluster that serves no PodGroups leaves the right to make them idle.
        idle = set() if await pod_groups(h) else {POD_GROUP}
        await live_through_everything(h)
        assert [r for r in h.proxy.requests if r.status in (401, 403)] == []
        assert h.proxy.used() | idle == SERVING | LEADING | (CLUSTER if clusterwide else set())
