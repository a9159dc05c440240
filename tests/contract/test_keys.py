"""Keys and seeds: equal meaning gives equal keys, anything that changes the result gives another."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srlm_contract.keys import artifact_key, canonical_json, row_id, row_seed, shard_of

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=4), json_values, max_size=5))
def test_the_order_of_fields_does_not_matter(value: dict[str, object]) -> None:
    assert canonical_json(value) == canonical_json(dict(reversed(list(value.items()))))


def test_a_whole_float_is_the_integer_and_nothing_else_is() -> None:
    assert canonical_json({"x": 2.0}) == canonical_json({"x": 2}) == b'{"x":2}'
    assert canonical_json({"x": True}) != canonical_json({"x": 1})


def test_not_a_number_has_no_key() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical_json({"x": float("nan")})


def test_every_part_of_a_key_matters() -> None:
    base = {"stage": "judge", "revision": 1, "parameters": {"k": 3}, "inputs": {"a": "sha256:1"}, "seed": 0}
    changed = [
        base | {"stage": "pairs"},
        base | {"revision": 2},
        base | {"parameters": {"k": 4}},
        base | {"inputs": {"a": "sha256:2"}},
        base | {"inputs": {"b": "sha256:1"}},
        base | {"seed": 1},
    ]
    keys = {artifact_key(**arguments) for arguments in [base, *changed]}  # type: ignore[arg-type]
    assert len(keys) == len(changed) + 1
    assert all(len(key) == 24 for key in keys)


def test_row_ids_do_not_run_together() -> None:
    assert row_id("ab", "c") != row_id("a", "bc")


@given(st.integers(0, 2**31 - 1), st.integers(0, 9), st.integers(1, 3), st.text(max_size=9), st.integers(0, 9))
def test_row_seeds_are_in_the_range_engines_take(seed: int, iteration: int, round: int, row: str, sample: int) -> None:
    assert 0 <= row_seed(seed, "judge", iteration, round, row, sample) < 2**31


def test_neighbouring_rows_have_unrelated_seeds() -> None:
    # An engine that gives child i the seed + i would otherwise repeat candidates of the next prompt.
    seeds = {row_seed(0, "generate", 1, 1, row_id(str(n)), s) for n in range(500) for s in range(4)}
    assert len(seeds) == 2000
    assert not any(s + 1 in seeds for s in seeds)


@given(st.integers(1, 16))
def test_shards_cover_every_row_once(shards: int) -> None:
    assert all(0 <= shard_of(row_id(str(n)), shards) < shards for n in range(50))
