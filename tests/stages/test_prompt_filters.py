"""New prompts: ROUGE-L against the library, the index against all pairs, each filter by its cause."""

from __future__ import annotations

import random
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from srlm_contract.spec import PromptFiltersSpec
from srlm_stages.prompt_filters import PromptFilter, cleaned, in_language
from srlm_stages.similarity import SimilarityIndex, rouge_l, rouge_tokens

WORDS = ["write", "a", "story", "about", "the", "cat", "and", "dog", "how", "to", "cook", "rice"]
texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=12).map(" ".join)


@given(texts, texts)
def test_rouge_l_equals_the_library(a: str, b: str) -> None:
    expected = RougeScorer(["rougeL"], use_stemmer=False).score(a, b)["rougeL"].fmeasure
    assert rouge_l(rouge_tokens(a), rouge_tokens(b)) == pytest.approx(expected)


def test_tokens_equal_the_library_on_real_punctuation() -> None:
    a, b = "What's 3.5 x 2? Don't guess!", "what is 3.5x2 - don't you know"
    expected = RougeScorer(["rougeL"], use_stemmer=False).score(a, b)["rougeL"].fmeasure
    assert rouge_l(rouge_tokens(a), rouge_tokens(b)) == pytest.approx(expected)


@given(st.lists(texts, max_size=15), texts, st.sampled_from([0.3, 0.5, 0.7, 0.9, 1.0]))
def test_the_index_finds_what_comparing_all_pairs_finds(seen: list[str], text: str, threshold: float) -> None:
    index = SimilarityIndex(threshold)
    for other in seen:
        index.add(other)
    tokens = rouge_tokens(text)
    expected = any(rouge_l(tokens, rouge_tokens(other)) >= threshold - 1e-9 for other in seen)
    assert index.similar(text) == expected


def test_a_hundred_thousand_prompts_need_hardly_any_comparison() -> None:
    """Work is counted, not time: all pairs would be 100,000 comparisons for each new prompt."""
    draw = random.Random(0)
    small = ["write", "a", "the", "of", "how", "to", "what", "is", "in", "for", "and", "explain", "give", "me"]
    names = [f"name{i}" for i in range(20_000)]
    weights = list(accumulate(1 / (i + 1) for i in range(len(names))))  # words of texts: the n-th is n times rarer

    def prompt() -> str:
        drawn = draw.choices(names, cum_weights=weights, k=draw.randint(6, 20))
        return " ".join(draw.choice(small) if draw.random() < 0.4 else name for name in drawn)

    index = SimilarityIndex(0.7)
    seen = [prompt() for _ in range(100_000)]
    for text in seen:
        index.add(text)
    for text in (prompt() for _ in range(200)):
        index.similar(text)
    assert index.compared < 10 * 200
    for text in draw.sample(seen, 20):
        words = text.split()
        words[0] = "another"
        assert index.similar(" ".join(words)) == (rouge_l(words, text.split()) >= 0.7)


def prompt_filter(**fields: object) -> PromptFilter:
    accept = PromptFilter(PromptFiltersSpec.model_validate(fields), "en")
    accept.remember("Write a short story about a brave cat who learns to swim")
    return accept


@pytest.mark.parametrize(
    ("prompt", "cause"),
    [
        ("", "droppedEmpty"),
        ("12 + 30 = ?", "droppedEmpty"),
        ("Too short", "droppedLength"),
        ("word " * 151, "droppedLength"),
        ("Draw an image of a house", "droppedKeyword"),
        ("Describe these two Pictures to me", "droppedKeyword"),
        ("Напиши рассказ о храброй кошке", "droppedLanguage"),
        ("Schreibe mir bitte eine kurze Geschichte über Katzen", "droppedLanguage"),
        ("write a short story about a brave cat, who learns to swim!", "droppedDuplicate"),
        ("Write a short story about a brave dog who learns to swim", "droppedSimilar"),
        ("How do I keep bread fresh for a week?", None),
        ("Explain the photographic process", None),
    ],
)
def test_each_cause(prompt: str, cause: str | None) -> None:
    assert prompt_filter().refusal(prompt) == cause


def test_the_bound_itself_is_still_accepted() -> None:
    accept = PromptFilter(PromptFiltersSpec(max_rouge_l=0.5, min_words=1), "xx")
    accept.remember("one two three four")
    assert accept.refusal("one two five six") is None
    assert accept.refusal("one two three six") == "droppedSimilar"


def test_a_bound_of_one_refuses_only_equal_prompts() -> None:
    accept = prompt_filter(maxRougeL=1)
    assert accept.refusal("Write a short story about a brave dog who learns to swim") is None


def test_what_was_accepted_is_remembered_only_when_told() -> None:
    accept = prompt_filter()
    assert accept.refusal("How do I keep bread fresh?") is None
    accept.remember("How do I keep bread fresh?")
    assert accept.refusal("How do I keep bread fresh?") == "droppedDuplicate"


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        (" 9. Name a fruit. ", "Name a fruit."),
        ('"Name a fruit."', "Name a fruit."),
        ("- Name a fruit.", "Name a fruit."),
        ('Say "yes" and "no"', 'Say "yes" and "no"'),
        ('"Yes" or "no"', '"Yes" or "no"'),
        ("3 fruits, please", "3 fruits, please"),
    ],
)
def test_cleaning(raw: str, clean: str) -> None:
    assert cleaned(raw) == clean


def test_other_scripts() -> None:
    assert in_language("Напиши рассказ о кошке", "ru")
    assert not in_language("Write a story", "ru")
    assert in_language("猫について書いてください", "ja")
