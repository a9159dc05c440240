"""Chains with a model: the same artifacts as alone, from one engine. A tiny random model in the transformers engine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from srlm_contract.artifacts.commits import Produced
from srlm_contract.artifacts.store import FileDigest
from srlm_contract.graph import DATA, Node, NodeId, Outcome, node_key
from srlm_contract.keys import row_id
from srlm_contract.rows import ValidationAnswer
from srlm_contract.spec.loop import FewShotSpec, PromptFiltersSpec, SamplingSpec
from srlm_contract.spec.pods import EngineSettings
from srlm_contract.tasks import (
    ArtifactRef,
    EvaluateParams,
    GenerateParams,
    JudgeParams,
    Link,
    PromptsParams,
    SourceRef,
    StageResult,
    StageTask,
)
from srlm_stages.chain import waited
from srlm_stages.run import execute_chain
from support.memory_store import MemoryStore
from support.stage_world import QUESTIONS, World
from support.tiny_model import build_tiny_model

pytestmark = pytest.mark.heavy

ENGINE = EngineSettings(name="transformers", dtype="Float32")
SHORT = SamplingSpec(temperature=1.0, top_p=0.95, max_tokens=12)
VERDICT = JudgeParams(
    samples=1, min_valid_samples=1, constrain="ScoreLine", engine=ENGINE,
    sampling=SamplingSpec(temperature=1.0, top_p=1.0, max_tokens=30),
)  # fmt: skip
MODEL = NodeId(1, "train")


class Counting(MemoryStore):
    """Knows which files were fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched = Counter[str]()

    def download_file(self, key: str, path: Path) -> FileDigest:
        self.fetched[key.rpartition("/")[2]] += 1
        return super().download_file(key, path)


class Run:
    """A store with a model M2, answers of M1, and seed data; the same each time."""

    def __init__(self, root: Path, model: Path, judge: Path) -> None:
        self.store = Counting()
        self.world = World(root, self.store)
        answers = [ValidationAnswer(id=row_id(q), prompt=q, answer="It is so.") for q in QUESTIONS]
        commit = self.world.artifacts().commit("train", "0123456789abcdef", Produced(model, model=True))
        self.refs: dict[NodeId, ArtifactRef] = {
            DATA: self.world.seed_data(),
            NodeId(0, "evaluate"): self.world.put("evaluate", {"answers.jsonl": answers}),
            MODEL: commit.manifest.ref,
        }
        self.judge = {"judge": SourceRef(uri=judge.as_uri())}

    def nodes(self, shards: int = 1) -> list[Node]:
        """judge-heldout, evaluate, prompts, generate, judge."""
        prompts = PromptsParams(
            count=3, style="Completion", sampling=SHORT, engine=ENGINE, few_shot=FewShotSpec(seed=3, generated=0),
            filters=PromptFiltersSpec(min_words=1, max_words=30, max_rouge_l=1.0), language="xx",
        )  # fmt: skip
        evaluate = EvaluateParams(
            model="M2", prompts=2, opponents=("M1",), headline="M1", sampling=SHORT, engine=ENGINE
        )
        data = {"data": DATA, "model": MODEL}
        heldout, wrote, said = NodeId(1, "judge-heldout"), NodeId(2, "prompts"), NodeId(2, "generate")
        measured = {**data, "judgements": heldout, "answers-M1": NodeId(0, "evaluate")}
        return [
            Node(1, "judge-heldout", "judge", VERDICT.model_copy(update={"rows": "ranked-heldout"}), data),
            Node(1, "evaluate", "evaluate", evaluate, measured, sources=self.judge),
            Node(2, "prompts", "prompts", prompts, data),
            Node(2, "generate", "generate", GenerateParams(candidates=2, sampling=SHORT, engine=ENGINE),
                 {"prompts": wrote, "model": MODEL}, shards=shards),
            Node(2, "judge", "judge", VERDICT, {"candidates": said, "model": MODEL}, shards=shards),
        ]  # fmt: skip

    def task(self, node: Node) -> StageTask:
        """As the operator makes it once its inputs are there."""
        outcomes = {of: Outcome(ref.key, ref.content_digest) for of, ref in self.refs.items()}
        inputs = {name: self.refs[of] for name, of in node.inputs.items()}
        task = self.world.task(
            node.params, inputs=inputs, sources=node.sources, shards=node.shards, seed=3, iteration=node.iteration,
            key=node_key(node, outcomes, 3),
        )  # fmt: skip
        return task.model_copy(update={"node": node.name})

    def alone(self, nodes: Sequence[Node]) -> dict[str, ArtifactRef]:
        for node in nodes:
            result = self.world.run(self.task(node))
            self.refs[node.id] = self.world.manifest(result).ref
        return {node.id: self.refs[node.id] for node in nodes}

    def chained(self, nodes: Sequence[Node]) -> StageTask:
        lead, *others = nodes
        chain = tuple(
            Link(
                iteration=n.iteration, node=n.name, stage=n.stage, params=n.params, sources=dict(n.sources),
                inputs={name: self.refs[of] for name, of in n.inputs.items() if of in self.refs},
                awaited={name: of for name, of in n.inputs.items() if of not in self.refs},
            )
            for n in others
        )  # fmt: skip
        return self.task(lead).model_copy(update={"chain": chain})

    def pod(self, task: StageTask, name: str, shard: int = 0, **more: object) -> StageResult:
        environ = self.world.environment(JOB_COMPLETION_INDEX=str(shard))
        return execute_chain(task, self.store, self.world.root / name, environ, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model and a judge."""
    import torch

    torch.set_num_threads(1)  # a tiny model spends its time waiting for threads
    folder = tmp_path_factory.mktemp("models")
    return build_tiny_model(folder / "tiny"), build_tiny_model(folder / "judge", seed=1)


def opened(text: str) -> int:
    """How often an engine was started, as the log of a pod tells."""
    return text.count("doing=starting_transformers")


def test_a_chain_leaves_what_its_stages_leave_alone(
    models: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone, together = Run(tmp_path / "alone", *models), Run(tmp_path / "together", *models)
    expected = alone.alone(alone.nodes())
    assert opened(capsys.readouterr().out) == 6
    told: list[StageResult] = []
    task = together.chained(together.nodes())
    result = together.pod(task, "pod", tell=told.append)
    assert opened(capsys.readouterr().out) == 2, "one for the model, one for its judge"
    assert together.store.fetched["model.safetensors"] == 1
    assert [len(each.chained) for each in told] == [0, 1, 2, 3, 4]
    assert told[-1] == result
    lead, *others = expected.values()
    assert (result.key, result.content_digest) == (lead.key, lead.content_digest)
    assert [(c.key, c.content_digest) for c in result.chained] == [(r.key, r.content_digest) for r in others]
    assert {c.node: c.statistics for c in result.chained}["1/evaluate"]["answers"] == 2
    assert list((together.world.root / "pod").iterdir()) == [together.world.root / "pod" / "shared"]

    half = Run(tmp_path / "half", *models)
    half.alone(half.nodes()[:2])
    half.refs = {of: ref for of, ref in half.refs.items() if of.iteration == 0 or of == MODEL}
    capsys.readouterr()
    rest = half.pod(half.chained(half.nodes()), "pod")
    assert rest.reused
    assert [c.reused for c in rest.chained] == [True, False, False, False]
    assert [c.content_digest for c in rest.chained] == [c.content_digest for c in result.chained]
    assert opened(capsys.readouterr().out) == 1, "resumed at the first that was missing"
    again = half.pod(half.chained(half.nodes()), "again")
    assert all(c.reused for c in again.chained)
    assert opened(capsys.readouterr().out) == 0


def test_judging_begins_in_every_shard_once_all_have_generated(models: tuple[Path, Path], tmp_path: Path) -> None:
    """The first pod waits for the second, which then has nothing to wait for."""
    alone, together = Run(tmp_path / "alone", *models), Run(tmp_path / "together", *models)
    expected = list(alone.alone(alone.nodes(shards=2)).values())
    together.alone(together.nodes(shards=2)[:3])
    task = together.chained(together.nodes(shards=2)[3:])
    other: list[StageResult] = []

    def sleep(seconds: float) -> None:
        assert together.world.artifacts().absent_shards("generate", task.key, 2) == [1]
        other.append(together.pod(task, "second", shard=1))

    first = together.pod(task, "first", wait=lambda look: waited(look, sleep=sleep))
    assert len(other) == 1
    assert not [name for name in together.store.objects if "/uploads/" in name]
    assert (other[0].content_digest, other[0].chained) == (expected[3].content_digest, ()), "it ended the generation"
    assert first.content_digest == ""
    assert [(c.node, c.key, c.content_digest) for c in first.chained] == [
        ("2/judge", expected[4].key, expected[4].content_digest)
    ]
