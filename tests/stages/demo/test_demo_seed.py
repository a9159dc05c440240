"""What the demo takes of a seed file: short answers, few prompts, and limits that fit them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from srlm_stages.demo import seed as demo_seed
from srlm_stages.demo.seed import LIMITS, MOST_PROMPTS, answer_limit, chosen, main, within
from srlm_stages.seed.formats import Answer, SeedPrompt, read_seed_data


def words(text: str) -> int:
    return len(text.split())


def prompt(name: str, *lengths: int, ranks: tuple[int | None, ...] = (), words_asked: int = 5) -> SeedPrompt:
    """A prompt with answers of so many words, ranked in their order unless told otherwise."""
    known = ranks or tuple(range(len(lengths)))
    answers = [Answer("w " * n + str(rank), rank) for n, rank in zip((n - 1 for n in lengths), known, strict=True)]
    return SeedPrompt(name, "ask " * words_asked, tuple(answers))


def ranks(found: SeedPrompt) -> list[int | None]:
    return [answer.rank for answer in found.answers]


def test_the_best_of_the_answers_that_fit_is_the_one_to_learn_from() -> None:
    (found,) = within([prompt("a", 300, 20, 300, 30)], 64, words)
    assert ranks(found) == [0, 2]
    assert found.best is not None
    assert words(found.best) == 20
    (unranked,) = within([prompt("b", 20, ranks=(None,))], 64, words)
    assert ranks(unranked) == [None]
    assert within([prompt("c", 20, words_asked=65)], 64, words) == []


@pytest.mark.parametrize(("length", "limit"), [(20, 64), (90, 96), (128, 128), (500, LIMITS[-1])])
def test_the_limit_follows_the_file(length: int, limit: int) -> None:
    prompts = [prompt(str(n), length, length) for n in range(6)] + [prompt(str(n), 900, 900) for n in range(6)]
    assert answer_limit(prompts, words) == limit


def test_prompts_that_can_be_ranked_come_first_and_the_shortest_of_them() -> None:
    many = [prompt(f"long {n}", 60, 60) for n in range(MOST_PROMPTS)]
    found = chosen([prompt("none", 900), prompt("one", 10), *many, prompt("short", 10, 10)], 64, words)
    assert len(found) == MOST_PROMPTS
    assert found[0].id == "short"
    few = chosen([prompt("none", 900), prompt("one", 10), prompt("two", 10, 10)], 64, words)
    assert [p.id for p in few] == ["two", "one", "none"]


def test_what_is_written_is_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo_seed, "token_counter", lambda model: words)
    replies = [
        {"text": "so long " * 400, "role": "assistant", "lang": "en", "rank": 0},
        {"text": "good", "role": "assistant", "lang": "en", "rank": 1},
        {"text": "bad", "role": "assistant", "lang": "en", "rank": 2},
    ]
    root = {"text": "Why?", "role": "prompter", "lang": "en", "replies": replies}
    source, result = tmp_path / "in.jsonl", tmp_path / "new" / "out.jsonl"
    source.write_text(json.dumps({"message_tree_id": "t", "tree_state": "ready_for_export", "prompt": root}) + "\n")
    assert main([str(source), str(tmp_path), str(result)]) == 0
    assert json.loads(capsys.readouterr().out) == {"answerTokens": 64, "prompts": 1, "answers": 2, "of": 1}
    (found,) = read_seed_data(result, "OasstTrees", "en").prompts
    assert [(a.text, a.rank) for a in found.answers] == [("good", 0), ("bad", 1)]


def test_a_file_that_is_none_is_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "notes.jsonl"
    source.write_text("no json\n")
    assert main([str(source), str(tmp_path), str(tmp_path / "out")]) == 1
    assert "notes.jsonl" in capsys.readouterr().err
