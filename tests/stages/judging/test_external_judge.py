"""An OpenAI-compatible judge over real HTTP: verdicts, retries, refusals, and whole stages that use it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from srlm_contract.errors import BadInput, InvalidTask, NotPermitted, Temporary
from srlm_contract.keys import row_id
from srlm_contract.rows import Candidate, Comparison, Judgement
from srlm_contract.spec.loop import ExternalJudgeSpec, SamplingSpec
from srlm_contract.tasks import ArtifactRef, JudgeParams
from srlm_stages.judging.external import Ask, ExternalJudge
from support.judge_server import judge_server, said
from support.stage_world import QUESTIONS, World

SAMPLING = SamplingSpec(temperature=0.5, top_p=0.8, max_tokens=77)


def candidates(world: World) -> ArtifactRef:
    rows = [
        Candidate(id=row_id(q, a, str(i)), prompt_id=row_id(q), prompt=q, answer=a, sample=i, tokens=4)
        for q in QUESTIONS
        for i, a in enumerate(("A good answer.", "A bad answer."))
    ]
    return world.put("generate", {"candidates.jsonl": rows})


def params(url: str, **fields: Any) -> JudgeParams:
    return JudgeParams(external=ExternalJudgeSpec(url=url, model="judge-1"), samples=2, sampling=SAMPLING, **fields)


def quality(body: dict[str, Any], number: int) -> tuple[int, Any]:
    text = body["messages"][0]["content"]
    return said(f"It helps.\nScore: {5 if 'A good answer.' in text else 1}")


def test_a_stage_with_an_external_judge(tmp_path: Path) -> None:
    world = World(tmp_path)
    with judge_server(quality) as server:
        task = world.task(params(server.url), inputs={"candidates": candidates(world)}, shards=2)
        result = world.run(task, SRLM_JUDGE_API_KEY="key-1")
    rows = world.rows(result, "judgements*.jsonl", Judgement)
    assert {(row.answer, row.score, row.variance) for row in rows} == {
        ("A good answer.", 5, 0),
        ("A bad answer.", 1, 0),
    }
    assert server.keys == {"Bearer key-1"}
    assert len({body["seed"] for body in server.requests}) == 24
    body = server.requests[0]
    assert (body["model"], body["temperature"], body["top_p"], body["max_tokens"]) == (
        "judge-1",
        0.5,
        0.8,
        77,
    )
    assert result.statistics["parseRate"] == 1
    assert result.statistics["tokens"] == 240
    assert result.statistics["meanScore"] == 3


def test_unreadable_verdicts_are_asked_again_with_another_seed_and_then_absent(tmp_path: Path) -> None:
    world = World(tmp_path)
    stubborn = QUESTIONS[0]

    def answer(body: dict[str, Any], number: int) -> tuple[int, Any]:
        text = body["messages"][0]["content"]
        if stubborn in text and "A good answer." in text:
            return said("I cannot say.")
        return said("No idea.") if number <= 6 else said("Score: 4")

    with judge_server(answer) as server:
        task = world.task(params(server.url, max_reasks=2), inputs={"candidates": candidates(world)})
        result = world.run(task)
    rows = world.rows(result, "judgements.jsonl", Judgement)
    silent = [row for row in rows if row.score is None]
    assert [(row.prompt, row.answer) for row in silent] == [(stubborn, "A good answer.")]
    assert all(v.score is None and v.asks == 3 for v in silent[0].verdicts)
    assert all(v.score == 4 for row in rows if row.score is not None for v in row.verdicts)
    assert max(v.asks for row in rows if row.score is not None for v in row.verdicts) > 1
    seeds = [body["seed"] for body in server.requests]
    assert len(set(seeds)) == len(seeds)
    assert result.statistics["verdicts"] == len(seeds)
    assert result.statistics["parsed"] == 22
    assert result.statistics["judged"] == 11


def test_a_judge_that_no_shard_can_read_is_found_out_when_the_last_one_commits(tmp_path: Path) -> None:
    world = World(tmp_path)
    with judge_server(lambda body, n: said("It is fine.")) as server:
        few = params(server.url, min_valid_samples=1, max_reasks=0).model_copy(update={"samples": 1})
        task = world.task(few, inputs={"candidates": candidates(world)}, shards=2)
        for _ in range(2):  # the second attempt finds both shards done, and says the same
            with pytest.raises(BadInput, match="none of 12 verdicts") as failure:
                world.run(task)
            assert failure.value.reason == "JudgeNotUsable"
    assert len(server.requests) == 12
    assert world.artifacts().lookup("judge", task.key) is None


def test_comparisons_by_an_external_judge(tmp_path: Path) -> None:
    from srlm_contract.rows import ValidationAnswer
    from srlm_contract.tasks import EvaluateParams
    from srlm_stages.context import StageContext
    from srlm_stages.evaluate import _compare
    from srlm_stages.runtime.progress import ProgressReporter

    world = World(tmp_path)

    def answer(body: dict[str, Any], number: int) -> tuple[int, Any]:
        text = body["messages"][0]["content"]
        if QUESTIONS[1] in text:
            return said("Neither of them.")
        good_is_first = text.index("Answer A:\nmine") if "Answer A:\nmine" in text else -1
        return said(f"The better answer is: {'A' if good_is_first >= 0 else 'B'}")

    theirs = [ValidationAnswer(id=row_id(q), prompt=q, answer="theirs") for q in QUESTIONS[:2]]
    mine = [row.model_copy(update={"answer": "mine"}) for row in theirs]
    with judge_server(answer) as server:
        evaluate = EvaluateParams(
            model="M2", opponents=("M1",), judge="External", sampling=SAMPLING,
            external=ExternalJudgeSpec(url=server.url, model="judge-1"),
        )  # fmt: skip
        task = world.task(evaluate)
        ctx = StageContext(
            task, world.artifacts(), world.store, tmp_path / "ctx",
            ProgressReporter("evaluate"), lambda uri: world.store,
        )  # fmt: skip
        comparisons, tokens = _compare(ctx, evaluate, mine, {"M1": {row.id: row for row in theirs}})
    assert [c.outcome for c in comparisons] == ["win", "unreadable"]
    assert isinstance(comparisons[0], Comparison)
    assert tokens == 40


def ask(url: str, count: int = 1) -> tuple[list[str], list[float]]:
    waits: list[float] = []
    judge = ExternalJudge(ExternalJudgeSpec(url=url, model="m"), SAMPLING, None, sleep=waits.append)
    try:
        answers = judge.ask([Ask(f"task {i}", i) for i in range(count)])
        return [a.text if a is not None else "too long" for a in answers], waits
    finally:
        judge.close()


def test_a_busy_service_is_asked_again_after_growing_pauses() -> None:
    with judge_server(lambda body, n: (429, "slow down") if n < 4 else said("Score: 2")) as server:
        assert ask(server.url) == (["Score: 2"], [2, 4, 8])


def test_a_task_beyond_the_judges_context_has_no_answer() -> None:
    said_so = {"error": {"message": "This model's maximum context length is 4096 tokens."}}
    with judge_server(lambda body, n: (400, said_so)) as server:
        assert ask(server.url) == (["too long"], [])


def test_answers_keep_the_order_of_the_asks() -> None:
    with judge_server(lambda body, n: said(body["messages"][0]["content"])) as server:
        assert ask(server.url, 40)[0] == [f"task {i}" for i in range(40)]


@pytest.mark.parametrize(
    ("reply", "error", "reason", "says"),
    [
        ((503, "down"), Temporary, "Temporary", "503"),
        ((401, "bad key"), NotPermitted, "NotPermitted", "apiKeySecretRef"),
        ((404, "no such model"), BadInput, "JudgeNotUsable", "no such model"),
        ((200, "<html>"), BadInput, "JudgeNotUsable", "OpenAI-compatible"),
        ((200, {"choices": []}), BadInput, "JudgeNotUsable", "OpenAI-compatible"),
        ((200, ["no object"]), BadInput, "JudgeNotUsable", "OpenAI-compatible"),
    ],
)
def test_refusals_say_what_to_do(reply: Any, error: type[Exception], reason: str, says: str) -> None:
    with judge_server(lambda body, n: reply) as server, pytest.raises(error, match=says) as failure:
        ask(server.url)
    assert failure.value.reason == reason  # type: ignore[attr-defined]


def test_what_a_refusal_repeats_of_the_key_is_not_cut_into_sight() -> None:
    with judge_server(lambda body, n: (404, "x" * 290 + "sk-canary-0123456789")) as server:
        judge = ExternalJudge(ExternalJudgeSpec(url=server.url, model="judge"), SAMPLING, "sk-canary-0123456789")
        with pytest.raises(BadInput) as failure:
            judge.ask([Ask("task", 1)])
        judge.close()
    assert "sk-" not in str(failure.value)


def test_a_key_that_no_header_takes_is_not_repeated() -> None:
    with pytest.raises(NotPermitted, match=r"judging\.external\.apiKeySecretRef has characters") as failure:
        ExternalJudge(ExternalJudgeSpec(url="http://127.0.0.1:9", model="judge"), SAMPLING, "p\u00e4ss\nword")
    assert "ss" not in str(failure.value).replace("has", "")


def test_nobody_listening_is_temporary() -> None:
    with judge_server(lambda body, n: said("")) as server:
        url = server.url
    with pytest.raises(Temporary, match="does not answer"):
        ask(url)


def test_a_scorer_that_needs_logits_is_refused(tmp_path: Path) -> None:
    world = World(tmp_path)
    task = world.task(params("http://127.0.0.1:9/v1", scorer="ExpectedScore"), inputs={"candidates": candidates(world)})
    with pytest.raises(InvalidTask, match="no logits"):
        world.run(task)
