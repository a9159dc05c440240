"""Runs without an operator: what goes on, what waits, and how a person lets go of it (the chart's README)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from srlm_operator.names import FINALIZER
from support.wire import RUNS, SHORT, Wire, wire


def gone(w: Wire, name: str) -> bool:
    return w.cluster.find(RUNS, name, "default") is None


def jobs_of(w: Wire, name: str) -> list[dict[str, Any]]:
    return [job for job in w.jobs() if job["metadata"]["labels"]["selfrewarding.dev/run"] == name]


async def test_runs_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with wire(tmp_path, monkeypatch) as w:
        w.pods.held.add("generate")
        await w.start_operator()
        cleaning = {"storage": {"uri": "s3://bucket/prefix", "retention": "DeleteAll"}}
        for name, changes in {"kept": {}, "plain": {}, "cleaning": cleaning, "waiting": cleaning}.items():
            w.apply(name, **{**SHORT, **changes, "seed": len(name)})
        for name in ("kept", "plain", "cleaning", "waiting"):
            await w.until(lambda name=name: w.status(name).get("stage") == "generate")
        await w.stop_operator()

        # Deleted without an operator: nothing holds the one up, the others wait for their clean-up.
        for name in ("plain", "cleaning", "waiting"):
            w.cluster.delete(RUNS, name, "default")
        await w.until(lambda: gone(w, "plain") and not jobs_of(w, "plain"))
        assert w.cluster.get(RUNS, "cleaning", "default")["metadata"]["finalizers"] == [FINALIZER]
        # By hand, as the README says: the run and its Jobs go.
        w.cluster.patch(RUNS, "cleaning", {"metadata": {"finalizers": None}}, "default")
        await w.until(lambda: gone(w, "cleaning") and not jobs_of(w, "cleaning"))

        # What runs goes on to its end, and nothing follows.
        w.pods.release("generate")
        await w.until(lambda: all("completionTime" in job["status"] for job in jobs_of(w, "kept")))
        assert not [node for node in w.nodes() if node == "1/judge"]

        # Installed again: the finished Job is taken up, the waiting run is cleaned up and let go.
        before = w.nodes().count("1/generate")
        await w.start_operator()
        await w.until(lambda: w.condition("Ready", "kept"))
        await w.until(lambda: gone(w, "waiting"))
        assert w.nodes().count("1/generate") <= before


async def test_a_namespace_with_a_run_left_behind_is_released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with wire(tmp_path, monkeypatch) as w:
        w.pods.held.add("generate")
        w.cluster.create("namespaces", {"metadata": {"name": "team"}})
        await w.start_operator()
        storage = {"uri": "s3://bucket/prefix", "retention": "DeleteIntermediate"}
        w.apply("run", "team", **{**SHORT, "storage": storage})
        await w.until(lambda: "1/generate" in w.nodes())
        await w.stop_operator()
        w.cluster.delete("namespaces", "team")
        await w.until(lambda: not w.jobs())
        # Only the run's finalizer is left.
        assert w.cluster.get(RUNS, "run", "team")["metadata"]["finalizers"] == [FINALIZER]
        assert w.cluster.get("namespaces", "team")["status"]["phase"] == "Terminating"
        w.cluster.patch(RUNS, "run", {"metadata": {"finalizers": None}}, "team")
        await w.until(lambda: w.cluster.find("namespaces", "team") is None)
