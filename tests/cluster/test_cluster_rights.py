"""The chart's rights are enough for everything the operator does, and none of them is idle, in both modes."""

from __future__ import annotations

from typing import Any

import pytest

from charts.test_chart_rbac import CLUSTER, LEADING, SERVING, Right
from cluster.bench import SHORT, Bench
from cluster.conftest import MakeBench
from srlm_operator.cluster.client import JOBS, PODS
from srlm_operator.names import LABEL_NODE

pytestmark = pytest.mark.e2e
EVENTS: Right = ("", "events", "list")
LOGS: Right = ("", "pods/log", "get")


def waiting(b: Bench) -> list[dict[str, Any]]:
    pods = [p for p in b.view.objects["pods"].values() if p["metadata"]["labels"][LABEL_NODE] == "data"]
    return [pod for pod in pods if pod.get("status", {}).get("containerStatuses")]


async def live_through_everything(b: Bench) -> None:
    """A run that makes the operator do all it can: start again, lose a Job, ask for events, clean up."""
    b.start()
    # A pod that waits for a volume: only events on it say why, and the operator asks after a while.
    b.pods.waiting["data"] = {"reason": "ContainerCreating"}
    b.pods.held.add("train")
    storage = {"uri": "s3://bucket/prefix", "retention": "DeleteAll"}
    await b.create(**SHORT, storage=storage, training={"nodes": 2}, ttlSecondsAfterFinished=3600)
    (pod,) = await b.until(lambda: waiting(b))
    since = {"status": {"startTime": "2020-01-01T00:00:00Z"}}
    await b.admin.merge(PODS, b.namespace, pod["metadata"]["name"], since, sub="status")
    await b.proxy.until(lambda: EVENTS in b.proxy.used())
    await b.pods.release("data")

    # Two nodes train, and the operator is away while their Job is deleted by hand.
    await b.until(lambda: b.record("train").get("state") == "Running")
    await b.proxy.until(lambda: LOGS in b.proxy.used())
    (job,) = b.jobs("train")
    await b.stop()
    await b.admin.remove(JOBS, b.namespace, job["metadata"]["name"])
    await b.until(lambda: not b.jobs("train"))
    b.start()
    await b.until(lambda: [j for j in b.jobs("train") if j.get("status", {}).get("active")])

    await b.edit({"suspend": True})
    await b.until(lambda: b.status()["phase"] == "Suspended" and not b.jobs("train"))
    await b.pods.release("train")
    await b.edit({"suspend": False})
    await b.succeeded()
    await b.delete()
    await b.until(lambda: not b.view.objects["runs"])
    await b.stop()


@pytest.mark.parametrize("clusterwide", [True, False], ids=["cluster", "namespaced"])
async def test_rights_are_enough_and_none_is_idle(make_bench: MakeBench, clusterwide: bool) -> None:
    async with make_bench(clusterwide=clusterwide, LEADER_ELECT="true", PROGRESS_SECONDS="0.2") as b:
        await live_through_everything(b)
        assert [r for r in b.proxy.requests if r.status in (401, 403)] == []
        assert b.proxy.used() == SERVING | LEADING | (CLUSTER if clusterwide else set())
