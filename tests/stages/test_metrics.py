"""Judge metrics against values worked out by hand and against scipy."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from srlm_contract.rows import Comparison, Judgement
from srlm_stages.agreement import tau_b
from srlm_stages.metrics import (
    Ranked,
    bootstrap_interval,
    correlation,
    exact_match,
    five_best,
    group_by_prompt,
    head_to_head,
    judge_metrics,
    outcome,
    pairwise_accuracy,
    spearman,
)

RIGHT = Ranked((0, 1, 2), (5, 3, 1), (30, 20, 10))
WRONG = Ranked((0, 1, 2), (1, 3, 5), (10, 20, 30))
TIED = Ranked((0, 1, 2), (4, 4, 1), (5, 9, 9))
FLAT = Ranked((0, 1), (4, 4), (5, 5))


def test_pairwise_accuracy_by_hand() -> None:
    # RIGHT 3 of 3, TIED 2 of 3 with one tie, FLAT 0 of 1 with one tie: 5 of 7, or 6 of 7 with half ties.
    groups = [RIGHT, TIED, FLAT]
    assert pairwise_accuracy(groups) == (5 / 7, 7)
    assert pairwise_accuracy(groups, tie=0.5) == (6 / 7, 7)
    assert pairwise_accuracy([WRONG]) == (0, 3)
    assert pairwise_accuracy([]) == (None, 0)


def test_equal_human_ranks_are_no_pair() -> None:
    assert pairwise_accuracy([Ranked((0, 0, 1), (3, 1, 2))]) == (0.5, 2)


def test_five_best_by_hand() -> None:
    assert five_best([RIGHT, WRONG, FLAT], 5) == (1 / 2, 2)
    assert five_best([RIGHT, WRONG, FLAT], 4) == (2 / 4, 4)
    assert five_best([FLAT], 5) == (None, 0)


def test_exact_match_by_hand() -> None:
    assert exact_match([RIGHT, WRONG, TIED, FLAT]) == (1 / 4, 4)
    # One answer is no ranking, and equal human ranks cannot be reproduced without ties.
    assert exact_match([Ranked((0,), (5,)), Ranked((0, 0), (5, 4))]) == (None, 0)


def test_correlations_leave_out_and_count_constant_prompts() -> None:
    assert correlation([RIGHT, WRONG, FLAT], spearman) == (0, 2)
    assert correlation([RIGHT, FLAT], tau_b) == (1, 1)
    estimates = judge_metrics([RIGHT, FLAT], 5)
    assert estimates["spearman"].n == 1
    assert estimates["spearman"].excluded == 1


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


def test_length_only_row_scores_longer_as_better() -> None:
    assert pairwise_accuracy([RIGHT.by_length(), WRONG.by_length()]) == (0.5, 6)


def test_interval_contains_the_value_and_is_reproducible() -> None:
    groups = [RIGHT, WRONG, TIED, RIGHT, RIGHT, FLAT] * 3
    low, high = bootstrap_interval(groups, lambda g: pairwise_accuracy(g)[0])
    value = pairwise_accuracy(groups)[0]
    assert low is not None
    assert high is not None
    assert value is not None
    assert 0 < low < value < high < 1
    assert (low, high) == bootstrap_interval(groups, lambda g: pairwise_accuracy(g)[0])
    assert bootstrap_interval([RIGHT], lambda g: pairwise_accuracy(g)[0]) == (None, None)


def test_groups_leave_out_answers_without_a_score() -> None:
    def row(i: int, prompt: str, score: float | None, rank: int | None) -> Judgement:
        return Judgement(
            id=f"{i:016x}", prompt_id=prompt, prompt="q", answer="a" * i, verdicts=(), score=score, rank=rank
        )

    groups, unscored = group_by_prompt(
        [row(1, "a", 3.0, 0), row(2, "a", None, 1), row(3, "a", 1.0, 2), row(4, "b", 2.0, None)]
    )
    assert groups == [Ranked((0, 2), (3.0, 1.0), (1, 3))]
    assert unscored == 1


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [("A", "B", "win"), ("B", "A", "loss"), ("A", "A", "tie"), ("B", "B", "tie"), (None, "B", "unreadable")],
)
def test_both_orders_decide(first: str | None, second: str | None, expected: str) -> None:
    assert outcome(first, second) == expected


def test_win_rate_counts_ties_half_and_leaves_unreadable_out() -> None:
    def row(result: str) -> Comparison:
        return Comparison(id="1", prompt="q", model="M2", opponent="M1", outcome=result)  # type: ignore[arg-type]

    result = head_to_head([row("win"), row("win"), row("tie"), row("loss"), row("unreadable")])
    assert (result.wins, result.ties, result.losses, result.unreadable) == (2, 1, 1, 1)
    assert result.win_rate == 2.5 / 4
    assert head_to_head([row("unreadable")]).win_rate is None
