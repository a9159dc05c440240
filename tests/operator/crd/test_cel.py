"""CEL rules: evaluation, transition rules, messages and compilation."""

from __future__ import annotations

import re
from typing import Any

import pytest

from srlm_operator.crd.cel import RuleError, cel_type, compile_rule
from srlm_operator.crd.objects import validate
from srlm_operator.crd.schema import FieldError

INT = {"type": "integer"}
TEXT = {"type": "string", "maxLength": 10}


def with_rule(schema: dict[str, Any], rule: str, **more: Any) -> dict[str, Any]:
    """A root schema whose field `a` has this schema and rule."""
    field = {**schema, "x-kubernetes-validations": [{"rule": rule, **more}]}
    return {"type": "object", "properties": {"a": field}}


def errors(schema: dict[str, Any], obj: dict[str, Any], old: dict[str, Any] | None = None) -> list[tuple[str, str]]:
    return [(error.path, error.message) for error in validate(schema, obj, old)]


@pytest.mark.parametrize(
    ("schema", "rule", "good", "bad"),
    [
        (INT, "self % 2 == 0", 4, 3),
        ({"type": "number"}, "self * 2.0 < 3.0", 1, 2),
        (TEXT, "self.matches('^[a-z]+$')", "abc", "a1"),
        (TEXT, "self.startsWith('s3://') && self.split('/')[2] != ''", "s3://b/k", "s3:///k"),
        (TEXT, "isURL(self)", "http://x", "x y"),
        (TEXT, "isQuantity(self)", "512Mi", "2 Gi"),
        (TEXT, "self.find('[0-9]+') == '12'", "a12b", "a13b"),
        ({"type": "array", "items": TEXT, "maxItems": 5}, "self.all(x, x.size() < 3)", ["ab"], ["abc"]),
        ({"type": "array", "items": TEXT, "maxItems": 5}, "self.exists_one(x, x == 'a')", ["a", "b"], ["a", "a"]),
        ({"type": "object", "additionalProperties": INT}, "size(self) == 1 && 'k' in self", {"k": 1}, {"l": 1}),
        (
            {"type": "object", "properties": {"x-y": INT, "in": INT}},
            "self.x__dash__y < self.__in__",
            {"x-y": 1, "in": 2},
            {"x-y": 2, "in": 1},
        ),
        ({"type": "object", "properties": {"o": INT}}, "!has(self.o) || self.o > 1", {}, {"o": 1}),
        ({"type": "object", "properties": {"o": INT}}, "self.?o.orValue(5) == 5", {}, {"o": 1}),
        ({"x-kubernetes-int-or-string": True}, "type(self) == int || self.endsWith('%')", "5%", "5"),
        (
            {"type": "string", "format": "date-time"},
            "self > timestamp('2026-01-01T00:00:00Z')",
            "2026-02-01T00:00:00Z",
            "2025-01-01T00:00:00Z",
        ),
        ({"type": "string", "format": "duration"}, "self > duration('1m')", "2m", "30s"),
    ],
)
def test_rules_hold_or_fail(schema: dict[str, Any], rule: str, good: Any, bad: Any) -> None:
    whole = with_rule(schema, rule, message="wrong")
    assert errors(whole, {"a": good}) == []
    ((path, message),) = errors(whole, {"a": bad})
    assert path == "a"
    assert message.endswith("wrong")


def test_messages_paths_and_reasons() -> None:
    plain = with_rule(INT, "self > 1")
    assert errors(plain, {"a": 1}) == [("a", "Invalid value: 1: failed rule: self > 1")]
    told = with_rule(INT, "self > 1", messageExpression="self < 0 ? 'negative' : 'small'")
    assert errors(told, {"a": -1}) == [("a", "Invalid value: -1: negative")]
    pair = {"type": "object", "properties": {"low": INT, "high": INT}}
    moved = with_rule(pair, "self.low <= self.high", message="no", fieldPath=".low", reason="FieldValueForbidden")
    assert validate(moved, {"a": {"low": 2, "high": 1}}) == [
        FieldError("a.low", "Forbidden: no", "FieldValueForbidden")
    ]


def test_a_rule_that_cannot_be_evaluated_fails_with_the_cause() -> None:
    schema = with_rule({"type": "object", "properties": {"low": INT}}, "self.low > 1", message="m")
    assert errors(schema, {"a": {}}) == [("a", 'Invalid value: "object": no such key: low evaluating rule: m')]


def test_transition_rules_need_an_old_value() -> None:
    schema = with_rule(TEXT, "self == oldSelf", message="immutable")
    assert errors(schema, {"a": "x"}) == []
    assert errors(schema, {"a": "y"}, {}) == []
    assert errors(schema, {"a": "y"}, {"a": "x"}) == [("a", 'Invalid value: "y": immutable')]


def test_items_of_list_maps_are_found_again_by_their_keys() -> None:
    item = {
        "type": "object",
        "required": ["name"],
        "properties": {"name": TEXT, "n": INT},
        "x-kubernetes-validations": [{"rule": "self.n >= oldSelf.n", "message": "shrinks"}],
    }
    lists = {"type": "array", "maxItems": 9, "items": item}
    keyed = {**lists, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
    old = {"a": [{"name": "x", "n": 1}, {"name": "y", "n": 5}]}
    new = {"a": [{"name": "y", "n": 4}, {"name": "x", "n": 2}]}
    assert errors({"type": "object", "properties": {"a": keyed}}, new, old) == [("a[0]", "Invalid value: shrinks")]
    assert errors({"type": "object", "properties": {"a": lists}}, new, old) == []


def test_unchanged_values_are_not_checked_again() -> None:
    schema = with_rule(INT, "self > 1")
    schema["properties"]["b"] = INT
    assert errors(schema, {"a": 0, "b": 2}, {"a": 0, "b": 1}) == []


def test_the_root_sees_only_the_name_of_the_metadata() -> None:
    schema = {
        "type": "object",
        "x-kubernetes-validations": [{"rule": "self.metadata.name.size() < 3", "message": "long"}],
    }
    assert errors(schema, {"metadata": {"name": "ab", "labels": {"x": "y"}}}) == []
    assert errors(schema, {"metadata": {"name": "abc"}}) == [("<nil>", "Invalid value: long")]


@pytest.mark.parametrize(
    ("schema", "rule", "what"),
    [
        (INT, "self > 'x'", "found no matching overload for '_>_' applied to '(int, string)'"),
        (INT, "self +", "Syntax error"),
        (INT, "other == 1", "undeclared reference to 'other'"),
        ({"type": "array", "items": INT, "maxItems": 3}, "self.all(x, x == 'a')", "no matching overload"),
    ],
)
def test_rules_that_do_not_compile_are_refused(schema: dict[str, Any], rule: str, what: str) -> None:
    with pytest.raises(RuleError, match=re.escape(what)):
        compile_rule(rule, cel_type(schema))
