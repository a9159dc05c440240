"""Judge metrics against values worked out by hand and against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from srlm_contract.rows import Judgement
from srlm_stages.judging.agreement import tau_b
from srlm_stages.judging.metrics import (
    Ranked,
    estimate,
    group_by_prompt,
    judge_metrics,
    length_correlations,
    pairwise,
    spearman,
)

RIGHT = Ranked((0, 1, 2), (5, 3, 1), (30, 20, 10))
WRONG = Ranked((0, 1, 2), (1, 3, 5), (10, 20, 30))
TIED = Ranked((0, 1, 2), (4, 4, 1), (5, 9, 9))
FLAT = Ranked((0, 1), (4, 4), (5, 5))


def accuracy(groups: list[Ranked], tie: float = 0.0) -> tuple[float | None, int]:
    found = estimate([pairwise(group, tie) for group in groups])
    return found.value, found.n


def test_pairwise_accuracy_by_hand() -> None:
    # RIGHT 3 of 3, TIED 2 of 3 with one tie, FLAT 0 of 1 with one tie: 5 of 7, or 6 of 7 with half ties.
    groups = [RIGHT, TIED, FLAT]
    assert accuracy(groups) == (5 / 7, 7)
    assert accuracy(groups, tie=0.5) == (6 / 7, 7)
    assert accuracy([WRONG]) == (0, 3)
    assert accuracy([]) == (None, 0)


def test_equal_human_ranks_are_no_pair() -> None:
    assert accuracy([Ranked((0, 0, 1), (3, 1, 2))]) == (0.5, 2)


def test_five_best_by_hand() -> None:
    groups = [RIGHT, WRONG, FLAT]
    assert [judge_metrics(groups, perfect)["fiveBest"].value for perfect in (5, 4)] == [1 / 2, 2 / 4]
    assert [judge_metrics(groups, perfect)["fiveBest"].n for perfect in (5, 4)] == [2, 4]
    none = judge_metrics([FLAT, FLAT], 5)["fiveBest"]
    assert (none.value, none.n, none.low, none.high) == (None, 0, None, None)


def test_exact_match_by_hand() -> None:
    found = judge_metrics([RIGHT, WRONG, TIED, FLAT], 5)["exactMatch"]
    assert (found.value, found.n, found.excluded) == (1 / 4, 4, 0)
    # One answer is no ranking, equal human ranks cannot be reproduced without ties, and a ranking with an answer
    # that has no score is not whole.
    one, equal, cut = Ranked((0,), (5,)), Ranked((0, 0), (5, 4)), Ranked((0, 2), (5, 1), complete=False)
    found = judge_metrics([one, equal, cut], 5)["exactMatch"]
    assert (found.value, found.n, found.excluded) == (None, 0, 3)


def test_correlations_leave_out_and_count_constant_prompts() -> None:
    estimates = judge_metrics([RIGHT, WRONG, FLAT], 5)
    assert (estimates["spearman"].value, estimates["spearman"].n, estimates["spearman"].excluded) == (0, 2, 1)
    estimates = judge_metrics([RIGHT, FLAT], 5)
    assert (estimates["kendall"].value, estimates["kendall"].n, estimates["kendall"].excluded) == (1, 1, 1)
    nothing = judge_metrics([FLAT], 5)["kendall"]
    assert (nothing.value, nothing.n, nothing.excluded) == (None, 0, 1)


ranked = st.integers(2, 7).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 5), min_size=n, max_size=n),
        st.lists(st.integers(0, 6), min_size=n, max_size=n),
    )
)


@given(ranked)
def test_spearman_and_kendall_equal_scipy(case: tuple[list[int], list[int]]) -> None:
    scores, ranks = case
    assume(len(set(scores)) > 1 and len(set(ranks)) > 1)
    order = [-r for r in ranks]
    assert spearman(scores, ranks) == pytest.approx(stats.spearmanr(scores, order).statistic)
    assert tau_b(scores, ranks) == pytest.approx(stats.kendalltau(scores, order).statistic)


@given(ranked)
def test_constant_values_have_no_correlation(case: tuple[list[int], list[int]]) -> None:
    _, ranks = case
    assert spearman([3] * len(ranks), ranks) is None
    assert tau_b([3] * len(ranks), ranks) is None


@given(st.lists(ranked.map(lambda case: Ranked(tuple(case[1]), tuple(map(float, case[0])))), min_size=2, max_size=8))
def test_all_five_over_many_prompts_equal_scipy_and_plain_counting(groups: list[Ranked]) -> None:
    found = judge_metrics(groups, 5)
    pairs = [
        (g.scores[i], g.scores[j])
        for g in groups for i in range(len(g.ranks)) for j in range(len(g.ranks)) if g.ranks[i] < g.ranks[j]
    ]  # fmt: skip
    assert found["pairwise"].n == len(pairs)
    if pairs:
        assert found["pairwise"].value == pytest.approx(sum(a > b for a, b in pairs) / len(pairs))
        half = sum(a > b for a, b in pairs) + 0.5 * sum(a == b for a, b in pairs)
        assert found["pairwiseHalfTies"].value == pytest.approx(half / len(pairs))
    fives = [rank for g in groups for rank, score in zip(g.ranks, g.scores, strict=True) if score == 5]
    assert found["fiveBest"].n == len(fives)
    if fives:
        assert found["fiveBest"].value == pytest.approx(fives.count(0) / len(fives))
    varied = [g for g in groups if len(set(g.ranks)) > 1 and len(set(g.scores)) > 1]
    for name, theirs in (("spearman", stats.spearmanr), ("kendall", stats.kendalltau)):
        assert (found[name].n, found[name].excluded) == (len(varied), len(groups) - len(varied))
        if varied:
            mean = sum(theirs(g.scores, [-r for r in g.ranks]).statistic for g in varied) / len(varied)
            assert found[name].value == pytest.approx(mean)
    whole = [g for g in groups if len(set(g.ranks)) == len(g.ranks)]
    same = [g for g in whole if [r for _, r in sorted(zip(g.scores, g.ranks, strict=True))] == sorted(g.ranks)[::-1]]
    same = [g for g in same if len(set(g.scores)) == len(g.scores)]
    assert found["exactMatch"].n == len(whole)
    if whole:
        assert found["exactMatch"].value == pytest.approx(len(same) / len(whole))


def test_length_only_row_scores_longer_as_better() -> None:
    assert accuracy([RIGHT.by_length(), WRONG.by_length()]) == (0.5, 6)


def test_interval_contains_the_value_and_is_reproducible() -> None:
    groups = [RIGHT, WRONG, TIED, RIGHT, RIGHT, FLAT] * 3
    found = judge_metrics(groups, 5)["pairwise"]
    assert found.value is not None
    assert found.low is not None
    assert found.high is not None
    assert 0 < found.low < found.value < found.high < 1
    assert judge_metrics(groups, 5)["pairwise"] == found
    assert judge_metrics(groups, 5)["exactMatch"].low == pytest.approx(0.2903102, abs=1e-6), "Wilson's, 9 of 18"


def test_fewer_than_ten_prompts_have_no_interval() -> None:
    nine, ten = ([RIGHT] * 8 + [FLAT] * more for more in (1, 2))
    for name in ("pairwise", "exactMatch"):
        found = judge_metrics(nine, 5)[name]
        assert (found.low, found.high) == (None, None)
        assert judge_metrics(ten, 5)[name].low is not None
    undefined = judge_metrics(nine + [FLAT] * 9, 5)["kendall"]
    assert (undefined.n, undefined.low) == (8, None), "prompts without the measure do not count"


def test_interval_is_near_scipys_bootstrap() -> None:
    """Prompts with one pair each: then the measure is a mean, which scipy can bootstrap."""
    outcomes = [1.0] * 70 + [0.0] * 30
    found = estimate([(value, 1) for value in outcomes])
    theirs = stats.bootstrap((outcomes,), np.mean, n_resamples=1000, method="percentile", rng=0).confidence_interval
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.02)


def test_groups_leave_out_answers_without_a_score() -> None:
    def row(i: int, prompt: str, score: float | None, rank: int | None) -> Judgement:
        return Judgement(
            id=f"{i:016x}", prompt_id=prompt, prompt="q", answer="a" * i, verdicts=(), score=score, rank=rank
        )

    groups, unscored = group_by_prompt(
        [row(1, "a", 3.0, 0), row(2, "a", None, 1), row(3, "a", 1.0, 2), row(4, "b", 2.0, None)]
    )
    assert groups == [Ranked((0, 2), (3.0, 1.0), (1, 3), complete=False)]
    assert unscored == 1


def test_score_and_length_are_correlated_within_prompts() -> None:
    """The longer prompt has the better scores and the longer answers: that says nothing about either of its answers."""

    def row(prompt: str, score: float | None, length: int) -> Judgement:
        return Judgement(id="0", prompt_id=prompt, prompt="q", answer="a" * length, verdicts=(), score=score)

    follows = [row("a", 1.0, 10), row("a", 2.0, 20), row("a", 3.0, 15), row("a", None, 99)]
    against = [row("b", 5.0, 100), row("b", 4.0, 200)]
    constant = [row("c", 3.0, 5), row("c", 3.0, 6)]
    assert length_correlations(follows + against + constant) == [pytest.approx(0.5), pytest.approx(-1.0), None]
