"""`srlm samples`: answers with their scores out of the store of a run, while the loop runs."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from srlm_cli.answers import Samples, read_samples, sources
from srlm_cli.samples import screen
from srlm_contract.artifacts.commits import Produced
from srlm_contract.jsonl import write_rows
from srlm_contract.rows import Judgement, Verdict
from srlm_contract.status import RunStatus
from srlm_operator.cluster.client import RUNS
from support.cluster.admin import SECRETS
from support.cluster.harness import SHORT, Harness
from support.person import become, srlm
from support.report_world import EVIL, MadeRun, evil_run, make_run, spec
from support.s3_world import WRITER, Server
from support.stage_world import World


def samples(made: MadeRun, model: str | None = None, most: int = 3) -> Samples | None:
    return read_samples(made.world.store, sources(made.status, model), most)


def found(made: MadeRun, model: str | None = None, most: int = 3) -> Samples:
    answer = samples(made, model, most)
    assert answer is not None
    return answer


def roles(answers: Samples) -> list[list[str]]:
    return [[answer.role for answer in prompt.answers] for prompt in answers.prompts]


def test_the_newest_judged_answers_of_a_finished_run(tmp_path: Path) -> None:
    made = make_run(World(tmp_path), spec(2))
    newest = found(made)
    assert (newest.model, newest.stage, newest.complete) == ("M2", "judge", True)
    assert [len(prompt.answers) for prompt in newest.prompts] == [4, 4, 4]
    scores = [[answer.score for answer in prompt.answers] for prompt in newest.prompts]
    assert scores == [[4.0, 4.0, 4.0, 2.0]] * 3, "the best first"
    assert {answer.verdicts[0].text for prompt in newest.prompts for answer in prompt.answers} == {
        "The answer is relevant.\nScore: 4",
        "The answer is relevant.\nScore: 2",
    }
    assert all(sorted(filter(None, one)) == ["chosen", "rejected"] for one in roles(newest))
    assert found(made) == newest, "the same each time"
    assert {p.id for p in found(made, most=1).prompts} < {p.id for p in newest.prompts}


def test_answers_of_the_last_model_are_to_validation_prompts(tmp_path: Path) -> None:
    made = make_run(World(tmp_path), spec(1))
    last = found(made, "M2")
    assert (last.stage, last.prompts[0].answers[0].score, last.prompts[0].answers[0].verdicts) == ("evaluate", None, ())
    assert found(made, "M1").stage == "judge"
    assert samples(made, "M7") is None


@pytest.mark.parametrize(
    ("until", "stage", "model"), [("1/judge", "generate", "M1"), ("1/generate", "evaluate", "M1"), ("0/sft", "", "")]
)
def test_what_there_is_so_far(tmp_path: Path, until: str, stage: str, model: str) -> None:
    made = make_run(World(tmp_path), spec(1), until=until, phase="Running")
    answer = samples(made)
    assert (answer.stage, answer.model) == (stage, model) if answer is not None else not stage


def test_answers_of_baselines_are_not_taken_for_those_of_m1() -> None:
    stages = [
        {"name": n, "stage": "evaluate", "state": "Succeeded", "key": n[-2:] * 3} for n in ("evaluate", "evaluate-m0")
    ]
    status = RunStatus.parse({"iterations": [{"name": "M1", "stages": stages}]})
    assert [(source.model, source.record.name) for source in sources(status)] == [("M1", "evaluate")]


def test_positives(tmp_path: Path) -> None:
    made = make_run(World(tmp_path), spec(1, preferences={"strategy": "PositiveOnly"}))
    assert {role for one in roles(found(made, "M1")) for role in one} == {"positive", ""}


def shard(world: World, key: str, index: int, rows: Sequence[Judgement]) -> None:
    folder = world.root / f"shard-{index}"
    write_rows(folder / f"judgements-{index:05d}-of-00003.jsonl", rows)
    world.artifacts().commit_shard("judge", key, index, 3, Produced(folder))


def judgement(prompt: str) -> Judgement:
    return Judgement(
        id=f"{prompt}1", prompt_id=prompt, prompt=f"What is {prompt}?", answer="x", verdicts=(Verdict(text="none"),)
    )


def test_shards_that_are_done_are_read_before_the_others(tmp_path: Path) -> None:
    world, key = World(tmp_path), "abcdef"
    running: dict[str, Any] = {"name": "judge", "stage": "judge", "state": "Running", "key": key, "shards": 3}
    status = RunStatus.parse({"iterations": [{"name": "M1"}, {"name": "M2", "stages": [running]}]})
    assert read_samples(world.store, sources(status), 5) is None
    shard(world, key, 1, [judgement("b"), judgement("c")])
    answer = read_samples(world.store, sources(status), 5)
    assert answer is not None
    assert (answer.complete, sorted(prompt.id for prompt in answer.prompts)) == (False, ["b", "c"])
    assert "no readable score" in printed(answer)
    shard(world, key, 0, [judgement("a")])
    shard(world, key, 2, [judgement("d")])
    answer = read_samples(world.store, sources(status), 5)
    assert answer is not None
    assert (answer.complete, len(answer.prompts)) == (True, 4)


def printed(answer: Samples) -> str:
    out = io.StringIO()
    Console(file=out, width=80).print(screen(answer, verdicts=True))
    return out.getvalue()


def test_texts_reach_no_terminal_as_they_are(tmp_path: Path) -> None:
    text = printed(found(evil_run(World(tmp_path)), "M1"))
    assert EVIL not in text
    assert not set(text) & set("\x1b\x00\u202e\u2066")
    assert "⟨U+001B⟩[31m" in text
    assert "{{ 7*7 }}" in text, "and Rich takes it for no markup"


@pytest.mark.one_machine("the store is on this machine")
@pytest.mark.usefixtures("stranger")
async def test_with_the_secret_of_the_run(
    h: Harness, s3: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from srlm_contract.artifacts.s3 import S3Store
    from srlm_contract.spec.storage import Place

    await become(h, "fetch", monkeypatch)
    await h.put(SECRETS, "s3", stringData=WRITER.environ)
    place = Place(uri=f"s3://made/{tmp_path.name}", endpoint_url=s3.url, addressing_style="Path", region="us-east-1")
    made = make_run(World(tmp_path / "made", S3Store.open(place, attempts=1, credentials=WRITER.environ)), spec(1))
    run = await h.create(**SHORT, storage={**place.wire(), "credentialsSecretRef": {"name": "s3"}})
    assert await srlm("samples", "run") == 1
    assert "run team/run has no answers yet" in capfd.readouterr().err
    await h.admin.write_status(RUNS, run, made.status.wire(defaults=False))
    assert await srlm("samples", "run", "--prompts", "1", "--iteration", "1") == 0
    out = capfd.readouterr().out
    assert out.startswith("Answers of M1, judged\n")
    assert "4.00  chosen" in out
    assert await srlm("samples", "run", "-o", "json") == 0
    told = json.loads(capfd.readouterr().out)
    assert (told["model"], told["stage"], len(told["prompts"])) == ("M1", "judge", 3)
