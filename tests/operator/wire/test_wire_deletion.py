"""Runs that are let go although nothing can be cleaned up any more: no storage, no Secret, no namespace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from srlm_operator.names import FINALIZER
from support.stage_script import error
from support.wire import JOBS, RUNS, SHORT, Wire, wire

TEAM = "team"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, pytest.MonkeyPatch]:
    return tmp_path, monkeypatch


def storage(retention: str) -> dict[str, Any]:
    return {"uri": "s3://bucket/prefix", "retention": retention, "credentialsSecretRef": {"name": "s3"}}


async def started(w: Wire, retention: str, namespace: str = "default") -> None:
    """A run whose two generate pods are running."""
    w.pods.held.add("generate")
    await w.start_operator()
    w.apply(namespace=namespace, **SHORT, storage=storage(retention))
    await w.until(lambda: running(w, "generate") == 2)
    finalizers = w.cluster.get(RUNS, "run", namespace)["metadata"].get("finalizers", [])
    assert finalizers == ([FINALIZER] if retention != "Retain" else [])


def running(w: Wire, node: str) -> int:
    pods = [p for p in w.cluster.list("pods") if p["metadata"]["labels"].get("selfrewarding.dev/node") == node]
    return sum(pod.get("status", {}).get("phase") == "Running" for pod in pods)


def gone(w: Wire, namespace: str = "default") -> bool:
    return w.cluster.find(RUNS, "run", namespace) is None


def events(w: Wire) -> dict[str, str]:
    found = [e for e in w.cluster.list("events") if e["involvedObject"]["kind"] == "SelfRewardingRun"]
    return {event["reason"]: event["message"] for event in found}


async def nothing_left(w: Wire, namespace: str) -> None:
    await w.until(lambda: not w.cluster.list(JOBS, namespace) and not w.cluster.list("pods", namespace))


async def test_storage_that_is_gone_holds_up_deletion_for_a_bounded_time(folder: Any) -> None:
    async with wire(*folder, cleanup_deadline_seconds=2, max_backoff_seconds=0.2) as w:
        await started(w, "DeleteAll")
        w.pods.stages.fail("cleanup", *[error(75, "StorageUnavailable", "S3 does not answer")] * 1000)
        w.cluster.delete(RUNS, "run", "default", propagation="Background")
        await w.until(lambda: gone(w))
        await w.until(lambda: "CleanupFailed" in events(w))
        assert events(w)["CleanupFailed"] == "Artifacts stay at s3://bucket/prefix: " + last_words(w)
        await nothing_left(w, "default")


def last_words(w: Wire) -> str:
    """What the last cleanup pod said, as the operator tells it."""
    told = events(w)["CleanupFailed"].partition(": ")[2]
    assert told.startswith("pod srr-run-")
    assert told.endswith("S3 does not answer")
    return told


async def test_a_secret_that_went_with_the_run_does_not_hold_up_deletion(folder: Any) -> None:
    async with wire(*folder, strict=True) as w:
        data = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "eA==")
        w.cluster.create("secrets", {"metadata": {"name": "s3"}, "data": data}, "default")
        await started(w, "DeleteAll")
        w.cluster.delete("secrets", "s3", "default")
        w.cluster.delete(RUNS, "run", "default", propagation="Background")
        await w.until(lambda: gone(w))  # well before the deadline of ten minutes
        await w.until(lambda: "CleanupFailed" in events(w))
        assert "Secret is gone" in events(w)["CleanupFailed"]
        await nothing_left(w, "default")


@pytest.mark.parametrize("retention", ["Retain", "DeleteAll"])
async def test_a_namespace_that_is_deleted_with_a_running_run_in_it(folder: Any, retention: str) -> None:
    async with wire(*folder) as w:
        w.cluster.create("namespaces", {"metadata": {"name": TEAM}})
        await started(w, retention, TEAM)
        w.cluster.delete("namespaces", TEAM)
        await w.until(lambda: w.cluster.find("namespaces", TEAM) is None)
        assert gone(w, TEAM)


async def test_an_evicted_pod_that_cannot_be_replaced_does_not_hold_up_its_namespace(folder: Any) -> None:
    """The Job keeps the pod until there is another one, and the namespace waits for all pods before all else."""
    async with wire(*folder, wedged_seconds=1) as w:
        w.cluster.create("namespaces", {"metadata": {"name": TEAM}})
        await started(w, "Retain", TEAM)
        pod = next(p for p in w.cluster.list("pods", TEAM) if p["spec"]["hostname"].endswith("-0"))
        name, status = pod["metadata"]["name"], pod["status"]
        evicted = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
        status = {**status, "conditions": [*status.get("conditions", []), evicted]}
        w.cluster.update("pods", {**pod, "status": status}, subresource="status")
        w.cluster.delete("pods", name, TEAM, grace_period=1)
        w.cluster.delete("namespaces", TEAM)
        await w.until(lambda: w.cluster.find("namespaces", TEAM) is None)


async def test_the_operator_starts_when_the_namespace_is_already_going(folder: Any) -> None:
    """Somebody else's finalizer keeps the namespace; ours must not keep the run."""
    async with wire(*folder) as w:
        w.cluster.create("namespaces", {"metadata": {"name": TEAM}})
        await started(w, "DeleteAll", TEAM)
        await w.kill_operator()
        held = {"metadata": {"name": "kept", "finalizers": ["example.com/other"]}}
        w.cluster.create("configmaps", held, TEAM)
        w.cluster.delete("namespaces", TEAM)
        await w.until(lambda: "deletionTimestamp" in w.cluster.get(RUNS, "run", TEAM)["metadata"])
        await w.start_operator()
        await w.until(lambda: gone(w, TEAM))
        await nothing_left(w, TEAM)
        assert w.cluster.find("configmaps", "kept", TEAM) is not None
