"""Runs without an operator: what goes on, what waits, and how a person lets go of it (the chart's README)."""

from __future__ import annotations

from srlm_operator.cluster.client import RUNS
from srlm_operator.names import FINALIZER
from support.cluster.admin import NAMESPACES
from support.cluster.fixtures import MakeHarness
from support.cluster.harness import SHORT, Harness


async def let_go(h: Harness, name: str) -> None:
    """By hand, as the README says."""
    await h.admin.merge(RUNS, h.namespace, name, {"metadata": {"finalizers": None}})


async def test_runs_left_behind(h: Harness) -> None:
    h.pods.held.add("generate")
    await h.start()
    cleaning = {"storage": {"uri": "s3://bucket/prefix", "retention": "DeleteAll"}}
    for name, changes in {"kept": {}, "plain": {}, "cleaning": cleaning, "waiting": cleaning}.items():
        await h.create(name, **{**SHORT, **changes, "seed": len(name)})
    for name in ("kept", "plain", "cleaning", "waiting"):
        await h.until(lambda name=name: h.status(name).get("stage") == "generate")
    await h.stop()

    # Deleted without an operator: nothing holds the one up, the others wait for their clean-up.
    for name in ("plain", "cleaning", "waiting"):
        await h.delete(name)
    await h.until(lambda: not h.run("plain") and not h.jobs(run="plain"))
    assert (await h.get("cleaning"))["metadata"]["finalizers"] == [FINALIZER]
    await let_go(h, "cleaning")
    await h.until(lambda: not h.run("cleaning") and not h.jobs(run="cleaning"))

    # What runs goes on to its end, and nothing follows.
    await h.pods.release("generate")
    await h.until(lambda: all("completionTime" in job["status"] for job in h.jobs(run="kept")))
    assert h.jobs("judge") == []

    # Installed again: the finished Job is taken up, the waiting run is cleaned up and let go.
    await h.start()
    await h.succeeded("kept")
    await h.until(lambda: not h.run("waiting"))
    assert h.made().count("1/generate") == 4


async def test_a_namespace_with_a_run_left_behind_is_released(make_harness: MakeHarness) -> None:
    async with make_harness(clusterwide=True) as h:
        h.pods.held.add("generate")
        await h.start()
        await h.create(**SHORT, storage={"uri": "s3://bucket/prefix", "retention": "DeleteIntermediate"})
        await h.until(lambda: h.jobs("generate"))
        await h.stop()
        await h.remove_namespace()
        await h.until(lambda: not h.jobs())
        # Only the run's finalizer is left.
        assert (await h.get())["metadata"]["finalizers"] == [FINALIZER]
        assert (await h.admin.get(NAMESPACES, "", h.namespace))["status"]["phase"] == "Terminating"
        await let_go(h, "run")
        await h.namespace_gone()
