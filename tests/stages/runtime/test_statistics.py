"""Statistics that shards add up, and what is made from the sums: equal to one pass over all rows, and to scipy."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from srlm_stages.runtime.statistics import correlation, entropy, figures, merge_shards, moments, with_ratios

pairs = st.lists(st.tuples(st.integers(0, 20).map(lambda n: n / 4), st.integers(0, 3000)), min_size=2, max_size=40)


@given(pairs)
def test_correlation_equals_scipy(rows: list[tuple[float, int]]) -> None:
    x, y = [float(a) for a, _ in rows], [float(b) for _, b in rows]
    found = correlation(moments(rows))
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert found is None
    else:
        assert found == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-6)


@given(st.dictionaries(st.sampled_from("012345"), st.integers(0, 50), min_size=1))
def test_entropy_equals_scipy(scores: dict[str, int]) -> None:
    assume(sum(scores.values()))
    assert entropy(scores) == pytest.approx(float(stats.entropy(list(scores.values()), base=2)))


def test_entropy_by_hand() -> None:
    assert entropy({"4": 12}) == 0
    assert entropy({"3": 5, "4": 5}) == 1
    assert entropy(dict.fromkeys("012345", 2)) == pytest.approx(math.log2(6))


@given(pairs, st.integers(1, 39))
def test_shards_give_what_the_whole_gives(rows: list[tuple[float, int]], cut: int) -> None:
    def part(some: list[tuple[float, int]]) -> dict[str, Any]:
        scores: dict[str, int] = {}
        for score, _ in some:
            scores[f"{score:g}"] = scores.get(f"{score:g}", 0) + 1
        return {"verdicts": len(some) + 1, "parsed": len(some), "scores": scores, "shadowMoments": moments(some)}

    halves = [part(rows[:cut]), part(rows[cut:])]
    whole = {**part(rows), "verdicts": len(rows) + 2}
    # Parts that carry their own ratios already are merged alike.
    for parts in (halves, [with_ratios(half) for half in halves]):
        assert figures(merge_shards(parts)) == pytest.approx(figures(with_ratios(whole)))
