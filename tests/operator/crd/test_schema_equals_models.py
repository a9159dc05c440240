"""Schema and models refuse the same values: every field of the spec at and beyond its bounds."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from srlm_contract.spec.run import RunSpec
from srlm_operator.crd.definition import model_schema
from srlm_operator.crd.objects import validate
from srlm_operator.crd.schema import apply_defaults

BASE = {
    "baseModel": {"uri": "hf://owner/model"},
    "storage": {"uri": "s3://bucket/prefix"},
    "seedData": {"uri": "hf://owner/dataset"},
}
Path = tuple[str, ...]


def without_rules(schema: dict[str, Any]) -> dict[str, Any]:
    """CEL rules live in the schema alone: the models hold what is checked field by field."""
    result = {key: value for key, value in schema.items() if key != "x-kubernetes-validations"}
    if "properties" in result:
        result["properties"] = {name: without_rules(child) for name, child in result["properties"].items()}
    return result


SCHEMA = without_rules(model_schema(RunSpec))


def fields(schema: dict[str, Any], path: Path = ()) -> Iterator[tuple[Path, dict[str, Any]]]:
    for name, child in schema.get("properties", {}).items():
        yield (*path, name), child
        yield from fields(child, (*path, name))


def values(node: dict[str, Any]) -> Iterator[Any]:
    """Values at the bounds, beyond them and of every wrong type."""
    yield from ("x", "", "4", "true", 1, 1.5, True, [], {}, [1], {"unknown": 1})
    match node.get("type"):
        case "integer" | "number":
            low, high = node["minimum"], node["maximum"]
            step = 1 if node["type"] == "integer" else 1e-3
            yield from (low, high, low - step, high + step, low + step, float(int(low) + 1))
        case "string" if "enum" in node:
            yield from node["enum"]
            yield from (value.lower() + " " for value in node["enum"])
        case "string":
            yield from ("a" * node["maxLength"], "a" * (node["maxLength"] + 1), "A/b c", "M1", "a.b-c")
        case "array":
            item = (node.get("default") or ["x"])[0]
            yield from ([item] * node["maxItems"], [item] * (node["maxItems"] + 1), [item, None], [{}])


def put(path: Path, value: Any) -> dict[str, Any]:
    spec: dict[str, Any] = copy.deepcopy(BASE)
    node = spec
    for part in path[:-1]:
        node = node.setdefault(part, {})
    node[path[-1]] = value
    return spec


def schema_accepts(spec: dict[str, Any]) -> bool:
    spec = copy.deepcopy(spec)
    apply_defaults(SCHEMA, spec)
    return validate(SCHEMA, spec) == []


def model_accepts(spec: dict[str, Any]) -> bool:
    try:
        RunSpec.parse(spec)
    except ValidationError:
        return False
    return True


SECTIONS = sorted({path[0] for path, _ in fields(SCHEMA)})


@pytest.mark.parametrize("section", SECTIONS)
def test_every_value_at_and_beyond_the_bounds(section: str) -> None:
    disagreements = []
    for path, node in fields(SCHEMA):
        if path[0] != section or "requests" in path or "limits" in path:  # quantities: see below
            continue
        for value in values(node):
            unknown = isinstance(value, dict) and "unknown" in value and "properties" in node
            if unknown:  # the server drops unknown fields before it validates, the models refuse them
                continue
            spec = put(path, value)
            if schema_accepts(spec) != model_accepts(spec):
                disagreements.append(f"{'.'.join(path)}: {value!r:.80}")
    assert disagreements == []


@pytest.mark.parametrize(
    ("quantity", "good"),
    [
        (4, True),
        ("500m", True),
        ("16Gi", True),
        ("1e11", True),
        ("0.5", True),
        ("16 GB", False),
        ("x", False),
    ],
)
def test_quantities_are_checked_by_the_schema(quantity: int | str, good: bool) -> None:
    assert schema_accepts(put(("stages", "train", "resources", "limits"), {"memory": quantity})) == good
