"""Structural schemas: pruning, defaults, OpenAPI rules and list types, in the words of a real API server."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srlm_operator.crd.objects import validate
from srlm_operator.crd.schema import NOT_CHECKED, FieldError, apply_defaults, prune

STEPS: dict[str, Any] = {
    "type": "array",
    "maxItems": 2,
    "x-kubernetes-list-type": "map",
    "x-kubernetes-list-map-keys": ["name"],
    "items": {
        "type": "object",
        "required": ["name"],
        "properties": {"name": {"type": "string"}, "weight": {"type": "integer", "default": 1}},
    },
}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["spec"],
    "properties": {
        "spec": {
            "type": "object",
            "required": ["size"],
            "properties": {
                "size": {"type": "string", "enum": ["small", "large"]},
                "count": {"type": "integer", "minimum": 1, "maximum": 10, "default": 3},
                "ratio": {"type": "number", "minimum": 0, "exclusiveMinimum": True},
                "title": {"type": "string", "maxLength": 8, "minLength": 2, "pattern": "^[a-z]*$"},
                "seed": {"type": "integer", "nullable": True},
                "options": {
                    "type": "object",
                    "default": {},
                    "properties": {"mode": {"type": "string", "default": "fast"}},
                },
                "labels": {"type": "object", "maxProperties": 2, "additionalProperties": {"type": "string"}},
                "extra": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                "amount": {"x-kubernetes-int-or-string": True},
                "at": {"type": "string", "format": "date-time"},
                "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
                "steps": STEPS,
            },
        }
    },
}


def thing(**spec: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "T", "metadata": {"name": "t"}, "spec": {"size": "small", **spec}}


def problems(**spec: Any) -> list[FieldError]:
    return [error for error in validate(SCHEMA, thing(**spec)) if error != NOT_CHECKED]


def test_pruning_tells_the_paths_of_what_it_removes() -> None:
    obj = thing(
        colour=1, options={"mode": "x", "shade": 2}, steps=[{"name": "a", "more": 3}], extra={"kept": {"deep": 1}}
    )
    assert prune(SCHEMA, obj) == ["spec.colour", "spec.options.shade", "spec.steps[0].more"]
    assert obj["spec"] == {
        "size": "small",
        "options": {"mode": "x"},
        "steps": [{"name": "a"}],
        "extra": {"kept": {"deep": 1}},
    }


def test_metadata_is_never_pruned() -> None:
    obj = thing()
    obj["metadata"]["labels"] = {"a": "b"}
    assert prune(SCHEMA, obj) == []


def test_defaults_at_every_depth() -> None:
    obj = thing(steps=[{"name": "a"}])
    apply_defaults(SCHEMA, obj)
    assert obj["spec"] == {
        "size": "small",
        "count": 3,
        "options": {"mode": "fast"},
        "steps": [{"name": "a", "weight": 1}],
    }


def test_defaults_are_copies() -> None:
    first, second = thing(), thing()
    apply_defaults(SCHEMA, first)
    first["spec"]["options"]["mode"] = "changed"
    apply_defaults(SCHEMA, second)
    assert second["spec"]["options"] == {"mode": "fast"}


def test_null_becomes_the_default_or_goes_or_stays_where_allowed() -> None:
    obj = thing(count=None, title=None, seed=None)
    apply_defaults(SCHEMA, obj)
    assert obj["spec"]["count"] == 3
    assert "title" not in obj["spec"]
    assert obj["spec"]["seed"] is None


@pytest.mark.parametrize(
    ("spec", "path", "message", "reason"),
    [
        (
            {"size": "huge"},
            "spec.size",
            'Unsupported value: "huge": supported values: "small", "large"',
            "NotSupported",
        ),
        (
            {"count": 11},
            "spec.count",
            "Invalid value: 11: spec.count in body should be less than or equal to 10",
            "Invalid",
        ),
        (
            {"count": "3"},
            "spec.count",
            'Invalid value: "string": spec.count in body must be of type integer: "string"',
            "TypeInvalid",
        ),
        (
            {"count": 1.5},
            "spec.count",
            'Invalid value: "number": spec.count in body must be of type integer: "number"',
            "TypeInvalid",
        ),
        (
            {"count": True},
            "spec.count",
            'Invalid value: "boolean": spec.count in body must be of type integer: "boolean"',
            "TypeInvalid",
        ),
        ({"ratio": 0}, "spec.ratio", "Invalid value: 0: spec.ratio in body should be greater than 0", "Invalid"),
        ({"title": "much too long"}, "spec.title", "Too long: may not be more than 8 bytes", "TooLong"),
        (
            {"title": "a"},
            "spec.title",
            'Invalid value: "a": spec.title in body should be at least 2 chars long',
            "Invalid",
        ),
        (
            {"title": "A B"},
            "spec.title",
            "Invalid value: \"A B\": spec.title in body should match '^[a-z]*$'",
            "Invalid",
        ),
        ({"at": "now"}, "spec.at", 'Invalid value: "now": spec.at in body must be of type date-time: "now"', "Invalid"),
        (
            {"labels": {"a": 1}},
            "spec.labels.a",
            'Invalid value: "integer": spec.labels.a in body must be of type string: "integer"',
            "TypeInvalid",
        ),
        ({"labels": {"a": "", "b": "", "c": ""}}, "spec.labels", "Too many: 3: must have at most 2 items", "TooMany"),
        (
            {"amount": 1.5},
            "spec.amount",
            'Invalid value: "number": spec.amount in body must be of type integer,string: "number"',
            "TypeInvalid",
        ),
        ({"tags": ["x", "x"]}, "spec.tags[1]", 'Duplicate value: "x"', "Duplicate"),
        ({"steps": [{"weight": 1}]}, "spec.steps[0].name", "Required value", "Required"),
        ({"steps": [{"name": "a"}, {"name": "a"}]}, "spec.steps[1]", 'Duplicate value: {"name":"a"}', "Duplicate"),
        ({"steps": [{"name": n} for n in "abc"]}, "spec.steps", "Too many: 3: must have at most 2 items", "TooMany"),
    ],
)
def test_one_problem(spec: dict[str, Any], path: str, message: str, reason: str) -> None:
    assert problems(**spec) == [FieldError(path, message, f"FieldValue{reason}")]


def test_a_line_break_at_the_end_does_not_slip_through_a_pattern() -> None:
    assert [error.path for error in problems(title="abc\n")] == ["spec.title"]


def test_what_is_valid() -> None:
    assert (
        validate(SCHEMA, thing(count=4.0, ratio=1, title="abc", seed=None, amount="1Gi", at="2026-01-01T00:00:00Z"))
        == []
    )


def test_missing_fields_keep_the_rules_from_being_checked() -> None:
    assert validate(SCHEMA, {"spec": {}}) == [
        FieldError("spec.size", "Required value", "FieldValueRequired"),
        NOT_CHECKED,
    ]


def test_an_update_is_not_blamed_for_what_it_did_not_change() -> None:
    old = thing(count=99, title="ok")
    assert validate(SCHEMA, {**copy.deepcopy(old), "spec": {**old["spec"], "title": "fine"}}, old) == []
    changed = copy.deepcopy(old)
    changed["spec"]["count"] = 98
    assert [error.path for error in validate(SCHEMA, changed, old)] == ["spec.count"]


def test_combined_schemas() -> None:
    either = {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "oneOf": [{"required": ["a"]}, {"required": ["b"]}],
    }
    assert validate(either, {"a": 1}) == []
    (error, _) = (*validate(either, {"a": 1, "b": 2}), None)
    assert "must validate one and only one schema (oneOf). Found 2 valid alternatives" in error.message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*SCHEMA["properties"]["spec"]["properties"], "name", "other"]), inner, max_size=3
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_no_input_breaks_it_and_pruning_and_defaults_settle(value: Any) -> None:
    obj = {"spec": value}
    prune(SCHEMA, obj)
    apply_defaults(SCHEMA, obj)
    validate(SCHEMA, obj)
    again = copy.deepcopy(obj)
    assert prune(SCHEMA, again) == []
    apply_defaults(SCHEMA, again)
    assert again == obj


@pytest.mark.parametrize(
    ("schema", "value", "message"),
    [
        ({"maximum": 0.5, "exclusiveMaximum": True}, 0, "should be less than 0"),
        ({"maximum": 0.5, "exclusiveMaximum": True}, 0.0, ""),
        ({"maximum": 0.49}, 0, ""),
        ({"maximum": 0.49}, 1, "should be less than or equal to 0"),
        ({"maximum": 0.49}, 0.5, "should be less than or equal to 0.49"),
        ({"minimum": 0.5}, 0, ""),
    ],
)
def test_whole_numbers_meet_the_whole_part_of_a_bound(schema: dict[str, Any], value: float, message: str) -> None:
    """As a real API server (1.36) does: it refused a definition whose default 0 is below an exclusive 0.5."""
    whole = {"type": "object", "properties": {"share": {"type": "number", **schema}}}
    found = [error for error in validate(whole, {"share": value}) if error != NOT_CHECKED]
    assert [message in str(error) for error in found] == ([True] if message else [])
