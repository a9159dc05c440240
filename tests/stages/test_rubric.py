"""The judge's task: template checks, and texts that look like placeholders."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srlm_stages.comparing import Pairing, choice, read_choice
from srlm_stages.errors import BadInput
from srlm_stages.rubric import BUILT_IN_RUBRICS, DEFAULT_RUBRIC, Rubric, judge_prompt


def test_the_built_in_rubric_is_additive_and_shares_its_beginning() -> None:
    text = BUILT_IN_RUBRICS[DEFAULT_RUBRIC]
    assert text.count("Add 1 point") == 5
    one, two = judge_prompt("Same question?", "First."), judge_prompt("Same question?", "Second.")
    assert one[: one.index("First.")] == two[: two.index("Second.")]


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("No placeholder", r"\{question\} 0 times"),
        ("{question} only", r"\{answer\} 0 times"),
        ("{question} {answer} {answer}", r"\{answer\} 2 times"),
        ("{answer} before {question}", "before"),
    ],
)
def test_templates_that_cannot_be_used(template: str, problem: str) -> None:
    with pytest.raises(BadInput, match=problem) as failure:
        Rubric.parse(template)
    assert failure.value.reason == "TemplateNotUsable"


@given(st.text(), st.text())
def test_texts_are_put_in_word_for_word(question: str, answer: str) -> None:
    rubric = Rubric.parse("Rules {with braces}\n{question}\n{answer}\nEnd")
    assert rubric.fill(question, answer) == f"Rules {{with braces}}\n{question}\n{answer}\nEnd"


def test_comparisons_keep_braces_and_swap_the_answers() -> None:
    first, second = Pairing("M1", "1", "{a} or {b}?", "mine {b}", "theirs").questions()
    assert "{a} or {b}?" in first
    assert first.index("mine {b}") < first.index("theirs")
    assert second.index("theirs") < second.index("mine {b}")


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("A", "A"),
        ("The better answer is: B", "B"),
        ("Answer A and answer B are close. The better answer is: A.", "A"),
        ("The better answer is Answer B because A is long.", "B"),
        ("**The better answer is:** B, not A", "B"),
        ("**B**", "B"),
        ("Both A and B", None),
        ("neither", None),
    ],
)
def test_choices_in_words(reply: str, letter: str | None) -> None:
    assert read_choice(reply) == letter


def test_choices_by_probability() -> None:
    assert choice(0.6, 0.3) == "A"
    assert choice(0.1, 0.3) == "B"
    assert choice(0.01, 0.02) is None
    assert choice(0.4, 0.4) is None
