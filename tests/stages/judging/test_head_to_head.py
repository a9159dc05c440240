"""Who wins and what that says: against values worked out by hand, by scipy, and by its optimiser."""

from __future__ import annotations

from typing import Any

import pytest

from srlm_contract.rows import Choice, Comparison
from srlm_stages.judging.head_to_head import (
    by_kind,
    head_to_head,
    length_controlled,
    outcome,
    self_preference,
)
from srlm_stages.judging.metrics import Estimate, share

POINTS = {"w": "win", "t": "tie", "l": "loss", "u": "unreadable"}
#: Outcomes and differences of lengths in which the longer answer wins most of the time.
OUTCOMES = "wwwtwlwtwwlwllwtlwwl"
DIFFERENCES = (120, 80, 60, -10, 200, -90, 40, 5, -30, 150, -60, 90, 30, -120, 70, -20, -80, 10, 110, -40)


def row(result: str, prompt: str = "q", difference: int = 0, own: str = "") -> Comparison:
    values: dict[str, Any] = {"outcome": POINTS[result], "own": POINTS[own] if own else None}
    lengths = {"characters": 500 + difference, "opponent_characters": 500}
    return Comparison(id="1", prompt=prompt, model="M2", opponent="M1", **values, **lengths)


def rows(outcomes: str, differences: tuple[int, ...] = ()) -> list[Comparison]:
    return [row(o, difference=differences[i] if differences else 0) for i, o in enumerate(outcomes)]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [("A", "B", "win"), ("B", "A", "loss"), ("A", "A", "tie"), ("B", "B", "tie"), (None, "B", "unreadable")],
)
def test_both_orders_decide(first: Choice | None, second: Choice | None, expected: str) -> None:
    assert outcome(first, second) == expected


def test_win_rate_counts_ties_half_and_leaves_unreadable_out() -> None:
    result = head_to_head(rows("wwtlu"))
    assert (result.wins, result.ties, result.losses, result.unreadable) == (2, 1, 1, 1)
    assert result.win_rate == 2.5 / 4
    assert result.flips.value == 1 / 4, "a tie is a judge that named the other answer in the other order"
    assert head_to_head(rows("u")).win_rate is None


@pytest.mark.parametrize(
    ("part", "whole", "low", "high"),
    [  # scipy.stats.binomtest(part, whole).proportion_ci(method="wilson")
        (12, 20, 0.38658150076225317, 0.7811934676271829),
        (0, 10, 0.0, 0.27753279986288926),
        (50, 100, 0.4038315303659956, 0.5961684696340044),
    ],
)
def test_shares_have_wilsons_interval(part: int, whole: int, low: float, high: float) -> None:
    found = share(part, whole)
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-12), pytest.approx(high, abs=1e-12))


def test_nine_prompts_are_too_few_for_an_interval() -> None:
    few, enough = head_to_head(rows("w" * 9)).rate, head_to_head(rows("w" * 10)).rate
    assert few == Estimate(1.0, 9, None, None)
    assert enough.low == pytest.approx(0.7224672001)
    assert share(0, 0) == Estimate()


def test_length_control_is_the_likeliest_logistic_regression() -> None:
    """Values of scipy.optimize.minimize (BFGS) on the same likelihood; win rate as it is: 62.5%."""
    found = length_controlled(rows(OUTCOMES, DIFFERENCES))
    assert found.n == 20
    assert found.value == pytest.approx(0.5969906987741216, abs=1e-6)
    assert (found.low, found.high) == (pytest.approx(0.26899035555, abs=1e-6), pytest.approx(0.85639126955, abs=1e-6))


def test_length_control_of_answers_whose_length_says_nothing_is_the_win_rate() -> None:
    """Half of each length, with the same outcomes: the slope is nought."""
    assert length_controlled(rows("wwwlwwwl", (9, 9, 9, 9, -9, -9, -9, -9)) * 2).value == pytest.approx(0.75)


@pytest.mark.parametrize(
    "comparisons",
    [
        pytest.param(rows("wwwll", (1, 2, 3, 4, 5)), id="few"),
        pytest.param(rows("w" * 12, tuple(range(12))), id="all won"),
        pytest.param(rows("w" * 6 + "l" * 6, (9,) * 6 + (-9,) * 6), id="the longer one always"),
        pytest.param(rows("wl" * 6, (7,) * 12), id="always as much longer"),
        pytest.param(rows("u" * 20), id="unreadable"),
        pytest.param([c.model_copy(update={"characters": None}) for c in rows("wl" * 6)], id="older rows"),
    ],
)
def test_what_the_data_do_not_tell_has_no_figure(comparisons: list[Comparison]) -> None:
    assert length_controlled(comparisons).value is None


def test_self_preference_is_what_a_model_sees_in_itself_beyond_the_judge() -> None:
    """12 of 16: three wins that the judge calls losses (+1), three ties that it calls losses (+0.5), six alike."""
    pairs = ["wl"] * 3 + ["tl"] * 3 + ["ww"] * 6 + ["uw", "wu", "uu", "lu"]
    found = self_preference([row(judged, own=own) for own, judged in pairs])
    assert (found.value, found.n) == (pytest.approx(4.5 / 12), 12)
    assert found.low is not None
    assert found.high is not None
    assert 0 < found.low < 4.5 / 12 < found.high < 1
    assert self_preference(rows("wwl")) == Estimate(), "nobody asked the model"


def test_win_rates_by_kind_of_prompt() -> None:
    """Every prompt has a length and a form."""
    found = by_kind([row("w", "Why?"), row("l", "Tell me."), row("t", "x" * 101), row("u", "なぜ？ ")])
    assert {kind: (r.wins, r.ties, r.losses, r.unreadable) for kind, r in found.items()} == {
        "prompts of at most 100 characters": (1, 0, 1, 1),
        "longer prompts": (0, 1, 0, 0),
        "prompts that end with a question mark": (1, 0, 0, 1),
        "other prompts": (0, 1, 1, 0),
    }
    assert by_kind([]) == {}
