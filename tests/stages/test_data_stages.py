"""data, select and pairs from task to committed artifact."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from srlm_contract.errors import BadInput
from srlm_contract.keys import row_id
from srlm_contract.rows import (
    EftExample,
    Judgement,
    Positive,
    PreferencePair,
    PromptRow,
    RankedAnswer,
    SeedExample,
    ValidationAnswer,
    Verdict,
)
from srlm_contract.spec.data import EftSpec, IftSpec
from srlm_contract.tasks import DataParams, PairsParams, SelectParams, SourceRef
from support.stage_world import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def trees(count: int, language: str = "en", ranks: tuple[int | None, ...] = (0, 1, 2)) -> str:
    rows = [
        {"prompt": {"text": f"Question {i}?", "lang": language, "replies": [
            {"text": f"answer {i} of rank {rank}", "lang": language, "rank": rank} for rank in ranks]}}
        for i in range(count)
    ]  # fmt: skip
    return "".join(json.dumps(row) + "\n" for row in rows)


def seed_task(world: World, content: bytes, **params: Any) -> Any:
    path = world.root / "seed.jsonl"
    path.write_bytes(content)
    wanted = DataParams(**{"ift": IftSpec(max_examples=6), "validation_prompts": 3, "held_out_examples": 9} | params)
    return world.task(wanted, sources={"seedData": SourceRef(uri=path.as_uri())})


@pytest.mark.parametrize("packed", [False, True])
def test_data_writes_four_disjoint_parts(world: World, packed: bool) -> None:
    text = trees(20).encode()
    result = world.run(seed_task(world, gzip.compress(text) if packed else text))
    figures = {name: result.statistics[name] for name in ("ift", "rankedTrain", "rankedHeldout", "validation")}
    assert figures == {"ift": 6, "rankedTrain": 24, "rankedHeldout": 9, "validation": 3}
    ift = world.rows(result, "ift.jsonl", SeedExample)
    train = world.rows(result, "ranked-train.jsonl", RankedAnswer)
    heldout = world.rows(result, "ranked-heldout.jsonl", RankedAnswer)
    validation = world.rows(result, "validation.jsonl", PromptRow)
    references = world.rows(result, "references.jsonl", ValidationAnswer)
    assert [(r.id, r.answer) for r in references] == [
        (p.id, f"answer {p.prompt.split()[1][:-1]} of rank 0") for p in validation
    ]
    assert all(e.answer == f"answer {e.prompt.split()[1][:-1]} of rank 0" for e in ift)
    parts = [
        {e.id for e in ift},
        {r.prompt_id for r in train},
        {r.prompt_id for r in heldout},
        {p.id for p in validation},
    ]
    assert sum(map(len, parts)) == len(set().union(*parts)) == 20
    assert [r.rank for r in heldout[:3]] == [0, 1, 2]
    assert {p.source for p in validation} == {"seed"}


def test_data_says_when_a_part_is_smaller_than_asked(world: World) -> None:
    result = world.run(seed_task(world, trees(6).encode()))
    assert any("of 6 wanted by seedData.ift.maxExamples" in w for w in result.warnings)


def test_data_takes_preferences_in_parquet(world: World) -> None:
    rows = [
        {
            "prompt": f"Question {i}?",
            "chosen": [{"role": "user", "content": f"Question {i}?"}, {"role": "assistant", "content": f"good {i}"}],
            "rejected": [{"role": "user", "content": f"Question {i}?"}, {"role": "assistant", "content": f"bad {i}"}],
        }
        for i in range(20)
    ]
    packed = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), packed)
    result = world.run(seed_task(world, bytes(packed.getvalue()), format="Auto", held_out_examples=8))
    figures = {name: result.statistics[name] for name in ("ift", "rankedTrain", "rankedHeldout", "validation")}
    assert figures == {"ift": 6, "rankedTrain": 14, "rankedHeldout": 8, "validation": 3}
    heldout = world.rows(result, "ranked-heldout.jsonl", RankedAnswer)
    assert {(row.answer.split()[0], row.rank) for row in heldout} == {("good", 0), ("bad", 1)}
    assert all(row.answer.startswith("good") for row in world.rows(result, "ift.jsonl", SeedExample))


def test_data_counts_what_it_left_out_and_says_where(world: World) -> None:
    spam = {"text": "buy", "lang": "en", "rank": 2, "review_result": False}
    faults = [
        {"prompt": {"text": None}},
        {"prompt": {"text": [{"type": "image", "image": "x"}], "lang": "en"}},
        {"prompt": {"text": "Half \ud83d?", "lang": "en"}},
        {"prompt": {"text": "Good?", "lang": "en", "replies": [spam, {"text": 7, "rank": 0}]}},
        {"prompt": {"text": "Warum?", "lang": "de"}},
    ]
    text = trees(20) + "".join(json.dumps(row) + "\n" for row in faults)
    result = world.run(seed_task(world, text.encode("utf-16")))
    counted = {name: n for name, n in result.statistics.items() if name.startswith("dropped") and n}
    assert counted == {
        "droppedEmptyPrompt": 1, "droppedNotTextPrompt": 1, "droppedInvalidUnicodePrompt": 1, "droppedSpamAnswer": 1,
        "droppedNotTextAnswer": 1, "droppedOtherLanguagePrompt": 1,
    }  # fmt: skip
    (warning,) = [warning for warning in result.warnings if "left out" in warning]
    assert warning == (
        "seed.jsonl: left out 1 emptyPrompt (first: line 21), 1 invalidUnicodePrompt (first: line 23), "
        "1 notTextAnswer (first: line 24), 1 notTextPrompt (first: line 22)"
    )


def test_without_eft_nothing_is_kept_for_it(world: World) -> None:
    result = world.run(seed_task(world, trees(12).encode(), ranked=False))
    assert result.statistics["rankedTrain"] == 0
    assert result.statistics["rankedHeldout"] == 9


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"not JSON", "line 1 is not JSON"),
        (b"", "is empty"),
        (trees(5, "de").encode(), "no usable prompt in language 'en'"),
        (trees(5, ranks=(None, None)).encode(), "none of 5 prompts has two answers of different human rank"),
        (trees(5, ranks=(0,)).encode(), "two answers of different human rank"),
        (gzip.compress(trees(50).encode())[:-40], "damaged gzip"),
    ],
)
def test_unusable_seed_data_is_bad_input(world: World, content: bytes, says: str) -> None:
    with pytest.raises(BadInput, match=says) as error:
        world.run(seed_task(world, content))
    assert error.value.reason == "InvalidSeedData"
    assert error.value.exit_code == 65


def judged(prompt: str, answer: str, score: float | None, rank: int | None = None, **more: Any) -> Judgement:
    verdict = Verdict(text=f"{answer} deserves it.\nScore: {score}", score=score)
    return Judgement(
        id=row_id(prompt, answer), prompt_id=row_id(prompt), prompt=prompt, answer=answer, verdicts=(verdict,),
        score=score, rank=rank, **more,
    )  # fmt: skip


def test_select_makes_judge_tasks_of_agreeing_verdicts(world: World) -> None:
    rows = [
        judged("Agrees?", "good", 4, 0), judged("Agrees?", "bad", 1, 1),
        judged("Disagrees?", "good", 1, 0), judged("Disagrees?", "bad", 4, 1),
    ]  # fmt: skip
    judgements = world.put(
        "judge", {"judgements-00000-of-00002.jsonl": rows[:3], "judgements-00001-of-00002.jsonl": rows[3:]}
    )
    result = world.run(world.task(SelectParams(eft=EftSpec()), inputs={"judgements": judgements}))
    assert (result.statistics["eft"], result.statistics["samplesDisagreeing"]) == (2, 1)
    examples = world.rows(result, "eft.jsonl", EftExample)
    assert {e.score for e in examples} == {4, 1}
    (best,) = [e for e in examples if e.score == 4]
    assert best.answer == "good deserves it.\nScore: 4"
    assert "Agrees?" in best.prompt
    assert "Add 1 point" in best.prompt


def test_select_without_any_agreement_warns_and_goes_on(world: World) -> None:
    judgements = world.put("judge", {"judgements.jsonl": [judged("Q", "a", 1, 0), judged("Q", "b", 5, 1)]})
    result = world.run(world.task(SelectParams(eft=EftSpec()), inputs={"judgements": judgements}))
    assert result.statistics["eft"] == 0
    assert "M1 is trained on IFT alone" in result.warnings[0]


def test_pairs_merges_all_rounds(world: World) -> None:
    rounds = {
        "judgements-1": world.put("judge", {"judgements.jsonl": [judged("A", "x", 4), judged("A", "y", 2)]}),
        "judgements-2": world.put("judge", {"judgements.jsonl": [judged("B", "x", 1), judged("B", "y", 2)]}),
    }
    result = world.run(world.task(PairsParams(), inputs=rounds))
    assert result.statistics["pairs"] == 2
    assert result.statistics["tieRate"] == 0
    found = world.rows(result, "pairs.jsonl", PreferencePair)
    assert {(p.prompt, p.chosen) for p in found} == {("A", "x"), ("B", "y")}


def test_positives_only(world: World) -> None:
    rows = [judged("A", "x", 5), judged("A", "y", 2)]
    inputs = {"judgements-1": world.put("judge", {"judgements.jsonl": rows})}
    result = world.run(world.task(PairsParams(strategy="PositiveOnly"), inputs=inputs))
    assert result.statistics["pairs"] == 1
    assert [p.answer for p in world.rows(result, "positives.jsonl", Positive)] == ["x"]


@pytest.mark.parametrize(
    ("rows", "params", "says"),
    [
        ([judged("A", "x", 3), judged("A", "y", 3)], {}, "1 prompts with 2 answers: 1 prompts whose best and worst"),
        ([judged("A", "x", 3), judged("A", "y", 1, truncated=True)], {}, "1 answers cut by the length limit"),
        ([judged("A", "x", None), judged("A", "y", None)], {}, "2 answers without a usable score"),
        ([judged("A", "x", 4)], {"strategy": "PositiveOnly"}, "no positive example is left"),
        ([], {}, "none were given"),
    ],
)
def test_no_pair_left_says_why(world: World, rows: list[Judgement], params: dict[str, Any], says: str) -> None:
    inputs = {"judgements-1": world.put("judge", {"judgements.jsonl": rows})}
    with pytest.raises(BadInput, match=says) as error:
        world.run(world.task(PairsParams(**params), inputs=inputs))
    assert error.value.reason == "NoPairs"


def test_no_pair_before_another_round_is_a_warning(world: World) -> None:
    """Minimum yield asks for more prompts; only a last round without any pair is an error."""
    rows = [judged("A", "x", 3), judged("A", "y", 3)]
    inputs = {"judgements-1": world.put("judge", {"judgements.jsonl": rows})}
    result = world.run(world.task(PairsParams(may_be_empty=True), inputs=inputs))
    assert (result.statistics["pairs"], result.statistics["ties"]) == (0, 1)
    assert "another round of prompts follows" in result.warnings[0]
    assert world.rows(result, "pairs.jsonl", PreferencePair) == []
