"""Whole runs on a cluster: the operator is the real process with the chart's rights, pods end by script."""

from __future__ import annotations

import functools
import signal
from typing import Any

import pytest

from cluster.admin import QUOTAS
from cluster.bench import SHORT, Bench
from cluster.target import real
from cluster.view import viewing
from srlm_operator import names
from support.stage_script import Ending, error

pytestmark = pytest.mark.e2e


async def test_a_run_from_m0_to_m3(b: Bench) -> None:
    b.start()
    await b.create(iterations=2)
    status = await b.succeeded()
    assert (status["phase"], [model["name"] for model in status["models"]]) == ("Succeeded", ["M1", "M2", "M3"])
    created = b.view.added("jobs")
    assert len(created) == len(set(created)), "one Job for a stage, key and attempt"
    ran = b.pods.stages.ran
    for iteration in ("1", "2"):
        assert ran.count(f"{iteration}/generate") == 2, "two shards"
        assert ran.count(f"{iteration}/train") == 1
    (job,) = b.jobs("generate", 2)
    assert (job["spec"]["completionMode"], job["status"]["completedIndexes"]) == ("Indexed", "0,1")
    # More iterations on a finished run: what is there stays as it is.
    await b.edit({"iterations": 3})
    await b.until(lambda: len(b.status()["models"]) == 4 and b.condition("Ready"))
    assert b.status()["models"][:3] == status["models"]
    assert {f"{iteration}/train": ran.count(f"{iteration}/train") for iteration in (1, 2, 3)} == {
        "1/train": 1,
        "2/train": 1,
        "3/train": 1,
    }


async def test_a_failed_shard_is_tried_again_alone(b: Bench) -> None:
    b.pods.stages.fail("generate", Ending(1, "one shard breaks"))
    b.start()
    await b.create(**SHORT, failurePolicy={"backoffSeconds": 0})
    await b.succeeded()
    first, second = b.jobs("generate")
    assert (first["spec"]["completions"], second["spec"]["completions"]) == (2, 1)
    assert b.pods.stages.ran.count("1/generate") == 2
    assert b.record("generate")["attempt"] == 2


async def test_a_failure_shows_what_the_pod_said_and_recovers(b: Bench) -> None:
    b.pods.stages.fail("data", error(65, "InvalidSeedData", "line 3 of trees.jsonl: no rank"))
    b.start()
    await b.create(**SHORT)
    stalled = await b.until(lambda: b.condition("Stalled"))
    assert stalled["reason"] == "InvalidSeedData"
    assert "line 3 of trees.jsonl: no rank" in stalled["message"]
    await b.until(lambda: [e for e in b.view.objects["events"].values() if e["reason"] == "InvalidSeedData"])
    await b.edit({"seedData": {**SHORT["seedData"], "language": "de"}})
    await b.succeeded()


async def test_suspend_and_resume(b: Bench) -> None:
    b.start()
    b.pods.held.add("train")
    await b.create(**SHORT)
    await b.until(lambda: [j for j in b.jobs("train") if j.get("status", {}).get("active")])
    await b.edit({"suspend": True})
    await b.until(lambda: b.status()["phase"] == "Suspended" and not b.jobs("train"))
    await b.until(lambda: not [p for p in b.view.objects["pods"].values() if node_of(p) == "train"])
    await b.pods.release("train")
    await b.edit({"suspend": False})
    await b.succeeded()
    assert b.pods.stages.ran.count("1/train") == 1
    assert (b.record("train")["attempt"], b.record("train").get("countedFailures", 0)) == (2, 0)


async def test_a_new_beta_in_the_middle_changes_what_comes_after_the_pairs(b: Bench) -> None:
    b.start()
    b.pods.held.add("train")
    await b.create(**SHORT)
    (old,) = await b.until(lambda: b.jobs("train"))
    await b.edit({"training": {"dpo": {"beta": 0.3}}})
    await b.until(lambda: [j for j in b.jobs("train") if key_of(j) != key_of(old)])
    await b.until(lambda: old["metadata"]["name"] not in b.view.objects["jobs"])
    await b.pods.release("train")
    await b.succeeded()
    ran = b.pods.stages.ran
    assert {node: ran.count(node) for node in ("0/sft", "1/prompts", "1/pairs", "1/train")} == {
        "0/sft": 1,
        "1/prompts": 1,
        "1/pairs": 1,
        "1/train": 1,
    }


async def test_deletion_stops_cleans_up_and_leaves_nothing(b: Bench) -> None:
    b.start()
    b.pods.held.add("train")
    storage = {"uri": "s3://bucket/prefix", "retention": "DeleteAll"}
    await b.create(**SHORT, storage=storage, training={"nodes": 2})
    await b.until(lambda: [j for j in b.jobs("train") if j.get("status", {}).get("active") == 2])
    assert len(b.view.objects["services"]) == 1, "two nodes find each other by a headless Service"
    await b.delete()
    await b.until(lambda: not b.view.objects["runs"])
    assert [c for c in b.view.history if c.kind == "jobs" and c.type == "ADDED" and node_of(c.object) == "cleanup"]
    await b.until(lambda: not any(b.view.objects[kind] for kind in ("jobs", "pods", "services")))


@pytest.mark.parametrize("node", ["preflight", "generate", "train"])
async def test_a_killed_operator_repeats_nothing(b: Bench, node: str) -> None:
    b.start()
    b.pods.held.add(node)
    await b.create(**SHORT)
    await b.until(lambda: [j for j in b.jobs(node) if j.get("status", {}).get("active")])
    await b.stop(signal.SIGKILL)
    await b.pods.release(node)
    await b.until(lambda: all(j.get("status", {}).get("completionTime") for j in b.jobs(node)))
    b.start()
    await b.succeeded()
    created = b.view.added("jobs")
    assert len(created) == len(set(created))
    records = [stage for iteration in b.status()["iterations"] for stage in iteration["stages"]]
    assert {record.get("attempt", 0) for record in records if record["state"] == "Succeeded"} == {1}


async def test_a_secret_that_is_missing_and_comes(b: Bench) -> None:
    message = 'secret "s3" not found'
    b.pods.waiting["preflight"] = {"reason": "CreateContainerConfigError", "message": message}
    b.start()
    await b.create(**SHORT)
    stalled = await b.until(lambda: b.condition("Stalled"))
    assert (stalled["reason"], message in stalled["message"]) == ("SecretNotFound", True)
    await b.pods.release("preflight")
    await b.succeeded()


@pytest.mark.skipif(not real(), reason="the one-machine cluster has no quotas")
async def test_a_quota_shows_with_the_servers_own_words(b: Bench) -> None:
    quota = {"metadata": {"name": "none"}, "spec": {"hard": {"count/jobs.batch": "0"}}}
    await b.admin.create(QUOTAS, b.namespace, quota)
    async with viewing(b.admin, b.namespace, {"quotas": QUOTAS}) as view:
        await view.until(lambda: "hard" in view.objects["quotas"]["none"].get("status", {}))
    b.start()
    await b.create(**SHORT)
    waiting = await b.until(functools.partial(reconciling, b, "QuotaExceeded"))
    assert "exceeded quota: none" in waiting["message"]
    await b.admin.remove(QUOTAS, b.namespace, "none")
    await b.succeeded()


def node_of(obj: dict[str, Any]) -> str:
    return str(obj["metadata"]["labels"][names.LABEL_NODE])


def key_of(job: dict[str, Any]) -> str:
    return str(job["metadata"]["labels"][names.LABEL_KEY])


def reconciling(b: Bench, reason: str) -> dict[str, Any]:
    found = b.condition("Reconciling")
    return found if found.get("reason") == reason else {}
