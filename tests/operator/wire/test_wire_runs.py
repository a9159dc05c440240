"""Whole runs over the wire: operator, API server, rights and Job controller are real, pods are scripted."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from srlm_contract.graph import graph
from srlm_contract.status import RunStatus
from srlm_operator.cluster.client import JOBS, RUNS
from srlm_operator.names import LABEL_KEY
from support.builders import spec
from support.cluster.admin import SECRETS
from support.cluster.faults import WRITES
from support.cluster.fixtures import MakeHarness
from support.cluster.harness import SHORT, Harness
from support.stage_script import PINS, Ending, error

JOBS_OF_A_RUN = 9


async def test_a_run_from_m0_to_m3(h: Harness) -> None:
    await h.start()
    await h.create(iterations=2)
    await h.until(h.reported)
    status = h.status()
    assert (status["phase"], [model["name"] for model in status["models"]]) == ("Succeeded", ["M1", "M2", "M3"])
    stages = [str(node.id) for node in graph(spec(iterations=2), PINS, {})]
    chained = {"0/evaluate", "1/prompts", "1/evaluate", "2/evaluate"}
    assert sorted(h.made()) == sorted({"0/preflight", *stages, "0/report"} - chained)
    records = [stage for iteration in status["iterations"] for stage in iteration["stages"]]
    assert len(records) == len(stages)
    assert {(record["state"], record["attempt"], bool(record["job"])) for record in records} == {("Succeeded", 1, True)}
    ran = h.pods.stages.ran
    for iteration in ("1", "2"):
        assert ran.count(f"{iteration}/generate") == 2, "two shards"
        assert ran.count(f"{iteration}/train") == 1
    (job,) = h.jobs("generate", 2)
    assert (job["spec"]["completionMode"], job["status"]["completedIndexes"]) == ("Indexed", "0,1")
    # More iterations on a finished run: what is there stays as it is.
    await h.edit({"iterations": 3})
    await h.until(lambda: len(h.status()["models"]) == 4 and h.condition("Ready"))
    assert h.status()["models"][:3] == status["models"]
    assert [ran.count(f"{iteration}/train") for iteration in (1, 2, 3)] == [1, 1, 1]


@pytest.mark.parametrize("node", ["preflight", "sft", "generate", "train"])
async def test_a_killed_operator_repeats_nothing(h: Harness, node: str) -> None:
    await h.start()
    h.pods.held.add(node)
    await h.create(**SHORT)
    await h.until(lambda: h.job(node).get("status", {}).get("active"))
    await h.kill()
    await h.pods.release(node)
    await h.until(lambda: h.job(node).get("status", {}).get("completionTime"))
    await h.start()
    await h.until(h.reported)
    assert len(h.made()) == JOBS_OF_A_RUN
    assert len(h.pods.stages.ran) == len(set(h.pods.stages.ran)) + 1, "generate has two shards"
    records = [stage for iteration in h.status()["iterations"] for stage in iteration["stages"]]
    assert {record.get("attempt", 0) for record in records if record["state"] == "Succeeded"} == {1}


async def test_lost_status_is_rebuilt_without_running_anything_again(h: Harness) -> None:
    await h.start()
    await h.create(**SHORT)
    await h.until(h.reported)
    before = h.status()["models"]
    ran = list(h.pods.stages.ran)
    await h.stop()
    await h.remove_jobs()
    await h.forget_status()
    await h.until(lambda: not h.status())
    await h.start()
    await h.succeeded()
    assert [m["contentDigest"] for m in h.status()["models"]] == [m["contentDigest"] for m in before]
    assert h.pods.stages.ran == ran


async def test_suspend_and_resume(h: Harness) -> None:
    await h.start()
    h.pods.held.add("train")
    await h.create(**SHORT)
    await h.until(lambda: h.job("train").get("status", {}).get("active"))
    await h.edit({"suspend": True})
    await h.until(lambda: h.status()["phase"] == "Suspended" and not h.jobs("train"))
    await h.until(lambda: not h.pods_of("train"))
    await h.pods.release("train")
    await h.edit({"suspend": False})
    await h.succeeded()
    assert h.pods.stages.ran.count("1/train") == 1
    assert (h.record("train")["attempt"], h.record("train").get("countedFailures", 0)) == (2, 0)


async def test_a_new_beta_in_the_middle_changes_what_comes_after_the_pairs(h: Harness) -> None:
    await h.start()
    h.pods.held.add("train")
    await h.create(**SHORT)
    (old,) = await h.until(lambda: h.jobs("train"))
    await h.edit({"training": {"dpo": {"beta": 0.3}}})
    await h.until(lambda: [j for j in h.jobs("train") if key_of(j) != key_of(old)])
    await h.until(lambda: old["metadata"]["name"] not in h.view.objects["jobs"])
    await h.pods.release("train")
    await h.succeeded()
    ran = h.pods.stages.ran
    assert [ran.count(node) for node in ("0/sft", "1/prompts", "1/pairs", "1/train")] == [1, 1, 1, 1]


def key_of(job: dict[str, Any]) -> str:
    return str(job["metadata"]["labels"][LABEL_KEY])


async def test_a_failure_shows_what_the_pod_said_and_recovers(h: Harness) -> None:
    h.pods.stages.fail("data", error(65, "InvalidSeedData", "line 3 of trees.jsonl: no rank"))
    await h.start()
    await h.create(**SHORT)
    stalled = await h.until(lambda: h.condition("Stalled"))
    assert stalled["reason"] == "InvalidSeedData"
    assert "line 3 of trees.jsonl: no rank" in stalled["message"]
    await h.until(lambda: h.events("InvalidSeedData"))
    await h.edit({"seedData": {**SHORT["seedData"], "language": "de"}})
    await h.succeeded()


async def test_a_failed_shard_is_tried_again_alone(h: Harness) -> None:
    h.pods.stages.fail("generate", Ending(1, "one shard breaks"))
    await h.start()
    await h.create(**SHORT, failurePolicy={"backoffSeconds": 0})
    await h.succeeded()
    assert sorted(job["spec"]["completions"] for job in h.jobs("generate")) == [1, 2]
    assert h.pods.stages.ran.count("1/generate") == 2
    assert h.record("generate")["attempt"] == 2


async def test_a_job_of_somebody_else_stalls_until_it_is_gone(h: Harness) -> None:
    await h.start()
    h.pods.held.add("preflight")
    await h.create(**SHORT)
    (ours,) = await h.until(lambda: h.jobs("preflight"))
    name = ours["metadata"]["name"]
    await h.stop()
    await h.remove_jobs()
    await h.forget_status()
    container = {"name": "x", "image": "x"}
    spec = {"suspend": True, "template": {"spec": {"restartPolicy": "Never", "containers": [container]}}}
    await h.put(JOBS, name, spec=spec)
    await h.pods.release("preflight")
    await h.start()
    stalled = await h.until(lambda: h.condition("Stalled"))
    assert (stalled["reason"], name in stalled["message"]) == ("NameConflict", True)
    await h.admin.remove(JOBS, h.namespace, name)
    await h.succeeded()


async def test_an_invalid_pod_template_names_what_it_breaks(h: Harness) -> None:
    await h.start()
    patch = {"spec": {"containers": [{"name": "stage", "env": [{"name": "SRLM_TASK", "value": "x"}]}]}}
    await h.create(**SHORT, podTemplate=patch)
    stalled = await h.until(lambda: h.condition("Stalled"))
    assert (stalled["reason"], "SRLM_TASK" in stalled["message"]) == ("InvalidPodTemplate", True)
    await h.edit({"podTemplate": {"spec": {"containers": None}}})
    await h.succeeded()


async def test_an_idle_operator_writes_nothing(make_harness: MakeHarness) -> None:
    async with make_harness(resync_seconds=0.05) as h:
        await h.start()
        await h.create(**SHORT)
        await h.until(lambda: [e for e in h.events() if "report is done" in e["message"]])
        await h.stop()
        before = len(h.proxy.requests)
        await h.start()  # which looks at every run once more
        listings = ("batch", "jobs", "list")
        await h.proxy.until(lambda: [r.right for r in h.proxy.requests[before:]].count(listings) >= 5)
        assert [r for r in h.proxy.requests[before:] if r.method in WRITES] == []


async def test_applied_again_and_again_without_drift(h: Harness) -> None:
    await h.start()
    created = await h.create(**SHORT)
    for _ in range(5):
        await h.admin.merge(RUNS, h.namespace, "run", h.manifest(**SHORT))
    await h.succeeded()
    found = h.run()
    assert found["spec"] == created["spec"]
    assert found["metadata"]["generation"] == 1
    assert "finalizers" not in found["metadata"]
    assert RunStatus.parse(found["status"]).observed_generation == 1


async def test_no_secret_value_appears_anywhere(h: Harness) -> None:
    canary = "canary-5f2d"
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    await h.put(SECRETS, "s3", data={name: base64.b64encode(canary.encode()).decode() for name in names})
    await h.start()
    await h.create(**SHORT)
    await h.until(h.reported)
    assert h.view.history
    assert canary not in str(h.view.history)
