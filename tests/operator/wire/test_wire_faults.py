"""What goes wrong around a run, over the wire: dead operators, missing Secrets, other people's Jobs, lost events."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from srlm_contract.status import RunStatus
from srlm_operator.watches import WatchEvent
from support.stage_script import Ending, error
from support.wire import JOBS, RUNS, SHORT, Wire, wire


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, pytest.MonkeyPatch]:
    return tmp_path, monkeypatch


def one(w: Wire, node: str) -> dict[str, Any]:
    """The one Job of a node, or nothing."""
    labels = "selfrewarding.dev/node"
    return next((job for job in w.jobs() if job["metadata"]["labels"][labels] == node), {})


async def test_killed_operator_goes_on_where_it_was(folder: Any) -> None:
    async with wire(*folder) as w:
        created: list[str] = []
        watcher = w.cluster.storage.watcher(w.cluster.version)
        await w.start_operator()
        w.pods.held.add("sft")
        w.apply(**SHORT)
        await w.until(lambda: one(w, "sft"))
        await w.kill_operator()
        w.pods.release("sft")
        await w.until(lambda: one(w, "sft").get("status", {}).get("completionTime"))
        await w.start_operator()
        await w.until(lambda: w.condition("Ready"))
        for change in watcher.poll():
            if change.resource == JOBS and change.type == "ADDED":
                created.append(change.name)
        watcher.close()
        assert len(created) == len(set(created)) == 9
        assert w.pods.stages.ran.count("0/sft") == 1


async def test_lost_status_is_rebuilt_without_running_anything_again(folder: Any) -> None:
    async with wire(*folder) as w:
        await w.start_operator()
        w.apply(**SHORT)
        await w.until(lambda: w.condition("Ready"))
        before = w.status()["models"]
        ran = list(w.pods.stages.ran)
        await w.stop_operator()
        for job in w.jobs():
            w.cluster.delete(JOBS, job["metadata"]["name"], "default", propagation="Background")
        run = w.cluster.get(RUNS, "run", "default")
        w.cluster.update(RUNS, {**run, "status": {}}, subresource="status")
        await w.start_operator()
        await w.until(lambda: w.condition("Ready"))
        assert [m["contentDigest"] for m in w.status()["models"]] == [m["contentDigest"] for m in before]
        assert w.pods.stages.ran == ran


async def test_missing_secret_shows_and_recovers(folder: Any) -> None:
    async with wire(*folder) as w:
        w.pods.waiting["preflight"] = {"reason": "CreateContainerConfigError", "message": 'secret "s3" not found'}
        await w.start_operator()
        w.apply(**SHORT)
        stalled = await w.until(lambda: w.condition("Stalled"))
        assert stalled["reason"] == "SecretNotFound"
        assert 'secret "s3" not found' in stalled["message"]
        await w.until(lambda: any(e["reason"] == "SecretNotFound" for e in w.cluster.list("events")))
        w.pods.release("preflight")
        await w.until(lambda: w.condition("Ready"))


async def test_job_of_somebody_else_stalls_until_it_is_gone(folder: Any) -> None:
    async with wire(*folder, refused_retry_seconds=0.2) as w:
        await w.start_operator()
        w.pods.held.add("preflight")
        w.apply(**SHORT)
        ours = await w.until(lambda: one(w, "preflight"))
        name = ours["metadata"]["name"]
        await w.stop_operator()
        w.cluster.delete(JOBS, name, "default", propagation="Background")
        await w.until(lambda: w.cluster.find(JOBS, name, "default") is None)
        run = w.cluster.get(RUNS, "run", "default")
        w.cluster.update(RUNS, {**run, "status": {}}, subresource="status")
        foreign = {
            "metadata": {"name": name},
            "spec": {
                "suspend": True,
                "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "x", "image": "x"}]}},
            },
        }
        w.cluster.create(JOBS, foreign, "default")
        w.pods.release("preflight")
        await w.start_operator()
        stalled = await w.until(lambda: w.condition("Stalled"))
        assert (stalled["reason"], name in stalled["message"]) == ("NameConflict", True)
        w.cluster.delete(JOBS, name, "default", propagation="Background")
        await w.until(lambda: w.condition("Ready"))


async def test_invalid_pod_template_names_what_it_breaks(folder: Any) -> None:
    async with wire(*folder) as w:
        await w.start_operator()
        patch = {"spec": {"containers": [{"name": "stage", "env": [{"name": "SRLM_TASK", "value": "x"}]}]}}
        w.apply(**SHORT, podTemplate=patch)
        stalled = await w.until(lambda: w.condition("Stalled"))
        assert (stalled["reason"], "SRLM_TASK" in stalled["message"]) == ("InvalidPodTemplate", True)
        w.edit({"podTemplate": {"spec": {"containers": None}}})
        await w.until(lambda: w.condition("Ready"))


async def test_suspend_and_resume(folder: Any) -> None:
    async with wire(*folder) as w:
        await w.start_operator()
        w.pods.held.add("train")
        w.apply(**SHORT)
        await w.until(lambda: one(w, "train").get("status", {}).get("active"))
        w.edit({"suspend": True})
        await w.until(lambda: w.status()["phase"] == "Suspended" and not one(w, "train"))
        w.pods.release("train")
        w.edit({"suspend": False})
        await w.until(lambda: w.condition("Ready"))
        record = next(s for s in w.status()["iterations"][1]["stages"] if s["name"] == "train")
        assert (record["attempt"], record.get("countedFailures", 0)) == (2, 0)


async def test_failures_reach_status_with_the_message_of_the_pod(folder: Any) -> None:
    async with wire(*folder) as w:
        w.pods.stages.fail("data", error(65, "InvalidSeedData", "line 3 of trees.jsonl: no rank"))
        await w.start_operator()
        w.apply(**SHORT)
        stalled = await w.until(lambda: w.condition("Stalled"))
        assert stalled["reason"] == "InvalidSeedData"
        assert "line 3 of trees.jsonl: no rank" in stalled["message"]


async def test_only_the_missing_shard_runs_again(folder: Any) -> None:
    async with wire(*folder) as w:
        w.pods.stages.fail("generate", Ending(1, "one shard breaks"))
        await w.start_operator()
        w.apply(**SHORT, failurePolicy={"backoffSeconds": 0})
        await w.until(lambda: w.condition("Ready"))
        jobs = [j for j in w.jobs() if j["metadata"]["labels"]["selfrewarding.dev/node"] == "generate"]
        assert [j["spec"]["completions"] for j in jobs] == [2, 1]
        assert w.pods.stages.ran.count("1/generate") == 2


async def test_deletion_runs_cleanup_and_leaves_nothing(folder: Any) -> None:
    async with wire(*folder) as w:
        await w.start_operator()
        w.pods.held.add("data")
        storage = {"uri": "s3://bucket/prefix", "retention": "DeleteAll"}
        w.apply(**SHORT, storage=storage)
        await w.until(lambda: one(w, "data"))
        w.cluster.delete(RUNS, "run", "default", propagation="Background")
        await w.until(lambda: w.cluster.find(RUNS, "run", "default") is None)


async def test_lost_events_are_found_by_listing(folder: Any) -> None:
    async with wire(*folder, resync_seconds=0.2) as w:
        await w.start_operator()
        assert w.operator is not None
        real = w.operator._take
        lost = []

        def lossy(event: WatchEvent) -> None:
            if event.kind == "jobs":
                lost.append(event)
            else:
                real(event)

        w.operator._take = lossy  # type: ignore[method-assign]  # the network loses what it loses
        w.apply(**SHORT)
        await w.until(lambda: w.condition("Ready"))
        assert lost


async def test_an_idle_operator_writes_nothing(folder: Any) -> None:
    async with wire(*folder, resync_seconds=0.05) as w:
        await w.start_operator()
        w.apply(**SHORT)
        await w.until(w.reported)
        await w.until(lambda: all(j["spec"].get("ttlSecondsAfterFinished") for j in w.jobs()))
        done = "report is done"  # the last write
        await w.until(lambda: any(done in e["message"] for e in w.cluster.list("events")))
        assert w.operator is not None
        version = w.cluster.version
        for _ in range(5):
            await w.operator.resync.compare()
            await w.operator.reconciler.reconcile(("default", "run"))
        assert w.cluster.version == version


async def test_applied_again_and_again_without_drift(folder: Any) -> None:
    async with wire(*folder) as w:
        await w.start_operator()
        created = w.apply(**SHORT)
        body = {k: created[k] for k in ("apiVersion", "kind", "spec")}
        body["metadata"] = {"name": "run", "namespace": "default"}
        for _ in range(5):
            w.cluster.patch(RUNS, "run", body, "default")
        await w.until(lambda: w.condition("Ready"))
        found = w.cluster.get(RUNS, "run", "default")
        assert found["spec"] == created["spec"]
        assert found["metadata"]["generation"] == 1
        assert "finalizers" not in found["metadata"]
        assert RunStatus.parse(found["status"]).observed_generation == 1


async def test_no_secret_value_appears_anywhere(folder: Any) -> None:
    canary = "canary-5f2d"
    async with wire(*folder) as w:
        data = {k: base64.b64encode(canary.encode()).decode() for k in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
        w.cluster.create("secrets", {"metadata": {"name": "s3"}, "data": data}, "default")
        await w.start_operator()
        w.apply(**SHORT)
        await w.until(lambda: w.condition("Ready"))
        for resource in (RUNS, JOBS, "pods", "events", "configmaps"):
            assert canary not in str(w.cluster.list(resource)), resource
