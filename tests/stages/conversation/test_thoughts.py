"""Thoughts are told apart from answers by their marks, whoever wrote them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srlm_stages.conversation.thoughts import KNOWN_THOUGHTS, Thought, opened_in, thoughts_in, without_thoughts

THINK = KNOWN_THOUGHTS[0]


@pytest.mark.parametrize("thought", KNOWN_THOUGHTS, ids=lambda thought: thought.opening)
def test_every_known_mark_at_the_beginning_is_a_thought(thought: Thought) -> None:
    text = f"\n{thought.opening}\nHm. Score: 5\n{thought.closing}\n\nIt is so.\n"
    said = without_thoughts(text, ())
    assert (said.answer, said.finished, said.thought) == ("It is so.", True, True)
    cut = without_thoughts(f"{thought.opening}\nHm. Score: 5", ())
    assert (cut.answer, cut.finished) == ("", False)


@pytest.mark.parametrize(
    ("text", "answer", "finished"),
    [
        ("Yes.", "Yes.", True),
        ("<think>a</think>b<think>c</think>d", "bd", True),
        ("<think>a</think>b<think>c", "b", False),
        ("a</think>b", "b", True),
        ("<think>a <think> b</think>c</think> d", "d", True),
        ("<think></think>", "", True),
        ("<think>a</think><answer>b</answer>", "b", True),
        ("<|begin_of_thought|>a<|end_of_thought|>\n<|begin_of_solution|>b<|end_of_solution|>", "b", True),
        ("<think>a</think>the tag <answer> opens", "the tag <answer> opens", True),
    ],
)
def test_what_is_left(text: str, answer: str, finished: bool) -> None:
    said = without_thoughts(text, [THINK])
    assert (said.answer, said.finished, said.thought) == (answer, finished, text != "Yes.")


def test_a_thought_that_the_prompt_has_opened() -> None:
    assert without_thoughts("a</think>b", (), THINK).answer == "b"
    assert not without_thoughts("a, no end", (), THINK).finished
    assert without_thoughts("<think>again</think>b", (), THINK).answer == "b"  # some models open it once more


@given(st.text(alphabet="ab <>/\n"))
def test_texts_without_marks_stay_as_they_are(text: str) -> None:
    assert without_thoughts(text, KNOWN_THOUGHTS).answer == text


def test_marks_are_found_in_the_template_and_among_the_tokens() -> None:
    assert thoughts_in("{{ m.content.split('</think>')[-1] }}", ()) == (THINK,)
    assert thoughts_in("", ["[THINK]", "</s>"]) == (Thought("[THINK]", "[/THINK]"),)
    assert thoughts_in("{{ m.content }}", ["<s>"]) == ()


def test_only_an_open_thought_at_the_end_of_a_prompt_is_open() -> None:
    assert opened_in("assistant\n<think>\n", [THINK]) == THINK
    assert opened_in("assistant\n<think>\n\n</think>\n\n", [THINK]) is None
    assert opened_in("assistant\n", [THINK]) is None
