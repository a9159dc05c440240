"""A new version of definition and operator in the middle of a run: nothing is keyed anew, stopped or lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from srlm_operator.crd.definition import CRD_NAME, custom_resource_definition
from support.wire import JOBS, RUNS, SHORT, Wire, wire

DEFINITIONS = "customresourcedefinitions.apiextensions.k8s.io"
#: Defaulted fields that no rule mentions: an older definition did not have them.
NEW_FIELDS = (
    "prompts.style", "judging.unconstrainedSample", "training.gradientCheckpointing", "evaluation.winRate.opponent",
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


def define(w: Wire, definition: dict[str, Any]) -> None:
    old = w.cluster.get(DEFINITIONS, CRD_NAME)
    w.cluster.update(DEFINITIONS, {**old, "spec": definition["spec"]})


def field(w: Wire, path: str) -> Any:
    value: Any = w.cluster.get(RUNS, "run", "default")["spec"]
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def keys(w: Wire) -> dict[str, str]:
    iterations = w.status()["iterations"]
    return {f"{t}/{s['name']}": s.get("key", "") for t, i in enumerate(iterations) for s in i["stages"] if s.get("key")}


@pytest.mark.parametrize("ends", ["before", "after"], ids=["job-ends-in-between", "job-goes-on"])
async def test_a_definition_with_new_defaulted_fields(
    ends: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with wire(tmp_path, monkeypatch) as w:
        define(w, older_definition())
        w.pods.held.add("generate")
        await w.start_operator()
        w.apply(**{**SHORT, "evaluation": {"enabled": True, "winRate": {"prompts": 0}}})
        await w.until(lambda: w.status().get("stage") == "generate")
        assert [field(w, path) for path in NEW_FIELDS] == [None] * len(NEW_FIELDS)
        generation = w.cluster.get(RUNS, "run", "default")["metadata"]["generation"]
        before, made = keys(w), w.nodes()
        await w.kill_operator()
        define(w, custom_resource_definition())
        assert None not in [field(w, path) for path in NEW_FIELDS]
        if ends == "before":
            w.pods.release("generate")
            await w.until(lambda: all("completionTime" in job["status"] for job in w.jobs()))
        await w.start_operator()
        w.pods.release("generate")
        await w.until(lambda: w.condition("Ready"))
        assert before.items() <= keys(w).items()
        assert {node: w.nodes().count(node) for node in made} == dict.fromkeys(made, 1)
        assert w.cluster.get(RUNS, "run", "default")["metadata"]["generation"] == generation


async def test_a_definition_that_is_newer_than_the_operator_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Helm writes the definition before it replaces the operator's pods."""
    newer = custom_resource_definition()
    spec = newer["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    spec["properties"]["newest"] = {"type": "boolean", "default": True}
    async with wire(tmp_path, monkeypatch, resync_seconds=0.2) as w:
        w.pods.held.add("generate")
        await w.start_operator()
        w.apply(**SHORT)
        await w.until(lambda: w.status().get("stage") == "generate")
        made = w.nodes()
        define(w, newer)
        waiting = await w.until(lambda: newer_spec(w))
        assert "newest" in waiting["message"]
        assert (w.status()["phase"], w.condition("Stalled")) == ("Running", {})
        w.pods.release("generate")
        await w.until(lambda: all("completionTime" in job["status"] for job in w.jobs()))
        await w.kill_operator()
        define(w, custom_resource_definition())
        await w.start_operator()
        await w.until(lambda: w.condition("Ready"))
        assert {node: w.nodes().count(node) for node in made} == dict.fromkeys(made, 1)


def newer_spec(w: Wire) -> dict[str, Any]:
    found = w.condition("Reconciling")
    return found if found.get("reason") == "NewerSpec" else {}


async def test_a_definition_that_is_newer_leaves_done_runs_alone_and_deletion_to_the_next_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = custom_resource_definition()
    spec = newer["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    spec["properties"]["newest"] = {"type": "boolean", "default": True}
    storage = {"uri": "s3://bucket/prefix", "retention": "DeleteAll"}
    async with wire(tmp_path, monkeypatch, resync_seconds=0.2) as w:
        w.pods.held.add("data")
        await w.start_operator()
        w.apply("done", **SHORT)
        w.pods.release("data")
        await w.until(lambda: w.condition("Ready", "done"))
        w.pods.held.add("data")
        w.apply(**{**SHORT, "storage": storage, "seed": 7})
        await w.until(lambda: w.status().get("stage") == "data")
        before = w.status("done")
        define(w, newer)
        await w.until(lambda: newer_spec(w))
        w.cluster.delete(RUNS, "run", "default", propagation="Background")
        w.apply("other", **SHORT)
        await w.until(lambda: w.status("other"))
        assert w.cluster.get(RUNS, "run", "default")["metadata"]["finalizers"]
        assert w.status("done") == before
        await w.kill_operator()
        define(w, custom_resource_definition())
        watcher = w.cluster.storage.watcher(w.cluster.version)
        await w.start_operator()
        await w.until(lambda: w.cluster.find(RUNS, "run", "default") is None)
        made = [c.object["metadata"]["labels"] for c in watcher.poll() if (c.resource, c.type) == (JOBS, "ADDED")]
        watcher.close()
        assert "cleanup" in {labels["selfrewarding.dev/stage"] for labels in made}
