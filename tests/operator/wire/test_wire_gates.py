"""Gates, budget and branches over the wire: why a run stopped is told, and what a person does about it is enough."""

from __future__ import annotations

import pytest

from support.cluster.fixtures import MakeHarness
from support.cluster.harness import SHORT, Harness


async def stalled(h: Harness, reason: str, phase: str, *words: str, name: str = "run") -> None:
    """Condition, phase and event of a run that needs a person."""
    found = await h.until(lambda: h.condition("Stalled", name))
    assert (found["reason"], h.status(name)["phase"]) == (reason, phase)
    assert [word for word in words if word not in found["message"]] == [], found["message"]

    await h.until(lambda: [event for event in h.events(reason, name) if event["type"] == "Warning"])


def trained(h: Harness) -> bool:
    return h.record("train").get("state") == "Succeeded"


async def release_gates(h: Harness, models: str) -> None:
    await h.annotate({"selfrewarding.dev/continue": models})


@pytest.mark.parametrize("release", ["annotation", "spec"])
async def test_hold_waits_for_an_annotation_or_a_spec_change(h: Harness, release: str) -> None:
    await h.start()
    await h.create(**SHORT, gates={"minPairs": 601, "onFailure": "Hold"})
    await stalled(h, "Held", "Held", "M2: 600 pairs, gates.minPairs is 601", "selfrewarding.dev/continue=M2")
    assert not trained(h)
    if release == "annotation":
        await release_gates(h, "M3")  # another model's gates
        await h.barrier("other")
        assert h.condition("Stalled")["reason"] == "Held"
        await release_gates(h, "M2")
    else:
        await h.edit({"gates": {"minPairs": 600}})
    await h.succeeded()
    assert trained(h)
    assert not h.condition("Stalled")


async def test_stop_ends_the_run_until_the_gate_is_changed(h: Harness) -> None:
    await h.start()
    await h.create(**SHORT, gates={"minPairs": 601})
    await stalled(h, "GateFailed", "Failed", "M2: 600 pairs, gates.minPairs is 601")
    await release_gates(h, "all")  # releases what is held, not what has failed
    await h.edit({"gates": {"onFailure": "Continue"}})
    await h.succeeded()
    assert h.status()["iterations"][1]["gates"] == ["600 pairs, gates.minPairs is 601"]


async def test_token_budget_stops_the_run_until_it_is_raised(h: Harness) -> None:
    await h.start()
    await h.create(**SHORT, budget={"tokens": 4000})
    await stalled(h, "BudgetExceeded", "Failed", "4,000 tokens used, budget.tokens is 4,000")
    assert "1/prompts" not in h.pods.stages.ran
    await h.edit({"budget": {"tokens": 1_000_000}})
    await h.succeeded()
    assert h.pods.stages.ran.count("0/sft") == 1


async def test_gpu_budget_stops_a_running_training_until_it_is_raised(h: Harness) -> None:
    h.pods.held.add("train")
    await h.start()
    gpus = {"train": {"resources": {"limits": {"nvidia.com/gpu": 8}}}}
    await h.create(**SHORT, budget={"gpuSeconds": 4}, stages=gpus)
    await stalled(h, "BudgetExceeded", "Failed", "GPU-seconds used, budget.gpuSeconds is 4")
    train = h.record("train")
    assert (train["state"], train["lastFailure"]["reason"]) == ("Pending", "BudgetExceeded")
    assert h.status()["gpuSeconds"] >= 4
    await h.until(lambda: "1/train" not in h.nodes())  # its Job goes once that is written down
    await h.pods.release("train")
    await h.edit({"budget": {"gpuSeconds": 1000}})
    await h.succeeded()
    record = h.record("train")
    assert (record["attempt"], record.get("countedFailures", 0)) == (2, 0)


async def test_a_branch_waits_for_its_model_and_keeps_it(make_harness: MakeHarness) -> None:
    async with make_harness(slow_recheck_seconds=0.2) as h:
        h.pods.held |= {"sft"}
        await h.start()
        branch = {"run": "run", "model": "M1"}
        await h.create(name="branch", **(SHORT | {"seed": 7}), branchFrom=branch)
        missing = f"run run does not exist in namespace {h.namespace}"
        await stalled(h, "BranchNotFound", "Failed", missing, name="branch")
        await h.create(**SHORT)
        await h.until(lambda: "no finished model M1" in h.condition("Stalled", "branch").get("message", ""))
        h.pods.held |= {"prompts"}
        await h.pods.release("sft")
        await h.until(lambda: h.status().get("models"))
        await h.until(lambda: "1/prompts" in h.nodes("branch"))
        pinned = h.status("branch")["preflight"]["branch"]["contentDigest"]
        assert pinned == h.status()["models"][0]["contentDigest"]
        await h.delete()
        await h.until(lambda: not h.run())
        await h.pods.release("prompts")
        await h.succeeded("branch")
        models = h.status("branch")["models"]
        assert [m["name"] for m in models] == ["M1", "M2"]
        assert models[0]["contentDigest"] == pinned
        assert "0/sft" not in h.nodes("branch")
