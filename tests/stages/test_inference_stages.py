"""The inference stages from task to committed artifact, with a tiny random model in the transformers engine."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from srlm_contract.artifacts.commits import Produced
from srlm_contract.errors import BadInput
from srlm_contract.keys import row_id
from srlm_contract.rows import Candidate, Comparison, Judgement, PromptRow, ValidationAnswer
from srlm_contract.spec.loop import ExternalJudgeSpec, FewShotSpec, PromptFiltersSpec, SamplingSpec, ShadowScorerSpec
from srlm_contract.spec.pods import EngineSpec
from srlm_contract.tasks import (
    ArtifactRef,
    ChooseParams,
    EvaluateParams,
    GenerateParams,
    JudgeParams,
    PromptsParams,
    SourceRef,
)
from srlm_stages.judging.rubric import BUILT_IN_RUBRICS
from support.judge_server import judge_server, said
from support.stage_world import QUESTIONS, World
from support.tiny_model import build_tiny_model

pytestmark = pytest.mark.heavy

ENGINE = EngineSpec(name="transformers", dtype="Float32")
SHORT = SamplingSpec(temperature=1.0, top_p=0.95, max_tokens=24)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    torch.set_num_threads(1)  # a tiny model spends its time waiting for threads
    return build_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def prompt_rows(world: World) -> ArtifactRef:
    return world.put("prompts", {"prompts.jsonl": [PromptRow(id=row_id(q), prompt=q) for q in QUESTIONS]})


def generated(world: World, model: Path, shards: int = 1) -> list[Candidate]:
    params = GenerateParams(candidates=3, sampling=SHORT, engine=ENGINE)
    # Another number of shards is the same key: in a store of its own, so that it is computed anew.
    task = world.task(params, inputs={"prompts": prompt_rows(world)}, model=model, shards=shards)
    result = world.run(task)
    assert result.statistics["candidates"] == 18
    rows: list[Candidate] = world.rows(result, "candidates*.jsonl", Candidate)
    return rows


def test_generated_rows_do_not_depend_on_the_number_of_shards(tmp_path: Path, model: Path) -> None:
    whole = generated(World(tmp_path / "one"), model)
    parts = generated(World(tmp_path / "three"), model, shards=3)
    assert len({c.answer for c in whole}) > 9
    assert {c.id: c for c in whole} == {c.id: c for c in parts}


def test_generate_counts_and_marks_what_was_cut(world: World, model: Path) -> None:
    params = GenerateParams(candidates=4, sampling=SHORT.model_copy(update={"max_tokens": 6}), engine=ENGINE)
    result = world.run(world.task(params, inputs={"prompts": prompt_rows(world)}, model=model))
    rows = world.rows(result, "candidates.jsonl", Candidate)
    cut = [row for row in rows if row.truncated]
    assert cut
    assert all(row.tokens == 6 for row in cut)
    assert result.statistics["truncated"] == len(cut)
    assert result.statistics["tokens"] == sum(row.tokens for row in rows)
    assert result.statistics["meanLength"] == pytest.approx(sum(len(r.answer) for r in rows) / len(rows))
    again = world.run(world.task(params, inputs={"prompts": prompt_rows(world)}, model=model, key=result.key))
    assert again.reused
    assert again.content_digest == result.content_digest


def test_prompts_that_are_too_long_are_an_error_that_says_so(world: World, model: Path) -> None:
    prompts = world.put("prompts", {"prompts.jsonl": [PromptRow(id=row_id("x"), prompt="many words " * 600)]})
    params = GenerateParams(sampling=SHORT, engine=ENGINE)
    with pytest.raises(BadInput, match="none of 1 prompts fits") as failure:
        world.run(world.task(params, inputs={"prompts": prompts}, model=model))
    assert failure.value.reason == "InputTooLong"


def candidates(world: World) -> ArtifactRef:
    rows = [
        Candidate(
            id=row_id(q, a, str(i)),
            prompt_id=row_id(q),
            prompt=q,
            answer=a,
            sample=i,
            tokens=4,
            truncated=i == 1,
        )
        for q in QUESTIONS
        for i, a in enumerate(("It is so.", "That depends on many things."))
    ]
    return world.put("generate", {"candidates.jsonl": rows})


@pytest.mark.parametrize("shards", [1, 2])
def test_constrained_verdicts_can_all_be_read(world: World, model: Path, shards: int) -> None:
    params = JudgeParams(
        samples=2, min_valid_samples=2, constrain="ScoreLine", unconstrained_sample=4, engine=ENGINE,
        sampling=SamplingSpec(temperature=1.0, top_p=1.0, max_tokens=40),
    )  # fmt: skip
    result = world.run(world.task(params, inputs={"candidates": candidates(world)}, model=model, shards=shards))
    rows = world.rows(result, "judgements*.jsonl", Judgement)
    assert len(rows) == 12
    for row in rows:
        assert row.score == pytest.approx(sum(v.score for v in row.verdicts) / 2)
        assert all(v.text.splitlines()[-1].startswith("Score: ") for v in row.verdicts)
        assert row.truncated == (row.answer != "It is so.")
    statistics = result.statistics
    assert statistics["verdicts"] == 24
    assert statistics["parseRate"] == 1
    assert statistics["freeVerdicts"] == 4
    assert statistics["freeParsed"] < 4
    assert statistics["meanScore"] == pytest.approx(sum(r.score for r in rows) / 12)
    assert sum(world.manifest(result).statistics["scores"].values()) == 24


def test_a_translated_rubric_has_its_own_score_line(world: World, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BUILT_IN_RUBRICS, "zh", "请评分。\n{question}\n{answer}\n最后写一行“得分：”和总分。")  # type: ignore[attr-defined]
    params = JudgeParams(
        rubric="zh", samples=1, min_valid_samples=1, constrain="ScoreLine", engine=ENGINE,
        shadow_scorer=ShadowScorerSpec(scorer="ExpectedScore", sample=3), min_digit_mass=0.0,
        sampling=SamplingSpec(temperature=1.0, top_p=1.0, max_tokens=40),
    )  # fmt: skip
    result = world.run(world.task(params, inputs={"candidates": candidates(world)}, model=model))
    rows = world.rows(result, "judgements.jsonl", Judgement)
    assert all(row.verdicts[0].text.splitlines()[-1] == f"得分：{row.score:g}" for row in rows)
    assert result.statistics["shadowParsed"] == 3


def test_a_judge_that_never_gives_a_score_is_an_error(world: World, model: Path) -> None:
    params = JudgeParams(samples=1, min_valid_samples=1, engine=ENGINE, sampling=SHORT)
    with pytest.raises(BadInput, match=r"none of \d+ verdicts has a readable score") as failure:
        world.run(world.task(params, inputs={"candidates": candidates(world)}, model=model))
    assert failure.value.reason == "JudgeNotUsable"


def test_expected_score_and_its_shadow(world: World, model: Path) -> None:
    params = JudgeParams(
        scorer="ExpectedScore", min_digit_mass=0.0, engine=ENGINE, constrain="ScoreLine",
        shadow_scorer=ShadowScorerSpec(scorer="Sampled", sample=5),
        sampling=SHORT.model_copy(update={"max_tokens": 40}),
    )  # fmt: skip
    result = world.run(world.task(params, inputs={"candidates": candidates(world)}, model=model))
    rows = world.rows(result, "judgements.jsonl", Judgement)
    assert all(0 < row.score < 5 and 0 < row.digit_mass < 1 for row in rows)
    assert sum(row.shadow_score is not None for row in rows) == 5
    statistics = result.statistics
    assert (statistics["shadowRows"], statistics["shadowVerdicts"], statistics["shadowParsed"]) == (5, 15, 15)
    both = [(row.score, row.shadow_score) for row in rows if row.shadow_score is not None]
    assert statistics["shadowDifference"] == pytest.approx(sum(abs(a - b) for a, b in both) / 5)
    assert statistics["shadowAgreement"] == sum(abs(a - b) < 0.5 for a, b in both) / 5
    assert result.statistics["meanDigitMass"] == pytest.approx(sum(r.digit_mass for r in rows) / 12)


def test_too_little_digit_mass_is_no_score(world: World, model: Path) -> None:
    params = JudgeParams(scorer="ExpectedScore", min_digit_mass=0.99, engine=ENGINE)
    with pytest.raises(BadInput, match=r"probability of 0\.\d+ on average.* use scorer Sampled"):
        world.run(world.task(params, inputs={"candidates": candidates(world)}, model=model))


@pytest.mark.parametrize("style", ["Completion", "Chat"])
def test_new_prompts_pass_the_filters_and_are_counted(world: World, model: Path, style: str) -> None:
    params = PromptsParams(
        count=5, style=style, sampling=SamplingSpec(temperature=1.0, top_p=1.0, max_tokens=40), engine=ENGINE,
        few_shot=FewShotSpec(seed=3, generated=1), filters=PromptFiltersSpec(min_words=1, max_words=30),
        language="xx",
    )  # fmt: skip
    earlier = world.put("prompts", {"prompts.jsonl": [PromptRow(id=row_id("old"), prompt="An old prompt here")]})
    task = world.task(params, inputs={"data": world.seed_data(), "earlier-1": earlier}, model=model)
    result = world.run(task)
    rows = world.rows(result, "prompts.jsonl", PromptRow)
    assert len(rows) == len({row.id for row in rows}) == 5
    assert all(row.id == row_id(row.prompt) and row.source == "generated" for row in rows)
    dropped = sum(n for name, n in result.statistics.items() if name.startswith("dropped"))
    assert result.statistics["asked"] >= 5 + dropped


def test_too_few_prompts_is_an_error_with_the_causes(world: World, model: Path) -> None:
    params = PromptsParams(
        count=2, sampling=SHORT, engine=ENGINE, filters=PromptFiltersSpec(min_words=90, max_words=100)
    )
    with pytest.raises(BadInput, match=r"only 0 of 2 new prompts after \d+ tries \(.*length") as failure:
        world.run(world.task(params, inputs={"data": world.seed_data()}, model=model))
    assert failure.value.reason == "TooFewPrompts"


def test_prompts_from_a_pool_keep_validation_prompts_out(world: World, tmp_path: Path) -> None:
    pool = tmp_path / "pool.jsonl"
    fresh = [f"Describe the animal with number {word} in detail" for word in ("one", "two", "three")]
    pool.write_text("\n".join([*QUESTIONS, fresh[0]]) + f'\n{{"prompt": "{fresh[1][::-1]}"}}\n')
    params = PromptsParams(count=2, source="Pool")
    source = {"pool": SourceRef(uri=pool.as_uri())}
    result = world.run(world.task(params, inputs={"data": world.seed_data()}, sources=source))
    rows = world.rows(result, "prompts.jsonl", PromptRow)
    assert [row.source for row in rows] == ["pool"] * len(rows)
    assert not {row.prompt for row in rows} & set(QUESTIONS)
    assert fresh[0] in {row.prompt for row in rows}


def test_evaluate_measures_judge_answers_and_opponents(world: World, model: Path) -> None:
    data = world.seed_data()
    judge = JudgeParams(
        rows="ranked-heldout", samples=1, min_valid_samples=1, constrain="ScoreLine", engine=ENGINE,
        sampling=SamplingSpec(temperature=1.0, top_p=1.0, max_tokens=40),
    )  # fmt: skip
    judged = world.run(world.task(judge, inputs={"data": data}, model=model))
    rows = world.rows(judged, "judgements.jsonl", Judgement)
    assert [row.rank for row in rows] == [0, 1, 2, 0, 1, 2]
    judgements = world.manifest(judged).ref

    first = EvaluateParams(model="M1", prompts=2, sampling=SHORT, engine=ENGINE)
    one = world.run(world.task(first, inputs={"data": data, "judgements": judgements}, model=model, iteration=0))
    assert one.statistics["judgeAccuracyPairs"] == 6
    assert one.statistics["lengthOnlyAccuracy"] == pytest.approx(4 / 6)
    assert "winRate" not in one.statistics

    other = SourceRef(uri=Path(shutil.copytree(model, model.with_name("judge"))).as_uri())
    second = first.model_copy(update={"model": "M2", "opponents": ("M1",), "headline": "M1", "judge": "Bootstrap"})
    inputs = {"data": data, "judgements": judgements, "answers-M1": world.manifest(one).ref}
    two = world.run(world.task(second, inputs=inputs, model=model, sources={"judge": other}))
    answers = world.rows(two, "answers.jsonl", ValidationAnswer)
    comparisons = world.rows(two, "comparisons.jsonl", Comparison)
    assert [a.prompt for a in answers] == QUESTIONS[4:]
    assert [(c.model, c.opponent) for c in comparisons] == [("M2", "M1")] * 2
    counted = sum(two.statistics[name] for name in ("wins", "ties", "losses", "unreadable"))
    assert counted == 2
    assert [c.characters for c in comparisons] == [len(a.answer) for a in answers]
    assert all(c.own is not None for c in comparisons), "the model was asked itself, too"
    base = first.model_copy(
        update={"model": "M0", "opponents": ("M1",), "headline": "M1", "baseline": True,
                "judging": judge.model_copy(update={"constrain": "None"})}
    )  # fmt: skip
    inputs = {"data": data, "answers-M1": world.manifest(one).ref}
    zero = world.run(world.task(base, inputs=inputs, model=model, sources={"judge": other}))
    assert (zero.statistics["verdicts"], zero.statistics["parsed"], zero.statistics["judged"]) == (12, 0, 0)
    assert zero.statistics["unscored"] == 6, "a model that cannot judge is measured all the same"
    assert zero.statistics["answers"] == 2
    inputs = {"data": data, "judgements": judgements, "answers-M1": world.manifest(one).ref}
    current = second.model_copy(update={"judge": "Current"})
    itself = second.model_copy(update={"samples": 2})
    for params, sources in ((current, {}), (itself, {"judge": SourceRef(uri=model.as_uri())})):
        three = world.run(world.task(params, inputs=inputs, model=model, sources=sources))
        assert {c.own for c in world.rows(three, "comparisons.jsonl", Comparison)} == {None}, "it is the judge itself"


def test_every_model_meets_people(world: World, model: Path) -> None:
    people = "It is good."

    def prefers_people(body: dict[str, Any], _: Any) -> Any:
        task = body["messages"][0]["content"]
        return said(f"The better answer is Answer {'A' if people in task.partition('Answer B:')[0] else 'B'}")

    with judge_server(prefers_people) as server:
        judge = ExternalJudgeSpec(url=server.url, model="judge")
        params = EvaluateParams(
            model="M1", prompts=2, people=True, judge="External", external=judge, sampling=SHORT, engine=ENGINE
        )
        one = world.run(world.task(params, inputs={"data": world.seed_data()}, model=model, iteration=0))
        second = params.model_copy(update={"model": "M2", "opponents": ("M1",), "headline": "M1"})
        inputs = {"data": world.seed_data(), "answers-M1": world.manifest(one).ref}
        two = world.run(world.task(second, inputs=inputs, model=model))
    met = world.rows(one, "comparisons.jsonl", Comparison)
    assert [(c.prompt, c.opponent, c.outcome, c.opponent_characters) for c in met] == [
        (prompt, "People", "loss", len(people)) for prompt in QUESTIONS[4:]
    ]
    assert one.statistics["winRatePeople"] == 0
    assert "winRate" not in one.statistics, "people are no model before"
    comparisons = world.rows(two, "comparisons.jsonl", Comparison)
    assert [c.opponent for c in comparisons] == ["M1", "M1", "People", "People"]
    assert all(c.own is not None for c in comparisons), "the model was asked about both"
    assert two.statistics["winRatePeople"] == 0


def test_data_of_an_older_version_has_no_people(world: World, model: Path) -> None:
    params = EvaluateParams(model="M1", prompts=2, people=True, sampling=SHORT, engine=ENGINE)
    task = world.task(params, inputs={"data": world.seed_data(references=False)}, model=model, iteration=0)
    result = world.run(task)
    assert any("the models do not meet people" in warning for warning in result.warnings)
    assert "winRatePeople" not in result.statistics


def test_choose_takes_one_of_the_checkpoints(world: World, model: Path, tmp_path: Path) -> None:
    other = build_tiny_model(tmp_path / "other", seed=1)
    folder = tmp_path / "training"
    for source, target in ((model, folder), (other, folder / "steps" / "4")):
        target.mkdir(parents=True)
        for path in source.iterdir():
            (target / path.name).write_bytes(path.read_bytes())
    trained = world.artifacts().commit("train", "abcdef123456", Produced(folder, model=True))
    params = ChooseParams(prompts=2, sampling=SHORT, engine=ENGINE)
    inputs = {"data": world.seed_data(), "train": trained.manifest.ref}
    task = world.task(params, inputs=inputs, sources={"judge": SourceRef(uri=model.as_uri())})
    result = world.run(task)
    assert result.statistics["checkpoints"] == 2
    chosen = {entry.path: entry.sha256 for entry in world.manifest(result).files}
    offered = {
        step: trained.manifest.file(f"{prefix}model.safetensors").sha256 for step, prefix in ((-1, ""), (4, "steps/4/"))
    }
    assert chosen["model.safetensors"] == offered[int(result.statistics["chosenStep"])]
    assert "steps/4/model.safetensors" not in chosen
    # A random model means neither A nor B: then nothing is claimed about the model that is taken, the last one.
    assert (result.statistics["comparisons"], result.statistics["unreadable"]) == (2, 2)
    assert result.statistics["chosenStep"] == -1
    assert "winRate" not in result.statistics
    assert result.warnings == ("none of 2 comparisons of checkpoints could be read: the last one is taken",)
