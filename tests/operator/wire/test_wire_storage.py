"""Default storage over the wire: what the API server lets a person change, and what other settings do to a run."""

from __future__ import annotations

import pytest

from srlm_operator.errors import Refused
from support.cluster.fixtures import MakeHarness
from support.cluster.harness import SHORT, Harness

RUN = {**SHORT, "storage": {}}


def places(h: Harness) -> set[str]:
    """Where the run's models lie."""
    return {model["uri"].partition("/artifacts/")[0] for model in h.status()["models"]}


async def test_a_started_run_keeps_the_place_it_has(make_harness: MakeHarness) -> None:
    async with make_harness(storage_uri="s3://shared/{namespace}") as h:
        place = f"s3://shared/{h.namespace}"
        h.pods.held.add("generate")
        await h.start()
        await h.create(**RUN)
        await h.until(lambda: h.jobs("generate"))
        await h.until(lambda: h.status().get("storage", {}).get("uri") == place)
        await h.stop()
        h.settings["storage_uri"] = "s3://moved/{namespace}"
        await h.start()
        with pytest.raises(Refused, match="cannot be changed once the run has started"):
            await h.edit({"storage": {"uri": f"s3://moved/{h.namespace}"}})
        await h.edit({"storage": {"uri": place}})
        with pytest.raises(Refused, match="cannot be changed once the run has started"):
            await h.edit({"storage": None})
        await h.pods.release("generate")
        await h.succeeded()
        assert places(h) == {place}
        assert h.made().count("0/preflight") == 1


async def test_a_branch_meets_the_run_it_comes_from_by_the_effective_place(make_harness: MakeHarness) -> None:
    async with make_harness(storage_uri="s3://shared/{namespace}") as h:
        await h.start()
        await h.create("first", **RUN)
        await h.succeeded("first")
        source = {"branchFrom": {"run": "first", "model": "M1"}}
        await h.create("second", **{**SHORT, **source, "storage": {"uri": f"s3://shared/{h.namespace}"}})
        await h.create("third", **{**SHORT, **source, "storage": {"uri": "s3://elsewhere/default"}})
        await h.succeeded("second")
        await h.until(lambda: h.condition("Stalled", "third").get("reason") == "BranchNotFound")
        assert "same storage.uri" in h.condition("Stalled", "third")["message"]


async def test_a_run_waits_for_a_place_and_goes_on_once_there_is_one(h: Harness) -> None:
    await h.start()
    await h.create(**RUN)
    await h.until(lambda: h.condition("Stalled").get("reason") == "StorageNotSet")
    events = await h.until(lambda: h.events("StorageNotSet"))
    assert "set spec.storage.uri" in events[0]["message"]
    assert h.jobs() == []
    await h.edit({"storage": {"uri": "s3://mine/runs"}})
    await h.succeeded()
    assert places(h) == {"s3://mine/runs"}
