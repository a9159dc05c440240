"""Default storage over the wire: what the API server lets a person change, and what other settings do to a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from srlm_local.store.errors import ApiError
from support.wire import SHORT, Wire, wire

RUN = {**SHORT, "storage": {}}


def places(w: Wire) -> set[str]:
    """Where the run's models lie."""
    return {model["uri"].partition("/artifacts/")[0] for model in w.status()["models"]}


async def test_a_started_run_keeps_the_place_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with wire(tmp_path, monkeypatch, storage_uri="s3://shared/{namespace}") as w:
        w.pods.held.add("generate")
        await w.start_operator()
        w.apply(**RUN)
        await w.until(lambda: "1/generate" in w.nodes())
        await w.until(lambda: w.status().get("storage", {}).get("uri") == "s3://shared/default")
        await w.stop_operator()
        w.settings = replace(w.settings, storage_uri="s3://moved/{namespace}")
        await w.start_operator()
        with pytest.raises(ApiError, match="cannot be changed once the run has started"):
            w.edit({"storage": {"uri": "s3://moved/default"}})
        w.edit({"storage": {"uri": "s3://shared/default"}})
        with pytest.raises(ApiError, match="cannot be changed once the run has started"):
            w.edit({"storage": None})
        w.pods.release("generate")
        await w.until(lambda: w.condition("Ready"))
        assert places(w) == {"s3://shared/default"}
        assert w.nodes().count("0/preflight") == 1


async def test_a_branch_meets_the_run_it_comes_from_by_the_effective_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with wire(tmp_path, monkeypatch, storage_uri="s3://shared/{namespace}") as w:
        await w.start_operator()
        w.apply("first", **RUN)
        await w.until(lambda: w.condition("Ready", "first"))
        source = {"branchFrom": {"run": "first", "model": "M1"}}
        w.apply("second", **{**SHORT, **source, "storage": {"uri": "s3://shared/default"}})
        w.apply("third", **{**SHORT, **source, "storage": {"uri": "s3://elsewhere/default"}})
        await w.until(lambda: w.condition("Ready", "second"))
        await w.until(lambda: w.condition("Stalled", "third").get("reason") == "BranchNotFound")
        assert "same storage.uri" in w.condition("Stalled", "third")["message"]


async def test_a_run_waits_for_a_place_and_goes_on_once_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with wire(tmp_path, monkeypatch) as w:
        await w.start_operator()
        w.apply(**RUN)
        await w.until(lambda: w.condition("Stalled").get("reason") == "StorageNotSet")
        events = await w.until(lambda: w.cluster.list("events", "default", fields="reason=StorageNotSet"))
        assert "set spec.storage.uri" in events[0]["message"]
        assert w.jobs() == []
        w.edit({"storage": {"uri": "s3://mine/runs"}})
        await w.until(lambda: w.condition("Ready"))
        assert places(w) == {"s3://mine/runs"}
