"""JSON patches and merge patches, selectors and quantities: functions of values."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srlm_local.http.tables import duration
from srlm_local.store.errors import ApiError
from srlm_local.store.patching import json_patch, merge_patch
from srlm_local.store.selectors import field_selector, label_selector
from srlm_local.store.values import parse_quantity
from srlm_operator.jobs.strategic import PatchFailed

VALUES = st.recursive(
    st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
    max_leaves=8,
)


@given(VALUES, VALUES)
def test_a_merge_patch_is_idempotent(target: Any, patch: Any) -> None:
    once = merge_patch(target, patch)
    assert merge_patch(once, patch) == once


def test_merge_patch_removes_nulls_and_replaces_lists() -> None:
    assert merge_patch({"a": 1, "b": [1, 2], "c": {"d": 1}}, {"a": None, "b": [3], "c": {"e": 2}}) == {
        "b": [3],
        "c": {"d": 1, "e": 2},
    }


@pytest.mark.parametrize(
    ("operations", "result"),
    [
        ([{"op": "add", "path": "/l/-", "value": 3}], {"l": [1, 2, 3], "m/n": 0}),
        ([{"op": "add", "path": "/l/0", "value": 0}], {"l": [0, 1, 2], "m/n": 0}),
        ([{"op": "remove", "path": "/l/1"}], {"l": [1], "m/n": 0}),
        ([{"op": "replace", "path": "/m~1n", "value": 9}], {"l": [1, 2], "m/n": 9}),
        ([{"op": "move", "from": "/m~1n", "path": "/x"}], {"l": [1, 2], "x": 0}),
        ([{"op": "copy", "from": "/l", "path": "/x"}], {"l": [1, 2], "m/n": 0, "x": [1, 2]}),
        ([{"op": "test", "path": "/l/0", "value": 1}], {"l": [1, 2], "m/n": 0}),
    ],
)
def test_json_patch(operations: list[dict[str, Any]], result: Any) -> None:
    target = {"l": [1, 2], "m/n": 0}
    assert json_patch(target, operations) == result
    assert target == {"l": [1, 2], "m/n": 0}


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "test", "path": "/l/0", "value": 2},
        {"op": "remove", "path": "/none"},
        {"op": "replace", "path": "/none", "value": 1},
        {"op": "add", "path": "/l/7", "value": 1},
        {"op": "add", "path": "/l/01", "value": 1},
        {"op": "leap", "path": "/l"},
        {"path": "/l"},
    ],
)
def test_json_patches_that_do_not_apply(operation: dict[str, Any]) -> None:
    with pytest.raises(PatchFailed):
        json_patch({"l": [1]}, [operation])


@pytest.mark.parametrize(
    ("selector", "matches"),
    [
        ("a=1", True),
        ("a==1", True),
        ("a!=1", False),
        ("b!=1", True),
        ("a", True),
        ("!a", False),
        ("!b", True),
        ("a in (1,2)", True),
        ("a notin (1,2)", False),
        ("b notin (1)", True),
        ("a=1,c=x", True),
        ("", True),
    ],
)
def test_label_selectors(selector: str, matches: bool) -> None:
    assert label_selector(selector)({"metadata": {"labels": {"a": "1", "c": "x", "n": "5"}}}) is matches


@pytest.mark.parametrize("selector", ["=", "a in x", "a/b/c=d", "a=b=c", "(a)"])
def test_label_selectors_that_are_none(selector: str) -> None:
    with pytest.raises(ApiError) as error:
        label_selector(selector)
    assert error.value.code == 400


def test_field_selectors() -> None:
    pod = {"metadata": {"name": "p"}, "spec": {}, "status": {"phase": "Running"}}
    assert field_selector("status.phase=Running,metadata.name!=q", "pods")(pod)
    assert field_selector("spec.nodeName=", "pods")(pod)
    with pytest.raises(ApiError, match=r"field label not supported: spec\.priority"):
        field_selector("spec.priority=1", "pods")


@pytest.mark.parametrize(
    ("text", "value"),
    [("500m", "0.5"), ("1Gi", "1073741824"), ("2e3", "2000"), ("1.5", "1.5"), ("3k", "3000"), ("-1", "-1")],
)
def test_quantities(text: str, value: str) -> None:
    assert parse_quantity(text) == Decimal(value)


@pytest.mark.parametrize("text", ["", "1 Gi", "Gi", "1GiB", "a"])
def test_what_is_no_quantity(text: str) -> None:
    assert parse_quantity(text) is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (119, "119s"),
        (200, "3m20s"),
        (1020, "17m"),
        (18180, "5h3m"),
        (90000, "25h"),
        (700000, "8d"),
        (4e7, "462d"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
