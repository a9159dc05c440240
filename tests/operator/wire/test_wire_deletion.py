"""Runs that are let go, also when nothing can be cleaned up any more: no storage, no Secret, no namespace."""

from __future__ import annotations

from typing import Any

import pytest

from srlm_operator.cluster.client import PODS
from srlm_operator.names import FINALIZER, LABEL_NODE
from support.cluster.admin import CONFIG_MAPS, SECRETS
from support.cluster.fixtures import MakeHarness
from support.cluster.harness import SHORT, Harness
from support.cluster.view import Change
from support.stage_script import error


def storage(retention: str) -> dict[str, Any]:
    return {"uri": "s3://bucket/prefix", "retention": retention, "credentialsSecretRef": {"name": "s3"}}


async def started(h: Harness, retention: str) -> None:
    """A run whose two generate pods are running."""
    h.pods.held.add("generate")
    await h.start()
    await h.create(**SHORT, storage=storage(retention))
    await h.until(lambda: len(h.running("generate")) == 2)
    finalizers = h.run()["metadata"].get("finalizers", [])
    assert finalizers == ([FINALIZER] if retention != "Retain" else [])


async def test_deletion_stops_cleans_up_and_leaves_nothing(h: Harness) -> None:
    await h.start()
    h.pods.held.add("train")
    await h.create(**SHORT, storage=storage("DeleteAll"), training={"nodes": 2})
    await h.until(lambda: h.job("train").get("status", {}).get("active") == 2)
    assert len(h.left()["services"]) == 1, "two nodes find each other by a headless Service"
    await h.delete()
    await h.until(lambda: not h.run())
    assert [node for node in h.made() if node.endswith("/cleanup")]
    await h.until(lambda: not h.left())


async def test_storage_that_is_gone_holds_up_deletion_for_a_bounded_time(make_harness: MakeHarness) -> None:
    async with make_harness(cleanup_deadline_seconds=5) as h:
        await started(h, "DeleteAll")
        # One attempt: the pause after it is longer than the time that is left.
        h.pods.stages.fail("cleanup", error(75, "StorageUnavailable", "S3 does not answer"))
        await h.delete()
        await h.until(lambda: not h.run())
        (event,) = await h.until(lambda: h.events("CleanupFailed"))
        (cleanup,) = [c.object for c in h.view.history if c.type == "ADDED" and is_cleanup(c)]
        said = f"pod {cleanup['metadata']['name']}: S3 does not answer"
        assert event["message"] == f"Artifacts stay at s3://bucket/prefix: {said}"
        await h.until(lambda: not h.left())


def is_cleanup(change: Change) -> bool:
    return change.kind == "pods" and change.object["metadata"]["labels"].get(LABEL_NODE) == "cleanup"


async def test_a_secret_that_went_with_the_run_does_not_hold_up_deletion(make_harness: MakeHarness) -> None:
    async with make_harness(strict=True, gpu_resource="none") as h:
        await h.put(SECRETS, "s3", data=dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "eA=="))
        await started(h, "DeleteAll")
        await h.admin.delete(SECRETS, h.namespace, "s3")
        await h.delete()
        await h.until(lambda: not h.run())  # well before the deadline of ten minutes
        (event,) = await h.until(lambda: h.events("CleanupFailed"))
        assert "Secret is gone" in event["message"]
        await h.until(lambda: not h.left())


@pytest.mark.parametrize("retention", ["Retain", "DeleteAll"])
async def test_a_namespace_that_is_deleted_with_a_running_run_in_it(make_harness: MakeHarness, retention: str) -> None:
    async with make_harness(clusterwide=True) as h:
        await started(h, retention)
        await h.remove_namespace()
        await h.namespace_gone()
        await h.until(lambda: not h.run())


async def test_an_evicted_pod_that_cannot_be_replaced_does_not_hold_up_its_namespace(
    make_harness: MakeHarness,
) -> None:
    """The Job keeps the pod until there is another one, and the namespace waits for all pods before all else."""
    async with make_harness(clusterwide=True, wedged_seconds=1) as h:
        await started(h, "Retain")
        pod = h.pods_of("generate")[0]
        evicted = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
        await h.admin.write_status(PODS, pod, {"conditions": [evicted]})
        await h.admin.delete(PODS, h.namespace, pod["metadata"]["name"])
        await h.remove_namespace()
        await h.namespace_gone()


async def test_the_operator_starts_when_the_namespace_is_already_going(make_harness: MakeHarness) -> None:
    """Somebody else's finalizer keeps the namespace; ours must not keep the run."""
    async with make_harness(clusterwide=True) as h:
        await started(h, "DeleteAll")
        await h.kill()
        held = {"metadata": {"name": "kept", "finalizers": ["example.com/other"]}}
        await h.admin.create(CONFIG_MAPS, h.namespace, held)
        await h.remove_namespace()
        await h.until(lambda: "deletionTimestamp" in h.run()["metadata"])
        await h.start()
        await h.until(lambda: not h.run() and not h.left())
        assert await h.admin.find(CONFIG_MAPS, h.namespace, "kept") is not None
        await h.admin.merge(CONFIG_MAPS, h.namespace, "kept", {"metadata": {"finalizers": None}})
