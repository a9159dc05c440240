"""A pod whose task has a chain: keys, what it tells and when, failures, and waiting for other shards. No models."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from srlm_contract.artifacts.commits import Produced
from srlm_contract.artifacts.layout import upload_key
from srlm_contract.artifacts.s3 import S3Store
from srlm_contract.errors import InvalidTask
from srlm_contract.graph import Node, NodeId, Outcome, graph, node_key
from srlm_contract.keys import row_id, sha256
from srlm_contract.rows import Candidate
from srlm_contract.spec.loop import ExternalJudgeSpec
from srlm_contract.spec.run import RunSpec
from srlm_contract.spec.storage import Place
from srlm_contract.stages import INFERENCE
from srlm_contract.tasks import (
    ArtifactRef,
    JudgeParams,
    Link,
    Pins,
    PromptsParams,
    SourceRef,
    StageResult,
    StageTask,
)
from srlm_stages.chain import LONGEST_WAIT, Chain, waited
from srlm_stages.run import execute_chain
from support.judge_server import JudgeServer, judge_server, said
from support.s3_world import s3_endpoint
from support.stage_pod import Pod, pool_task
from support.stage_world import World

PINS = Pins(
    base_model=SourceRef(uri="hf://owner/model", revision="abc"),
    seed_data=SourceRef(uri="s3://seed/trees.jsonl", revision="sha256:0"),
    prompt_source=SourceRef(uri="hf://owner/writer", revision="def"),
    judge_source=SourceRef(uri="hf://owner/judge", revision="123"),
)


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3_endpoint(tmp_path_factory.mktemp("s3")) as url:
        yield url


@pytest.fixture
def world(endpoint: str, tmp_path: Path) -> World:
    return World(tmp_path, S3Store.open(Place(uri=f"s3://world/{tmp_path.name}", endpoint_url=endpoint)))


@pytest.fixture
def memory(tmp_path: Path) -> World:
    return World(tmp_path)


def link(node: Node, outcomes: dict[str, Outcome], chain: set[str]) -> Link:
    """A node as a link: inputs from `chain` are awaited, the others are committed."""
    committed = {
        name: ArtifactRef(stage=of.stage, key=outcomes[of].key, content_digest=outcomes[of].content_digest)  # type: ignore[arg-type]
        for name, of in node.inputs.items()
        if of not in chain
    }
    return Link(
        iteration=node.iteration, node=node.name, stage=node.stage, round=node.round, params=node.params,
        inputs={**committed, **node.artifacts}, awaited={n: of for n, of in node.inputs.items() if of in chain},
        sources=dict(node.sources), image=node.image,
    )  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"stages": {"generate": {"image": "own/image:1"}, "judge": {"engine": {"name": "transformers"}}}},
        {"evaluation": {"baselines": ["M0"], "winRate": {"judge": {"source": "Fixed", "uri": "hf://owner/judge"}}}},
        {
            "training": {"choose": {"enabled": True}},
            "prompts": {"generator": {"source": "Fixed", "uri": "hf://owner/writer"}},
            "preferences": {"minYield": {"pairs": 9, "maxRounds": 2}},
        },
    ],
    ids=["images and engines", "baselines and judges", "rounds and choices"],
)
def test_a_link_has_the_key_of_its_node(memory: World, changes: dict[str, Any]) -> None:
    """All stages of a run that ask a model, as one long chain."""
    spec = RunSpec.parse(
        {
            "baseModel": {"uri": "hf://owner/model"},
            "storage": {"uri": "s3://bucket/prefix"},
            "seedData": {"uri": "s3://seed/trees.jsonl"},
            "seed": 7,
            **changes,
        }
    )
    outcomes: dict[str, Outcome] = {}
    while new := [n for n in graph(spec, PINS, outcomes) if n.id not in outcomes]:
        key = node_key(new[0], outcomes, spec.seed)
        assert key is not None
        outcomes[new[0].id] = Outcome(key, sha256(key.encode()))
    first, *others = [n for n in graph(spec, PINS, outcomes) if n.stage in INFERENCE]
    ids = {first.id, *(n.id for n in others)}
    lead = link(first, outcomes, set())
    task = StageTask(
        stage=first.stage, run=memory.task(JudgeParams()).run, iteration=first.iteration, node=first.name,
        key=outcomes[first.id].key, seed=spec.seed, params=first.params, inputs=lead.inputs, sources=lead.sources,
        storage=memory.task(JudgeParams()).storage, chain=tuple(link(n, outcomes, ids) for n in others),
    )  # fmt: skip
    task = StageTask.model_validate_json(task.model_dump_json(by_alias=True))

    def run(one: StageTask) -> StageResult:
        return StageResult(stage=one.stage, key=one.key, content_digest=sha256(one.key.encode()))

    result = Chain(task, memory.artifacts(), run, {}).follow(run(task), lambda _: None)
    assert {c.node: c.key for c in result.chained} == {n.id: outcomes[n.id].key for n in others}
    assert {"prompts", "generate", "judge", "evaluate"} <= {n.stage for n in others}


def chained(world: World, endpoint: str, tmp_path: Path, server: JudgeServer) -> StageTask:
    """Prompts of a pool, more of them, and verdicts of a judge from outside."""
    task = pool_task(world, endpoint, tmp_path).model_copy(update={"iteration": 1, "node": "prompts"})
    pool = tmp_path / "more.txt"
    pool.write_text("Which birds can be heard in a garden at night?\nPlease write a poem on rain in a big city\n")
    more = Link(
        iteration=1, node="prompts-r2", stage="prompts", round=2, params=PromptsParams(count=1, source="Pool"),
        inputs=task.inputs, awaited={"earlier-1": "1/prompts"}, sources={"pool": SourceRef(uri=pool.as_uri())},
    )  # fmt: skip
    row = Candidate(id=row_id("q", "a"), prompt_id=row_id("q"), prompt="q", answer="a", sample=0, tokens=1)
    judge = Link(
        iteration=1, node="judge", stage="judge",
        params=JudgeParams(external=ExternalJudgeSpec(url=server.url, model="m"), constrain="ScoreLine"),
        inputs={"candidates": world.put("generate", {"candidates.jsonl": [row]})},
    )  # fmt: skip
    return task.model_copy(update={"chain": (more, judge)})


def test_each_stage_commits_its_own_and_a_second_pod_finds_all_done(
    world: World, endpoint: str, tmp_path: Path
) -> None:
    with judge_server(lambda body, number: said("Score: 3")) as server:
        task = chained(world, endpoint, tmp_path, server)
        pod = Pod("prompts", task, tmp_path)
        code, result = pod.end()
        assert code == 0, pod.err
        again, second = Pod("prompts", task, tmp_path, SRLM_POD_UID="pod-2").end()
        assert len(server.requests) == 3
    more, judged = result.chained
    assert (more.node, judged.node) == ("1/prompts-r2", "1/judge")
    assert (more.reused, judged.reused, judged.statistics["meanScore"]) == (False, False, 3)
    assert result.warnings == ("judge: judging.constrain does not reach an external judge: its verdicts are free text",)
    manifest = world.artifacts().lookup("prompts", more.key)
    assert manifest is not None
    assert manifest.content_digest == more.content_digest
    assert manifest.inputs["earlier-1"] == world.manifest(result).ref
    assert "PROGRESS judge rows=3/3" in pod.out
    assert (again, second.reused, [c.reused for c in second.chained]) == (0, True, [True, True])
    assert [(c.node, c.key, c.content_digest) for c in second.chained] == [
        (c.node, c.key, c.content_digest) for c in result.chained
    ]
    recorded = world.store.get("runs/default/world/refs.json").data.decode()
    assert all(c.key in recorded for c in result.chained), "clean-up of other runs leaves them alone"


def test_a_stage_that_fails_ends_the_chain_and_not_the_pod(world: World, endpoint: str, tmp_path: Path) -> None:
    with judge_server(lambda body, number: (401, {"error": "who is sk-canary?"})) as server:
        task = chained(world, endpoint, tmp_path, server)
        last = task.chain[0].model_copy(update={"node": "prompts-r3", "round": 3})
        task = task.model_copy(update={"chain": (*task.chain, last)})
        pod = Pod("prompts", task, tmp_path, SRLM_JUDGE_API_KEY="sk-canary")
        code, result = pod.end()
    assert code == 0
    assert result.error is None
    assert [c.node for c in result.chained] == ["1/prompts-r2"], "nothing runs after the one that failed"
    assert result.warnings[0].startswith("the chain ended at judge of iteration 1: NotPermitted: ")
    assert "stage judge failed (NotPermitted, exit 77)" in pod.err
    assert "sk-canary" not in pod.log.read_text() + pod.out + pod.err


@pytest.mark.parametrize(("number", "ends"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143)])
def test_a_killed_pod_has_told_what_it_committed(
    world: World, endpoint: str, tmp_path: Path, number: int, ends: int
) -> None:
    forever = threading.Event()

    def hang(body: dict[str, Any], request: int) -> tuple[int, Any]:
        forever.wait(60)
        return 500, "too late"

    with judge_server(hang) as server:
        pod = Pod("prompts", chained(world, endpoint, tmp_path, server), tmp_path)
        assert server.asked.wait(60)
        pod.process.send_signal(number)
        code, result = pod.end()
        forever.set()
    assert code == ends
    assert result.error is None
    assert world.manifest(result).content_digest == result.content_digest
    assert [c.node for c in result.chained] == ["1/prompts-r2"]


def test_a_task_that_fails_begins_no_chain(world: World, endpoint: str, tmp_path: Path) -> None:
    with judge_server(lambda body, number: said("Score: 3")) as server:
        task = chained(world, endpoint, tmp_path, server)
        params = PromptsParams(count=50, source="Pool")
        code, result = Pod("prompts", task.model_copy(update={"params": params}), tmp_path).end()
        assert server.requests == []
    assert code == 65
    assert result.error is not None
    assert (result.error.reason, result.chained) == ("TooFewPrompts", ())


class Clock:
    """Moves when somebody sleeps."""

    def __init__(self) -> None:
        self.now, self.slept = 100.0, list[float]()

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def sharded(memory: World) -> StageTask:
    task = memory.task(JudgeParams(), shards=2).model_copy(update={"iteration": 1, "node": "generate"})
    judge = Link(iteration=1, node="judge", stage="judge", params=JudgeParams(), awaited={"candidates": "1/generate"})
    return task.model_copy(update={"chain": (judge,)})


def test_a_shard_waits_for_the_others_before_it_goes_on(
    memory: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clock, task = Clock(), sharded(memory)
    (tmp_path / "rows").write_text("rows")
    whole: list[ArtifactRef] = []

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        if len(clock.slept) == 4:  # the other pod is done
            whole.append(
                memory.artifacts().commit("judge", task.key, Produced({"rows": tmp_path / "rows"})).manifest.ref
            )

    def run(one: StageTask) -> StageResult:
        assert one.inputs == {"candidates": whole[0]}
        return StageResult(stage="judge", key=one.key)

    chain = Chain(task, memory.artifacts(), run, {}, lambda look: waited(look, clock, sleep))
    told: list[StageResult] = []
    result = chain.follow(StageResult(stage="judge", key=task.key), told.append)
    assert clock.slept == sorted(clock.slept)
    assert len(clock.slept) == 4
    assert capsys.readouterr().out.splitlines() == [
        "PROGRESS judge rows=0/2 unit=shards doing=waiting_for_the_other_shards",
        "PROGRESS judge rows=0/0 unit=rows doing=looking_for_what_is_committed",
    ]
    assert (result.chained, result.warnings) == ((), ()), "whoever makes the artifact whole tells of it"


def test_nobody_waits_for_a_shard_whose_pod_has_failed(memory: World, tmp_path: Path) -> None:
    task = sharded(memory)
    with pytest.raises(InvalidTask, match="candidates"):
        execute_chain(task, memory.store, tmp_path / "pod", {"JOB_COMPLETION_INDEX": "1", "SRLM_POD_UID": "pod-b"})
    assert memory.artifacts().absent_shards("judge", task.key, 2) == [0, 1]


@pytest.mark.parametrize(
    ("at_work", "why"),
    [
        ("01", "the other shards of 1/generate took longer than 10 minutes"),
        ("0", "nobody works on shard 1 of 1/generate"),
    ],
)
def test_a_shard_does_not_wait_for_ever(memory: World, at_work: str, why: str) -> None:
    clock, task = Clock(), sharded(memory)
    for shard in at_work:
        memory.store.put(upload_key("judge", task.key, task.run.uid, f"{shard}-of-2"), b"{}")

    def run(one: StageTask) -> StageResult:
        raise AssertionError("its candidates are not there")

    chain = Chain(task, memory.artifacts(), run, {}, lambda look: waited(look, clock, clock.sleep))
    result = chain.follow(StageResult(stage="judge", key=task.key), lambda _: None)
    assert result.warnings == (f"the chain ended at judge of iteration 1: {why}",)
    assert sum(clock.slept) == (LONGEST_WAIT if len(at_work) == 2 else pytest.approx(26, abs=1))


def test_what_is_awaited_is_in_the_chain(memory: World, capsys: pytest.CaptureFixture[str]) -> None:
    task = sharded(memory)
    lost = task.chain[0].model_copy(update={"awaited": {"candidates": NodeId(9, "generate")}})
    chain = Chain(
        task.model_copy(update={"chain": (lost,)}), memory.artifacts(), lambda one: StageResult(stage="judge"), {}
    )
    result = chain.follow(StageResult(stage="judge", key="k" * 24, content_digest="d"), lambda _: None)
    assert "judge awaits 9/generate, which is not before it" in result.warnings[0]
