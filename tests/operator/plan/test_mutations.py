"""Every field of the spec, changed in the middle of a run and changed back: the run ends as if nothing had been.

The values come from the schema of the CustomResourceDefinition, so that a new field is tried without anybody thinking
of it. Changes that the API server would refuse are not tried.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from srlm_contract.spec.run import RunSpec
from srlm_operator.crd.definition import run_schema
from srlm_operator.crd.validate import validate_run
from support.builders import manifest_spec
from support.fake_cluster import FakeCluster

Json = dict[str, Any]
BASE = manifest_spec(iterations=1)
#: Texts that one field or another takes.
TEXTS = ("text", "https://example.com/v1", "hf://org/other", "s3://bucket/other")


def leaves(schema: Json, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Json]]:
    """Every field below an object schema that holds a plain value or a list."""
    for name, field in schema.get("properties", {}).items():
        if field.get("type") == "object":
            yield from leaves(field, (*path, name))
        else:
            yield (*path, name), field


def others(field: Json, now: Any) -> Iterator[Any]:
    """Values unlike the present one that the field's own schema takes, most likely first."""
    now = field.get("default") if now is None else now
    if "enum" in field:
        yield from (value for value in field["enum"] if value != now)
    elif field.get("type") == "boolean":
        yield not now
    elif field.get("type") in ("integer", "number"):
        start = now if isinstance(now, int | float) else field.get("minimum", 1)
        yield from (start * 2, start + 1, start / 2 if field["type"] == "number" else start - 1, 1, 0)
    elif field.get("type") == "string":
        yield from TEXTS
    elif field.get("type") == "array":
        yield from ([value] for value in others(field["items"], None))


def at(body: Json, path: tuple[str, ...]) -> Any:
    for name in path:
        body = body.get(name, {}) if isinstance(body, dict) else {}
    return body if body != {} else None


def changed(path: tuple[str, ...], value: Any) -> Json:
    body = copy.deepcopy(BASE)
    here = body
    for name in path[:-1]:
        here = here.setdefault(name, {})
    here[path[-1]] = value
    return body


def mutations() -> dict[str, Json]:
    """A whole spec by the field in which it differs from BASE."""
    found: dict[str, Json] = {}
    for path, field in leaves(run_schema()["properties"]["spec"]):
        if path[0] == "storage" or path in (("baseModel", "uri"), ("seedData", "uri")):
            continue  # immutable once the run has started, or nothing that a result depends on
        for value in others(field, at(BASE, path)):
            body = changed(path, value)
            if not validate_run(manifest(body)):
                found[".".join(path)] = body
                break
    return found


def manifest(spec: Json) -> Json:
    head = {"apiVersion": "selfrewarding.dev/v1alpha1", "kind": "SelfRewardingRun"}
    return {**head, "metadata": {"name": "run", "namespace": "team"}, "spec": spec}


def edit(world: FakeCluster, spec: Json) -> None:
    world.spec = RunSpec.parse(spec)
    world.generation += 1


def outcome(world: FakeCluster) -> list[tuple[str, str, str]]:
    """What a run has come to: name, key and content digest of every stage and model of M1 and M2."""
    stages = [(s.name, s.key, s.content_digest) for i in world.status.iterations[:2] for s in i.stages]
    return stages + [(m.name, m.key, m.content_digest) for m in world.status.models[:2]]


def judging() -> FakeCluster:
    """A run whose candidates are being judged."""
    world = FakeCluster(spec=RunSpec.parse(BASE))
    while "1/judge" not in [world.node_of(name) for name in world.active()]:
        world.step()
        world.reconcile()
    return world


MUTATIONS = mutations()
MIDDLE = judging()
CALM = copy.deepcopy(MIDDLE)
CALM.settle()


def test_most_fields_are_tried() -> None:
    assert len(MUTATIONS) > 120
    known = {"seed", "suspend", "iterations", "training.dpo.beta", "generation.shards", "gates.minPairs"}
    assert known <= MUTATIONS.keys()


@pytest.mark.parametrize("moment", ["running", "finished"])
@pytest.mark.parametrize("field", sorted(MUTATIONS))
def test_a_change_that_is_taken_back_leaves_no_trace(field: str, moment: str) -> None:
    world = copy.deepcopy(MIDDLE if moment == "running" else CALM)
    edit(world, MUTATIONS[field])
    for _ in range(3):
        world.step()
    edit(world, BASE)
    world.settle()
    assert (world.status.phase, world.condition("Stalled")) == ("Succeeded", "")
    assert outcome(world) == outcome(CALM)
    writes = world.writes
    world.advance(5000)
    world.reconcile()
    assert world.writes == writes
