"""Agreement with human rankings and preference pairs, against values worked out by hand."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srlm_contract.keys import row_id
from srlm_contract.rows import Judgement, Verdict
from srlm_stages.judging.agreement import KeptVerdict, concordance, rebalance, select_agreeing, tau_b
from srlm_stages.judging.preference import positives, preference_pairs


def judged(prompt: str, answer: str, score: float | None, **changes: Any) -> Judgement:
    return Judgement(
        id=row_id(prompt, answer), prompt_id=row_id(prompt), prompt=prompt, answer=answer, verdicts=(), score=score,
        **changes,
    )  # fmt: skip


def ranked(answer: str, rank: int | None, *scores: float | None, prompt: str = "Q?") -> Judgement:
    verdicts = tuple(Verdict(text=f"{answer}, sample {i}: {s}", score=s) for i, s in enumerate(scores))
    return Judgement(
        id=row_id(prompt, answer), prompt_id=row_id(prompt), prompt=prompt, answer=answer, verdicts=verdicts, rank=rank
    )


# Agreement


def test_concordance_by_hand() -> None:
    # ranks 0, 1, 2 with scores 4, 2, 2: (0,1) and (0,2) concordant, (1,2) tied
    assert concordance([4, 2, 2], [0, 1, 2]) == (2, 0, 1)
    # the pair of equal human rank does not count
    assert concordance([1, 5, 3], [1, 1, 0]) == (1, 1, 0)


def test_tau_b_by_hand() -> None:
    assert tau_b([5, 3, 1], [0, 1, 2]) == 1
    assert tau_b([1, 3, 5], [0, 1, 2]) == -1
    # 2 concordant, 0 discordant, 1 score tie, no rank tie: 2 / sqrt((2 + 1) * 2)
    assert tau_b([4, 2, 2], [0, 1, 2]) == pytest.approx(2 / 6**0.5)
    assert tau_b([3, 3, 3], [0, 1, 2]) is None


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), min_size=2, max_size=9))
def test_tau_b_is_scipys(rows: list[tuple[int, int]]) -> None:
    from scipy.stats import kendalltau

    scores, ranks = [float(s) for s, _ in rows], [r for _, r in rows]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy warns about constant input and answers nan
        theirs = float(kendalltau(scores, [-r for r in ranks]).statistic)
    ours = tau_b(scores, ranks)
    assert ours is None if theirs != theirs else ours == pytest.approx(theirs)


def test_all_pairs_keeps_samples_without_a_discordant_pair() -> None:
    rows = [ranked("best", 0, 4, 3, 2, 4, 2), ranked("middle", 1, 3, 3, 3, None, 2), ranked("worst", 2, 1, 2, 1, 1, 2)]
    kept, counts = select_agreeing(rows, agreement="AllPairs", min_tau=0)
    # sample 0 agrees; 1 ties the upper two, allowed; 2 is discordant; 3 has an unreadable verdict; 4 is all tied
    assert counts == {"agreeing": 2, "disagreeing": 2, "unreadable": 1}
    assert {v.sample for v in kept} == {0, 1}
    assert len(kept) == 6


def test_kendall_tau_keeps_samples_above_the_bound() -> None:
    rows = [ranked("a", 0, 4, 4), ranked("b", 1, 2, 3), ranked("c", 2, 3, 3), ranked("d", 3, 1, 5)]
    # sample 0: 5 concordant, 1 discordant of 6: tau 2/3; sample 1: 2 concordant, 3 discordant, 1 tie: below 0
    kept, _ = select_agreeing(rows, agreement="KendallTau", min_tau=0.6)
    assert {v.sample for v in kept} == {0}
    kept, _ = select_agreeing(rows, agreement="KendallTau", min_tau=0.7)
    assert kept == []


def test_prompts_without_human_order_teach_nothing() -> None:
    rows = [ranked("a", 0, 5), ranked("b", 0, 1), ranked("c", None, 5, prompt="Other?")]
    kept, counts = select_agreeing(rows, agreement="AllPairs", min_tau=0)
    assert kept == []
    assert counts == {"promptsWithoutRanks": 2}


def kept_verdicts(*scores: float) -> list[KeptVerdict]:
    return [KeptVerdict(ranked(f"answer {i}", 0), f"text {i}", s, 0) for i, s in enumerate(scores)]


def test_rebalancing_cuts_the_most_frequent_score_to_the_second() -> None:
    balanced = rebalance(kept_verdicts(4, 4, 4, 4, 4, 3, 3, 1), seed=0, max_examples=100)
    assert sorted(v.score for v in balanced) == [1, 3, 3, 4, 4]
    assert len(rebalance(kept_verdicts(4, 4, 4, 3, 3, 1), seed=0, max_examples=2)) == 2
    # a single score has nothing to be balanced against
    assert len(rebalance(kept_verdicts(2, 2, 2), seed=0, max_examples=100)) == 3


def test_rebalancing_keeps_equal_texts_once_and_depends_on_the_seed_only() -> None:
    twice = kept_verdicts(4, 3) + kept_verdicts(4, 3)
    assert len(rebalance(twice, seed=0, max_examples=100)) == 2
    many = kept_verdicts(*[4] * 30, *[3] * 10)
    first = [v.text for v in rebalance(many, seed=1, max_examples=20)]
    assert first == [v.text for v in rebalance(many[::-1], seed=1, max_examples=20)]
    assert first != [v.text for v in rebalance(many, seed=2, max_examples=20)]


# Preference pairs


def pairs(rows: list[Judgement], **changes: Any) -> tuple[list[tuple[str, str]], dict[str, int]]:
    asked: dict[str, Any] = {"min_margin": 0, "length_penalty": 0, "truncated": "Drop"} | changes
    found, counts = preference_pairs(rows, **asked)
    return [(p.chosen, p.rejected) for p in found], dict(counts)


def test_best_against_worst() -> None:
    rows = [judged("Q", "mid", 3), judged("Q", "top", 4.5), judged("Q", "low", 1)]
    assert pairs(rows) == ([("top", "low")], {"rows": 3, "prompts": 1, "comparable": 1, "pairs": 1})


def test_every_cause_is_counted() -> None:
    rows = [
        judged("tie", "a", 2), judged("tie", "b", 2 + 1e-12),
        judged("one left", "a", 2), judged("one left", "unreadable", None),
        judged("one left", "cut", 5, truncated=True), judged("one left", "  ", 5),
        judged("same text", "x", 2), judged("same text", "x ", 4),
        judged("good", "a", 1), judged("good", "b", 2),
    ]  # fmt: skip
    found, counts = pairs(rows)
    assert found == [("b", "a")]
    assert counts == {
        "rows": 10, "prompts": 4, "comparable": 3, "pairs": 1, "ties": 1, "droppedUnjudged": 1, "droppedTruncated": 1,
        "droppedEmpty": 1, "droppedTooFewAnswers": 1, "droppedEqualText": 1,
    }  # fmt: skip


def test_an_unreadable_answer_is_never_the_worst() -> None:
    assert pairs([judged("Q", "a", 3), judged("Q", "b", 2), judged("Q", "no score", None)])[0] == [("a", "b")]


def test_truncated_answers_may_be_kept() -> None:
    rows = [judged("Q", "cut", 1, truncated=True), judged("Q", "whole", 3)]
    assert pairs(rows)[0] == []
    assert pairs(rows, truncated="Keep")[0] == [("whole", "cut")]


def test_the_margin_must_be_exceeded() -> None:
    rows = [judged("Q", "a", 3.25), judged("Q", "b", 3)]
    assert pairs(rows, min_margin=0.25) == (
        [], {"rows": 2, "prompts": 1, "comparable": 1, "droppedMargin": 1, "pairs": 0}
    )  # fmt: skip
    assert pairs(rows, min_margin=0.2)[0] == [("a", "b")]


def test_equal_scores_are_broken_by_the_surer_verdicts() -> None:
    rows = [
        judged("Q", "best, unsure", 4, variance=0.9), judged("Q", "best, sure", 4, variance=0.1),
        judged("Q", "worst, unsure", 1, variance=0.5), judged("Q", "worst, sure", 1, variance=0.0),
    ]  # fmt: skip
    assert pairs(rows)[0] == [("best, sure", "worst, sure")]


def test_length_penalty_takes_the_shortest_good_and_the_longest_bad_answer() -> None:
    rows = [
        judged("Q", "long best", 5, tokens=300), judged("Q", "short good", 4.7, tokens=100),
        judged("Q", "short but 4.5", 4.5, tokens=10), judged("Q", "short worst", 1, tokens=20),
        judged("Q", "long bad", 1.4, tokens=400),
    ]  # fmt: skip
    # rho 0.1 of the span 4: good is 4.6 and above, bad is 1.4 and below
    assert pairs(rows, length_penalty=0.1)[0] == [("short good", "long bad")]
    assert pairs(rows)[0] == [("long best", "short worst")]
    # rho 0.5: both bands meet in the middle
    assert pairs(rows, length_penalty=0.5)[1]["droppedBandsOverlap"] == 1


def test_lengths_in_characters_where_tokens_are_unknown() -> None:
    rows = [judged("Q", "good " * 9, 5), judged("Q", "short", 5), judged("Q", "bad", 1)]
    assert pairs(rows, length_penalty=0.1)[0] == [("short", "bad")]


scored = st.lists(
    st.tuples(
        st.integers(0, 5), st.sampled_from("abcdefgh"), st.one_of(st.none(), st.integers(0, 20).map(lambda n: n / 4)),
        st.integers(0, 50), st.booleans(),
    ),
    max_size=40,
)  # fmt: skip


@settings(deadline=None)
@given(scored, st.sampled_from([0, 0.1, 0.3]), st.sampled_from([0, 0.5]), st.randoms())
def test_pairs_are_sound_and_do_not_depend_on_order(rows: Any, rho: float, margin: float, random: Any) -> None:
    judgements = [judged(f"Q{p}", a, s, tokens=n, truncated=t) for p, a, s, n, t in rows]
    unique = list({row.id: row for row in judgements}.values())
    found, counts = preference_pairs(unique, min_margin=margin, length_penalty=rho, truncated="Drop")
    assert len({p.id for p in found}) == len(found) == counts["pairs"]
    by_id = {row.id: row for row in unique}
    for pair in found:
        chosen, rejected = by_id[pair.chosen_id], by_id[pair.rejected_id]
        assert pair.chosen_score > pair.rejected_score
        assert chosen.prompt_id == rejected.prompt_id == pair.id
        assert not chosen.truncated
        assert not rejected.truncated
    prompts = sum(counts[n] for n in ("pairs", "ties", "droppedMargin", "droppedBandsOverlap", "droppedEqualText",
                                      "droppedTooFewAnswers"))  # fmt: skip
    assert prompts == counts["prompts"]
    shuffled = list(unique)
    random.shuffle(shuffled)
    assert preference_pairs(shuffled, min_margin=margin, length_penalty=rho, truncated="Drop")[0] == found


ROW_CAUSES = ("droppedUnjudged", "droppedTruncated", "droppedEmpty")


@settings(deadline=None)
@given(scored, st.sampled_from(["Drop", "Keep"]), st.sampled_from([0.0, 2.5, 5.0]))
def test_every_row_is_kept_or_counted_by_one_cause(rows: Any, truncated: str, least: float) -> None:
    judgements = [
        judged(f"Q{p}", a if n else " ", s, tokens=n, truncated=t).model_copy(update={"id": f"{i:016x}"})
        for i, (p, a, s, n, t) in enumerate(rows)
    ]
    found, counts = positives(judgements, min_score=least, truncated=truncated)
    assert len(found) + sum(counts[n] for n in (*ROW_CAUSES, "droppedScore", "droppedEqualText")) == len(judgements)
    pairs_found, counts = preference_pairs(judgements, min_margin=0, length_penalty=0, truncated=truncated)
    whole = [r for r in judgements if not (r.truncated and truncated == "Drop")]
    usable = [r for r in whole if r.score is not None and r.answer.strip()]
    assert len(usable) + sum(counts[n] for n in ROW_CAUSES) == counts["rows"] == len(judgements)
    assert counts["prompts"] == len({r.prompt_id for r in judgements})
    by_prompt = [[r for r in usable if r.prompt_id == p] for p in {r.prompt_id for r in judgements}]
    assert counts["droppedTooFewAnswers"] == sum(len(some) < 2 for some in by_prompt)
    equal = [some for some in by_prompt if len(some) > 1 and len({r.score for r in some}) == 1]
    assert counts["ties"] == len(equal)
    assert len(pairs_found) + counts["droppedEqualText"] == counts["comparable"] - counts["ties"]


def test_positives_are_all_distinct_answers_that_are_good_enough() -> None:
    rows = [
        judged("Q", "perfect", 5), judged("Q", "good", 4.5), judged("R", "perfect", 5),
        judged("R", "cut", 5, truncated=True), judged("R", "none", None),
    ]  # fmt: skip
    found, counts = positives(rows, min_score=5, truncated="Drop")
    assert sorted((p.prompt, p.answer, p.score) for p in found) == [("Q", "perfect", 5), ("R", "perfect", 5)]
    assert counts["droppedScore"] == 1
    assert counts["pairs"] == 2
