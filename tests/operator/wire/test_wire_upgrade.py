"""A new version of definition and operator in the middle of a run: nothing is keyed anew, stopped or lost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from srlm_operator.crd.definition import custom_resource_definition
from support.cluster.fixtures import MakeHarness
from support.cluster.harness import SHORT, Harness

#: Defaulted fields that no rule mentions: an older definition did not have them.
NEW_FIELDS = (
    "prompts.style", "judging.unconstrainedSample", "training.paddingFree", "evaluation.winRate.opponent",
)  # fmt: skip


def section(schema: dict[str, Any], path: str) -> tuple[dict[str, Any], str]:
    """Properties of the object that has the last part of the path."""
    *parents, last = path.split(".")
    for name in parents:
        schema = schema["properties"][name]
    return schema["properties"], last


def without(value: Any, path: list[str]) -> None:
    """Take a field out of nested defaults."""
    if isinstance(value, dict) and path:
        if len(path) == 1:
            value.pop(path[0], None)
        else:
            without(value.get(path[0]), path[1:])


def older_definition() -> dict[str, Any]:
    found = custom_resource_definition()
    spec = found["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    for path in NEW_FIELDS:
        properties, last = section(spec, path)
        assert "default" in properties[last], path
        del properties[last]
        parts = path.split(".")
        for depth in range(len(parts)):
            parent = spec
            for name in parts[:depth]:
                parent = parent["properties"][name]
            without(parent.get("default"), parts[depth:])
    return found


def field(run: dict[str, Any], path: str) -> Any:
    value: Any = run["spec"]
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


async def fields(h: Harness) -> list[Any]:
    """What the API server reads now for the fields that the older definition does not have."""
    run = await h.get()
    return [field(run, path) for path in NEW_FIELDS]


def newer_definition() -> dict[str, Any]:
    found = custom_resource_definition()
    spec = found["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    spec["properties"]["newest"] = {"type": "boolean", "default": True}
    return found


@pytest.mark.parametrize("ends", ["before", "after"], ids=["job-ends-in-between", "job-goes-on"])
async def test_a_definition_with_new_defaulted_fields(ends: str, h: Harness) -> None:
    await h.define(older_definition())
    h.pods.held.add("generate")
    await h.start()
    await h.create(**{**SHORT, "evaluation": {"enabled": True, "winRate": {"prompts": 0}}})
    await h.until(lambda: h.status().get("stage") == "generate")
    assert await fields(h) == [None] * len(NEW_FIELDS)
    generation = h.run()["metadata"]["generation"]
    before, made = h.keys(), h.made()
    await h.kill()
    await h.define(custom_resource_definition())
    async with asyncio.timeout(60):
        while None in await fields(h):  # servers take up a definition in their own time
            pass
    if ends == "before":
        await h.pods.release("generate")
        await h.until(lambda: all("completionTime" in job["status"] for job in h.jobs()))
    await h.start()
    await h.pods.release("generate")
    await h.succeeded()
    assert before.items() <= h.keys().items()
    assert {node: h.made().count(node) for node in made} == dict.fromkeys(made, 1)
    assert h.run()["metadata"]["generation"] == generation


async def test_a_definition_that_is_newer_than_the_operator_stops_nothing(make_harness: MakeHarness) -> None:
    """Helm writes the definition before it replaces the operator's pods."""
    async with make_harness(resync_seconds=0.2) as h:
        h.pods.held.add("generate")
        await h.start()
        await h.create(**SHORT)
        await h.until(lambda: h.status().get("stage") == "generate")
        made = h.made()
        await h.define(newer_definition())
        waiting = await h.until(lambda: newer_spec(h))
        assert "newest" in waiting["message"]
        assert (h.status()["phase"], h.condition("Stalled")) == ("Running", {})
        await h.pods.release("generate")
        await h.until(lambda: all("completionTime" in job["status"] for job in h.jobs()))
        await h.kill()
        await h.define(custom_resource_definition())
        await h.start()
        await h.succeeded()
        assert {node: h.made().count(node) for node in made} == dict.fromkeys(made, 1)


def newer_spec(h: Harness) -> dict[str, Any]:
    found = h.condition("Reconciling")
    return found if found.get("reason") == "NewerSpec" else {}


async def test_a_definition_that_is_newer_leaves_done_runs_alone_and_deletion_to_the_next_version(
    make_harness: MakeHarness,
) -> None:
    storage = {"uri": "s3://bucket/prefix", "retention": "DeleteAll"}
    async with make_harness(resync_seconds=0.2) as h:
        h.pods.held.add("data")
        await h.start()
        await h.create("done", **SHORT)
        await h.pods.release("data")
        await h.succeeded("done")
        h.pods.held.add("data")
        await h.create(**{**SHORT, "storage": storage, "seed": 7})
        await h.until(lambda: h.status().get("stage") == "data")
        before = h.status("done")
        await h.define(newer_definition())
        await h.until(lambda: newer_spec(h))
        await h.delete()
        await h.create("other", **SHORT)
        await h.until(lambda: h.status("other"))
        assert (await h.get())["metadata"]["finalizers"]
        assert h.status("done") == before
        await h.kill()
        await h.define(custom_resource_definition())
        earlier = len(h.made())
        await h.start()
        await h.until(lambda: not h.run())
        assert "0/cleanup" in h.made()[earlier:]
