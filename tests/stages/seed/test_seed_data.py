"""The seed data that ships with the demo keeps what its README promises."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from importlib.resources import files
from itertools import combinations
from typing import Any

import pytest

DEMO = files("srlm_stages.demo")
Tree = dict[str, Any]


@pytest.fixture(scope="module")
def trees() -> list[Tree]:
    text = DEMO.joinpath("seed.trees.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def prompt_texts(trees: list[Tree]) -> list[str]:
    return [tree["prompt"]["text"] for tree in trees]


def ranked_answers(tree: Tree) -> list[str]:
    """Answer texts of one tree, best first."""
    return [reply["text"] for reply in sorted(tree["prompt"]["replies"], key=lambda reply: reply["rank"])]


def words(text: str) -> int:
    return len(text.split())


def length_only_accuracy(trees: list[Tree]) -> float:
    """Share of ranked pairs in which the better answer has more characters; equal lengths are wrong."""
    pairs = [pair for tree in trees for pair in combinations(ranked_answers(tree), 2)]
    return sum(len(better) > len(worse) for better, worse in pairs) / len(pairs)


def test_counts_are_those_of_the_readme(trees: list[Tree]) -> None:
    sizes = Counter(len(tree["prompt"]["replies"]) for tree in trees)
    assert len(trees) == 112
    assert sizes == {2: 23, 3: 69, 4: 20}
    readme = DEMO.joinpath("README.md").read_text(encoding="utf-8")
    assert "112, all English" in readme
    assert "333: 23 prompts with 2, 69 with 3, 20 with 4" in readme
    longer = sum(max(map(len, ranked_answers(tree)[1:])) > len(ranked_answers(tree)[0]) for tree in trees)
    assert f"In {longer}\ntrees some worse answer is longer" in readme
    assert f"{length_only_accuracy(trees):.3f} pairwise accuracy" in readme


def test_messages_have_the_fields_of_the_format(trees: list[Tree]) -> None:
    for tree in trees:
        prompt = tree["prompt"]
        assert tree["tree_state"] == "ready_for_export"
        assert tree["message_tree_id"] == prompt["message_id"]
        assert prompt["role"] == "prompter"
        for message in [prompt, *prompt["replies"]]:
            assert message["lang"] == "en"
            assert message["deleted"] is False
            assert message["synthetic"] is False
            assert message["text"] == message["text"].strip() != ""
        for reply in prompt["replies"]:
            assert reply["role"] == "assistant"
            assert reply["parent_id"] == prompt["message_id"]
            assert reply["replies"] == []


def test_ids_are_unique_name_based_uuids(trees: list[Tree]) -> None:
    prompts = [tree["prompt"] for tree in trees]
    ids = [message["message_id"] for prompt in prompts for message in [prompt, *prompt["replies"]]]
    assert len(set(ids)) == len(ids) == 112 + 333
    assert {uuid.UUID(message_id).version for message_id in ids} == {5}


def test_ranks_count_from_zero_without_gaps(trees: list[Tree]) -> None:
    for tree in trees:
        ranks = sorted(reply["rank"] for reply in tree["prompt"]["replies"])
        assert ranks == list(range(len(ranks))), tree["prompt"]["text"]


def test_position_says_nothing_about_rank(trees: list[Tree]) -> None:
    for tree in trees:
        ids = [reply["message_id"] for reply in tree["prompt"]["replies"]]
        assert ids == sorted(ids)
    best_first = sum(tree["prompt"]["replies"][0]["rank"] == 0 for tree in trees)
    assert 0.2 < best_first / len(trees) < 0.5


def test_prompts_are_unique_and_short(trees: list[Tree]) -> None:
    prompts = prompt_texts(trees)
    assert len({prompt.casefold() for prompt in prompts}) == len(prompts)
    assert [prompt for prompt in prompts if not 6 <= words(prompt) <= 30] == []


def test_prompts_pass_the_keyword_filter_of_the_prompts_stage(trees: list[Tree]) -> None:
    banned = ("image", "graph", "picture")
    assert [prompt for prompt in prompt_texts(trees) if any(word in prompt.casefold() for word in banned)] == []


def test_best_answers_are_short_and_full(trees: list[Tree]) -> None:
    best = [ranked_answers(tree)[0] for tree in trees]
    assert [answer for answer in best if not 15 <= words(answer) <= 55] == []


def test_no_answer_is_long_or_used_twice(trees: list[Tree]) -> None:
    answers = [answer for tree in trees for answer in ranked_answers(tree)]
    assert len({answer.casefold() for answer in answers}) == len(answers)
    assert [answer for answer in answers if words(answer) > 60] == []


def test_length_alone_does_not_tell_the_better_answer(trees: list[Tree]) -> None:
    assert 0.4 < length_only_accuracy(trees) < 0.65
