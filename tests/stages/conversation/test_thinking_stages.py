"""Stages with a model that thinks, played by an engine that says what the test wants; rows that fit no context."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from srlm_contract.errors import BadInput
from srlm_contract.keys import row_id, shard_of
from srlm_contract.rows import Candidate, Judgement, PromptRow, ValidationAnswer
from srlm_contract.spec.loop import SamplingSpec
from srlm_contract.tasks import EvaluateParams, GenerateParams, JudgeParams, SourceRef
from srlm_stages.engines import Completion, Request
from srlm_stages.engines import model as model_at_work
from support.stage_world import QUESTIONS, World
from support.tiny_tokenizers import CHATML, SPECIAL, build

pytestmark = pytest.mark.heavy

OPENS = CHATML.replace("assistant\n", "assistant\n<think>\n")
SAMPLING = SamplingSpec(max_tokens=32)


class Speaker:
    """An engine that says the given texts in turn, in the tokens of a model's tokenizer."""

    name, version, versions = "speaker", "1", {"speaker": "1"}

    def __init__(self, tokenizer: Any, says: Sequence[str]) -> None:
        self._tokenizer, self._says, self.asked = tokenizer, says, list[Request]()
        self.read: list[tuple[int, ...]] = []

    def generate(self, requests: Sequence[Request], on_progress: Any = None) -> list[Completion]:
        self.asked += requests
        return [self._said(self._says[i % len(self._says)], r.max_tokens) for i, r in enumerate(requests)]

    def _said(self, text: str, most: int) -> Completion:
        ids = self._tokenizer.encode(text, add_special_tokens=False)
        shown = self._tokenizer.decode(ids, skip_special_tokens=True)
        return Completion(shown, len(ids), len(ids) >= most and not text.endswith("."), tuple(ids))

    def next_token_probabilities(self, prompts: Any, tokens: Any, on_progress: Any = None) -> list[list[float]]:
        self.read += prompts
        return [[1 / len(tokens)] * len(tokens) for _ in prompts]

    def close(self) -> None:
        pass


Says = Callable[..., Speaker]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "world")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tmp_path / "model"


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch, model: Path) -> Says:
    def speaker(*texts: str, context: int = 1024, **tokenizer: Any) -> Speaker:
        built = build(**tokenizer)
        built.save_pretrained(model)
        (model / "config.json").write_text(json.dumps({"max_position_embeddings": context}))
        found = Speaker(built, texts)
        monkeypatch.setattr(model_at_work, "open_engine", lambda *_: found)
        return found

    return speaker


def prompts(world: World, *texts: str) -> Any:
    return world.put("prompts", {"prompts.jsonl": [PromptRow(id=row_id(q), prompt=q) for q in texts]})


MARKS = {
    "plain letters": {"plain": ()},
    "tokens": {"plain": ("<think>", "</think>")},
    "special tokens": {"special": (*SPECIAL, "<think>", "</think>")},
}


@pytest.mark.parametrize("marks", MARKS.values(), ids=MARKS.keys())
@pytest.mark.parametrize("opens", [False, True])
def test_candidates_are_answers_without_thoughts(
    world: World, model: Path, says: Says, marks: dict[str, Any], opens: bool
) -> None:
    begin = "" if opens else "<think>"
    speaker = says(
        f"{begin}Hm, what is it?</think>\n\nIt is so.", f"{begin}Hm, what is it", f"{begin}\n\n</think>\n\nIt is so.",
        template=OPENS if opens else CHATML, **marks,
    )  # fmt: skip
    task = world.task(
        GenerateParams(candidates=3, sampling=SAMPLING), inputs={"prompts": prompts(world, QUESTIONS[0])}, model=model
    )
    result = world.run(task)
    thought, cut, quick = world.rows(result, "candidates.jsonl", Candidate)
    assert (thought.answer, thought.truncated) == ("It is so.", False)
    assert (cut.answer, cut.truncated) == ("", True)
    assert (quick.answer, quick.tokens, quick.truncated) == ("It is so.", thought.tokens, False)
    assert thought.tokens == len(build(**marks).encode("It is so."))
    assert result.statistics["characters"] == 2 * len("It is so.")
    assert result.statistics["truncated"] == 1
    assert result.statistics["thoughts"] == 3
    said = [len(c.ids) for c in speaker.generate([*speaker.asked])]
    assert result.statistics["tokens"] == sum(said) > result.statistics["answerTokens"]


def test_answers_for_comparison_are_without_thoughts(world: World, model: Path, says: Says) -> None:
    says("<think>Hm.</think>It is so.", plain=("<think>", "</think>"))
    params = EvaluateParams(model="M1", prompts=2, sampling=SAMPLING)
    result = world.run(world.task(params, inputs={"data": world.seed_data()}, model=model, iteration=0))
    assert {a.answer for a in world.rows(result, "answers.jsonl", ValidationAnswer)} == {"It is so."}


def judged(world: World, model: Path, answers: Sequence[str], shards: int = 1, **params: Any) -> Any:
    rows = [
        Candidate(id=row_id(q, a), prompt_id=row_id(q), prompt=q, answer=a, sample=0, tokens=4)
        for q in QUESTIONS
        for a in answers
    ]
    ref = world.put("generate", {"candidates.jsonl": rows})
    wanted = JudgeParams(samples=1, min_valid_samples=1, max_reasks=0, sampling=SAMPLING, **params)
    return world.run(world.task(wanted, inputs={"candidates": ref}, model=model, shards=shards))


@pytest.mark.parametrize("opens", [False, True])
def test_a_score_counts_after_the_thought_only(world: World, model: Path, says: Says, opens: bool) -> None:
    begin = "" if opens else "<think>"
    says(f"{begin}Maybe\nScore: 5\n</think>Fine.\nScore: 3", f"{begin}Maybe\nScore: 5", template=OPENS)
    rows = world.rows(judged(world, model, ["Yes."]), "judgements.jsonl", Judgement)
    assert [row.score for row in rows] == [3.0, None] * 3
    assert [row.verdicts[0].text for row in rows] == ["Fine.\nScore: 3", ""] * 3


def test_a_forced_score_line_comes_after_a_thought_that_the_template_opens(
    world: World, model: Path, says: Says
) -> None:
    speaker = says("Fine.\nScore: 3", template=OPENS)
    result = judged(world, model, ["Yes."], constrain="ScoreLine")
    assert {row.score for row in world.rows(result, "judgements.jsonl", Judgement)} == {3.0}
    assert all(build().decode(r.prompt).endswith("<think>\n\n</think>\n\n") for r in speaker.asked)


def test_the_system_prompt_without_a_system_role_is_said(world: World, model: Path, says: Says) -> None:
    speaker = says("Yes.", template=CHATML.replace("messages %}", "messages if m['role'] == 'user' %}"))
    params = GenerateParams(candidates=1, sampling=SAMPLING, system_prompt="Be short.")
    result = world.run(world.task(params, inputs={"prompts": prompts(world, "Why?")}, model=model))
    assert build().decode(speaker.asked[0].prompt).startswith("<|im_start|>user\nBe short.\n\nWhy?<|im_end|>")
    assert any("no system role" in warning for warning in result.warnings)
    assert world.manifest(result).statistics["systemPrompt"] == "at the head of the first user turn"


def test_arguments_of_the_template_reach_the_stages(world: World, model: Path, says: Says) -> None:
    template = CHATML + "{% if add_generation_prompt and loud %}{{ 'LOUD: ' }}{% endif %}"
    speaker = says("Score: 3", template=template)
    loud = {"chat_template_kwargs": {"loud": True}}
    params = GenerateParams(candidates=1, sampling=SAMPLING, **loud)
    world.run(world.task(params, inputs={"prompts": prompts(world, "Why?")}, model=model))
    judged(world, model, ["Yes."], **loud)
    assert len(speaker.asked) == 1 + len(QUESTIONS)
    assert all(build().decode(r.prompt).endswith("assistant\nLOUD: ") for r in speaker.asked)


LONG = "word " * 400


def test_a_shard_whose_rows_are_all_too_long_is_empty(world: World, model: Path, says: Says) -> None:
    says("Yes.", context=256)
    short = [q for q in (f"Question {i}?" for i in range(20)) if shard_of(row_id(q), 4) != shard_of(row_id(LONG), 4)]
    params = GenerateParams(candidates=1, sampling=SAMPLING)
    task = world.task(params, inputs={"prompts": prompts(world, *short[:3], LONG)}, model=model, shards=4)
    result = world.run(task)
    assert {c.prompt for c in world.rows(result, "candidates*.jsonl", Candidate)} == set(short[:3])
    assert (result.statistics["prompts"], result.statistics["tooLong"]) == (3, 1)


@pytest.mark.parametrize("shards", [1, 2])
def test_only_when_no_shard_has_a_row_that_fits_it_is_an_error(
    world: World, model: Path, says: Says, shards: int
) -> None:
    says("Yes.", context=256)
    texts = [f"{LONG}{i}" for i in range(5)]
    params = GenerateParams(candidates=1, sampling=SAMPLING)
    task = world.task(params, inputs={"prompts": prompts(world, *texts)}, model=model, shards=shards)
    with pytest.raises(BadInput, match="none of 5 prompts fits") as failure:
        world.run(task)
    assert failure.value.reason == "InputTooLong"


@pytest.mark.parametrize("scorer", ["Sampled", "ExpectedScore"])
@pytest.mark.parametrize("shards", [1, 3])
def test_a_judge_leaves_out_what_fits_no_context(
    world: World, model: Path, says: Says, scorer: str, shards: int
) -> None:
    speaker = says("Score: 3", context=900)
    result = judged(world, model, ["Yes."], shards, scorer=scorer)
    assert result.statistics["judged"] == len(QUESTIONS)
    assert all(len(request.prompt) < 900 for request in speaker.asked)
    with pytest.raises(BadInput, match="none of 6 judge prompts fits") as failure:
        judged(World(world.root / "long"), model, [LONG], shards, scorer=scorer)
    assert failure.value.reason == "InputTooLong"


def test_comparisons_are_read_after_a_thought_that_the_template_opens(world: World, model: Path, says: Says) -> None:
    speaker = says("Yes.", template=OPENS)
    params = EvaluateParams(model="M1", prompts=2, sampling=SAMPLING)
    data = world.seed_data()
    one = world.run(world.task(params, inputs={"data": data}, model=model, iteration=0))
    later = params.model_copy(update={"model": "M2", "opponents": ("M1",), "headline": "M1"})
    inputs = {"data": data, "answers-M1": world.manifest(one).ref}
    judge = SourceRef(uri=Path(shutil.copytree(model, world.root / "judge")).as_uri())
    two = world.run(world.task(later, inputs=inputs, model=model, sources={"judge": judge}))
    assert two.statistics["unreadable"] == 2  # A is as probable as B
    assert len(speaker.read) == 8  # two pairs in both orders, by the judge and by the model itself
    ends = "<think>\n\n</think>\n\nThe better answer is Answer"
    assert all(build().decode(prompt).rstrip().endswith(ends) for prompt in speaker.read)
