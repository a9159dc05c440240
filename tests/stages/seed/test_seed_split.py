"""Seed formats and the split: every kind of file, every kind of damage, and what goes where."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srlm_contract.keys import row_id
from srlm_stages.seed.files import SeedDataError
from srlm_stages.seed.formats import Answer, SeedPrompt, read_seed_data
from srlm_stages.seed.source import pick_seed_file
from srlm_stages.seed.split import Split, split_prompts


def reply(text: str, rank: int | None = None, **extra: Any) -> dict[str, Any]:
    return {"text": text, "role": "assistant", "lang": "en", "rank": rank, "replies": [], **extra}


def tree(text: str, *replies: dict[str, Any], **extra: Any) -> dict[str, Any]:
    prompt = {"text": text, "role": "prompter", "lang": "en", "replies": list(replies), **extra}
    return {"message_tree_id": text, "tree_state": "ready_for_export", "prompt": prompt}


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


GOOD = [tree(f"Question {i}?", reply(f"good {i}", 0), reply(f"bad {i}", 1)) for i in range(4)]


def test_trees_give_prompts_with_answers_best_first(tmp_path: Path) -> None:
    rows = [tree(" Why? ", reply("worst", 2), reply("best", 0), reply("middle", 1), reply("unranked"))]
    data = read_seed_data(write(tmp_path / "t.jsonl", rows), "OasstTrees", "en")
    (prompt,) = data.prompts
    assert prompt.id == row_id("Why?")
    assert [a.text for a in prompt.answers] == ["best", "middle", "worst", "unranked"]
    assert prompt.best == "best"
    assert [a.rank for a in prompt.ranked] == [0, 1, 2]
    assert data.dropped == {"unrankedAnswer": 1}


def test_only_what_people_wrote_in_the_language_is_kept(tmp_path: Path) -> None:
    rows = [
        tree("Kept?", reply("a", 0), reply("b", 1, lang="de"), reply("c", 2, deleted=True),
             reply("d", 3, synthetic=True)),
        tree("Warum?", reply("weil", 0), lang="de"),
        tree("Written by a model?", reply("x", 0), synthetic=True),
        tree("Taken back?", deleted=True),
        tree("Kept?", reply("again", 0)),
        tree("   ", reply("to nothing", 0)),
    ]  # fmt: skip
    data = read_seed_data(write(tmp_path / "t.jsonl", rows), "OasstTrees", "en")
    assert [(p.text, [a.text for a in p.answers]) for p in data.prompts] == [("Kept?", ["a"])]
    assert data.dropped == {
        "otherLanguageAnswer": 1, "deletedAnswer": 1, "syntheticAnswer": 1, "otherLanguagePrompt": 1,
        "syntheticPrompt": 1, "deletedPrompt": 1, "duplicatePrompt": 1, "emptyPrompt": 1,
    }  # fmt: skip


def test_plain_and_gzip_are_told_apart_by_content(tmp_path: Path) -> None:
    plain = write(tmp_path / "named.gz", GOOD)
    zipped = tmp_path / "named.jsonl"
    zipped.write_bytes(gzip.compress(plain.read_bytes()))
    assert read_seed_data(plain, "OasstTrees", "en") == read_seed_data(zipped, "OasstTrees", "en")


def test_messages_and_chats_are_read_too(tmp_path: Path) -> None:
    messages = [
        {"message_id": "b", "parent_id": "a", "text": "second", "rank": 1, "lang": "en"},
        {"message_id": "a", "parent_id": None, "text": "Why?", "lang": "en"},
        {"message_id": "c", "parent_id": "a", "text": "first", "rank": 0, "lang": "en"},
        {"message_id": "d", "parent_id": "c", "text": "Thanks", "lang": "en"},
    ]
    (prompt,) = read_seed_data(write(tmp_path / "m.jsonl", messages), "OasstMessages", "en").prompts
    assert [a.text for a in prompt.answers] == ["first", "second"]
    chats = [
        {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "Hi"},
                      {"role": "assistant", "content": "Hello"}]},
        {"prompt": "Rank us", "answers": ["best", "worse"]},
    ]  # fmt: skip
    one, two = read_seed_data(write(tmp_path / "c.jsonl", chats), "Chat", "en").prompts
    assert (one.text, one.best, one.ranked) == ("Hi", "Hello", ())
    assert [(a.text, a.rank) for a in two.ranked] == [("best", 0), ("worse", 1)]


@pytest.mark.parametrize(
    ("content", "format", "says"),
    [
        (b"", "OasstTrees", "is empty"),
        (b"\n\n", "OasstTrees", "is empty"),
        (json.dumps(GOOD[0]).encode() + b"\nnot json\n", "OasstTrees", "line 2 is not JSON"),
        (b"[1, 2]\n", "OasstTrees", r"row 1 \(line 1\) is not a JSON object but int"),
        (b"\xff\xfe\x00\n", "OasstTrees", "line 1 is not JSON"),
        (b'{"text": "a message"}\n', "OasstTrees", "not an Open Assistant tree; check seedData.format"),
        (json.dumps(GOOD[0]).encode(), "OasstMessages", "not an Open Assistant message"),
        (json.dumps(GOOD[0]).encode(), "Chat", "not the Chat format"),
        (json.dumps(tree("Warum?", lang="de")).encode(), "OasstTrees", "no usable prompt in language 'en'"),
        (gzip.compress(json.dumps(GOOD[0]).encode() * 99)[:-20], "OasstTrees", "damaged gzip file"),
        (b"\x1f\x8b not gzip at all", "OasstTrees", "damaged gzip file"),
    ],
)
def test_unusable_files_are_named_with_line_and_cause(tmp_path: Path, content: bytes, format: str, says: str) -> None:
    path = tmp_path / "seed.jsonl"
    path.write_bytes(content)
    with pytest.raises(SeedDataError, match=says) as error:
        read_seed_data(path, format, "en")
    assert "seed.jsonl" in str(error.value)


def test_ranks_that_are_no_ranks_do_not_count(tmp_path: Path) -> None:
    rows = [tree("Q?", reply("a", 0), reply("b", -1), reply("c", True), reply("d", 1.5))]  # type: ignore[arg-type]
    data = read_seed_data(write(tmp_path / "t.jsonl", rows), "OasstTrees", "en")
    assert data.dropped["invalidRankAnswer"] == 3
    assert data.prompts[0].ranked == ()


def prompt(number: int, *ranks: int | None) -> SeedPrompt:
    answers = tuple(Answer(f"answer {number}.{i}", rank) for i, rank in enumerate(ranks))
    return SeedPrompt(id=row_id(str(number)), text=f"Question {number}?", answers=answers)


def split(prompts: list[SeedPrompt], **changes: Any) -> Split:
    wanted: dict[str, Any] = {
        "seed": 0, "ift_examples": 4, "heldout_answers": 4, "validation_prompts": 2, "train_judge": True
    }  # fmt: skip
    return split_prompts(prompts, **(wanted | changes))


def sizes(parts: Split) -> list[int]:
    return [len(parts.ift), len(parts.ranked_train), len(parts.ranked_heldout), len(parts.validation)]


def test_enough_prompts_give_exactly_what_is_wanted() -> None:
    # 4 held-out answers at 2 a prompt are 2 prompts; the ranked rest trains the judge.
    assert sizes(split([prompt(i, 0, 1) for i in range(20)])) == [4, 12, 2, 2]


def test_the_demo_split_is_the_one_its_readme_states() -> None:
    from importlib.resources import as_file, files

    with as_file(files("srlm_stages.demo").joinpath("seed.trees.jsonl")) as path:
        data = read_seed_data(path, "OasstTrees", "en")
    parts = split_prompts(
        data.prompts, seed=0, ift_examples=48, heldout_answers=72, validation_prompts=16, train_judge=True
    )
    assert [len(parts.ift), len(parts.validation)] == [48, 16]
    assert len(parts.ranked_heldout) == 25  # 72 answers at 333/112 a prompt
    assert len(parts.ranked_train) == 112 - 48 - 16 - 25


def test_too_few_prompts_shrink_in_proportion_and_keep_a_share_for_the_judge() -> None:
    parts = split([prompt(i, 0, 1) for i in range(10)], ift_examples=40, heldout_answers=40, validation_prompts=20)
    # 2 of 10 are kept for the judge; 40:20:20 of the other 8 are 4:2:2.
    assert sizes(parts) == [4, 2, 2, 2]


def test_prompts_nothing_else_can_use_go_into_validation_first() -> None:
    prompts = [prompt(i, 0, 1) for i in range(10)] + [prompt(100), prompt(101, None)]
    assert {p.id for p in split(prompts).validation} == {prompts[10].id, prompts[11].id}


def test_ift_takes_only_answers_that_fit() -> None:
    parts = split([prompt(i, 0, 1) for i in range(20)], usable_for_ift=lambda answer: answer != "answer 3.0")
    assert len(parts.ift) == 4
    assert prompt(3).id not in {p.id for p in parts.ift}


@pytest.mark.parametrize(
    ("prompts", "changes", "says"),
    [
        ([prompt(i, None, None) for i in range(9)], {}, "none of 9 prompts has two answers of different human rank"),
        ([prompt(i, 0) for i in range(9)], {}, "two answers of different human rank"),
        ([prompt(i, 1, 1) for i in range(9)], {}, "two answers of different human rank"),
        ([prompt(i, None) for i in range(9)], {"train_judge": False, "heldout_answers": 0}, "human rank 0"),
        ([prompt(i, 0, 1) for i in range(9)], {"usable_for_ift": lambda a: False}, "maxAnswerTokens"),
        ([prompt(0, 0, 1), *(prompt(i, 0) for i in range(1, 9))], {}, "1 ranked prompts are too few"),
    ],
)
def test_data_without_what_a_part_needs(prompts: list[SeedPrompt], changes: dict[str, Any], says: str) -> None:
    with pytest.raises(SeedDataError, match=says):
        split(prompts, **changes)


@settings(deadline=None)
@given(
    st.lists(st.lists(st.one_of(st.none(), st.integers(0, 3)), max_size=4), min_size=1, max_size=40),
    st.integers(0, 30), st.integers(0, 30), st.integers(0, 30), st.booleans(), st.randoms(),
)  # fmt: skip
def test_parts_are_disjoint_and_do_not_depend_on_the_order_of_the_file(
    ranks: list[list[int | None]], ift: int, heldout: int, validation: int, judge: bool, random: Any
) -> None:
    prompts = [prompt(i, *r) for i, r in enumerate(ranks)]

    def parts(order: list[SeedPrompt]) -> Split | str:
        try:
            return split(
                order, ift_examples=ift, heldout_answers=heldout, validation_prompts=validation, train_judge=judge
            )
        except SeedDataError as error:
            return str(error)

    found = parts(prompts)
    shuffled = list(prompts)
    random.shuffle(shuffled)
    assert parts(shuffled) == found
    if isinstance(found, str):
        return
    ids = [p.id for part in (found.ift, found.ranked_train, found.ranked_heldout, found.validation) for p in part]
    assert len(set(ids)) == len(ids)
    assert len(found.ift) <= ift
    assert len(found.validation) <= validation
    assert all(p.ranked for p in (*found.ranked_train, *found.ranked_heldout))
    assert all(p.best is not None for p in found.ift)
    assert bool(found.ranked_train) == judge


def test_the_ready_trees_file_of_a_repository_is_picked() -> None:
    names = ["README.md", "2023-04-12_oasst_all.trees.jsonl.gz", "2023-04-12_oasst_ready.trees.jsonl.gz",
             "2023-04-12_oasst_ready.messages.jsonl.gz"]  # fmt: skip
    assert pick_seed_file(names, "OasstTrees", "hf://x/y") == names[2]
    assert pick_seed_file(names, "OasstMessages", "hf://x/y") == names[3]


@pytest.mark.parametrize(
    ("names", "says"),
    [([], "it has: nothing; set seedData.file"), (["a.ready.trees.jsonl.gz", "b.ready.trees.jsonl.gz"], "2 files")],
)
def test_a_repository_without_one_fitting_file(names: list[str], says: str) -> None:
    from srlm_contract.errors import BadInput

    with pytest.raises(BadInput, match=says):
        pick_seed_file(names, "OasstTrees", "hf://x/y")
