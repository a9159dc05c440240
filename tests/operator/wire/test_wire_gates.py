"""Gates, budget and branches over the wire: why a run stopped is told, and what a person does about it is enough."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.wire import RUNS, SHORT, Wire, wire


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, pytest.MonkeyPatch]:
    return tmp_path, monkeypatch


async def stalled(w: Wire, reason: str, phase: str, *words: str, name: str = "run") -> None:
    """Condition, phase and event of a run that needs a person."""
    found = await w.until(lambda: w.condition("Stalled", name))
    assert (found["reason"], w.status(name)["phase"]) == (reason, phase)
    assert [word for word in words if word not in found["message"]] == [], found["message"]

    def told() -> bool:
        events = [e for e in w.cluster.list("events") if e["involvedObject"]["name"] == name]
        return any(e["reason"] == reason and e["type"] == "Warning" for e in events)

    await w.until(told)


def trained(w: Wire) -> bool:
    return "1/train" in w.pods.stages.ran


def annotate(w: Wire, value: str) -> None:
    w.cluster.patch(RUNS, "run", {"metadata": {"annotations": {"selfrewarding.dev/continue": value}}}, "default")


@pytest.mark.parametrize("release", ["annotation", "spec"])
async def test_hold_waits_for_an_annotation_or_a_spec_change(folder: Any, release: str) -> None:
    async with wire(*folder) as w:
        await w.start_operator()
        w.apply(**SHORT, gates={"minPairs": 601, "onFailure": "Hold"})
        await stalled(w, "Held", "Held", "M2: 600 pairs, gates.minPairs is 601", "selfrewarding.dev/continue=M2")
        assert not trained(w)
        if release == "annotation":
            annotate(w, "M3")  # another model's gates
            assert w.operator is not None
            w.operator.world.feed("runs", w.cluster.get(RUNS, "run", "default"))
            await w.operator.reconciler.reconcile(("default", "run"))
            assert w.condition("Stalled")["reason"] == "Held"
            annotate(w, "M2")
        else:
            w.edit({"gates": {"minPairs": 600}})
        await w.until(lambda: w.condition("Ready"))
        assert trained(w)
        assert not w.condition("Stalled")


async def test_stop_ends_the_run_until_the_gate_is_changed(folder: Any) -> None:
    async with wire(*folder) as w:
        await w.start_operator()
        w.apply(**SHORT, gates={"minPairs": 601})
        await stalled(w, "GateFailed", "Failed", "M2: 600 pairs, gates.minPairs is 601")
        annotate(w, "all")  # releases what is held, not what has failed
        w.edit({"gates": {"onFailure": "Continue"}})
        await w.until(lambda: w.condition("Ready"))
        assert w.status()["iterations"][1]["gates"] == ["600 pairs, gates.minPairs is 601"]


async def test_token_budget_stops_the_run_until_it_is_raised(folder: Any) -> None:
    async with wire(*folder) as w:
        await w.start_operator()
        w.apply(**SHORT, budget={"tokens": 4000})
        await stalled(w, "BudgetExceeded", "Failed", "4,000 tokens used, budget.tokens is 4,000")
        assert "1/prompts" not in w.pods.stages.ran
        w.edit({"budget": {"tokens": 1_000_000}})
        await w.until(lambda: w.condition("Ready"))
        assert w.pods.stages.ran.count("0/sft") == 1


async def test_gpu_budget_stops_a_running_training_until_it_is_raised(folder: Any) -> None:
    async with wire(*folder) as w:
        w.pods.held.add("train")
        await w.start_operator()
        gpus = {"train": {"resources": {"limits": {"nvidia.com/gpu": 8}}}}
        w.apply(**SHORT, budget={"gpuSeconds": 4}, stages=gpus)
        await stalled(w, "BudgetExceeded", "Failed", "GPU-seconds used, budget.gpuSeconds is 4")
        train = next(s for s in w.status()["iterations"][1]["stages"] if s["name"] == "train")
        assert (train["state"], train["lastFailure"]["reason"]) == ("Pending", "BudgetExceeded")
        assert w.status()["gpuSeconds"] >= 4
        assert not [job for job in w.nodes() if job == "1/train"]
        w.pods.release("train")
        w.edit({"budget": {"gpuSeconds": 1000}})
        await w.until(lambda: w.condition("Ready"))
        record = next(s for s in w.status()["iterations"][1]["stages"] if s["name"] == "train")
        assert (record["attempt"], record.get("countedFailures", 0)) == (2, 0)


async def test_a_branch_waits_for_its_model_and_keeps_it(folder: Any) -> None:
    async with wire(*folder, slow_recheck_seconds=0.2) as w:
        w.pods.held |= {"sft"}
        await w.start_operator()
        branch = {"run": "run", "model": "M1"}
        w.apply(name="branch", **(SHORT | {"seed": 7}), branchFrom=branch)
        await stalled(w, "BranchNotFound", "Failed", "run run does not exist in namespace default", name="branch")
        w.apply(**SHORT)
        await w.until(lambda: "no finished model M1" in w.condition("Stalled", "branch").get("message", ""))
        w.pods.held |= {"prompts"}
        w.pods.release("sft")
        await w.until(lambda: w.status().get("models"))
        await w.until(lambda: "1/prompts" in branch_nodes(w))
        pinned = w.status("branch")["preflight"]["branch"]["contentDigest"]
        assert pinned == w.status()["models"][0]["contentDigest"]
        w.cluster.delete(RUNS, "run", "default", propagation="Background")
        await w.until(lambda: w.cluster.find(RUNS, "run", "default") is None)
        w.pods.release("prompts")
        await w.until(lambda: w.condition("Ready", "branch"))
        models = w.status("branch")["models"]
        assert [m["name"] for m in models] == ["M1", "M2"]
        assert models[0]["contentDigest"] == pinned
        assert "0/sft" not in branch_nodes(w)


def branch_nodes(w: Wire) -> list[str]:
    labels = [job["metadata"]["labels"] for job in w.jobs()]
    mine = [x for x in labels if x["selfrewarding.dev/run"] == "branch"]
    return [f"{x['selfrewarding.dev/iteration']}/{x['selfrewarding.dev/node']}" for x in mine]
