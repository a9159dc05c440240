"""Stages without models: what a stage's pod would answer, with faults on request.

Real keys and the real search of `preflight` over what was committed, digests made from keys.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from srlm_contract.graph import Node, NodeId, Outcome, graph, node_key
from srlm_contract.keys import sha256
from srlm_contract.stages import MODEL_MAKERS
from srlm_contract.tasks import (
    ArtifactRef,
    ChainedResult,
    CleanupParams,
    Committed,
    Pins,
    PreflightParams,
    SourceRef,
    StageError,
    StageResult,
    StageTask,
)

STATISTICS: dict[str, dict[str, float]] = {
    "data": {"ift": 40, "rankedTrain": 20, "rankedHeldout": 10, "validation": 8},
    "sft": {"rows": 40, "steps": 10, "loss": 1.5, "tokens": 4000, "seconds": 10},
    "judge": {"rows": 8, "judged": 8, "verdicts": 16, "parsed": 16, "meanScore": 3.0, "tokens": 800},
    "select": {"kept": 12, "keptPrompts": 6},
    "prompts": {"prompts": 1000, "asked": 1400, "tokens": 900},
    "generate": {"candidates": 4000, "truncated": 3, "tokens": 9000, "meanLength": 100.0},
    "pairs": {"prompts": 1000, "pairs": 600, "ties": 100, "tieRate": 0.1},
    "train": {"rows": 600, "steps": 30, "loss": 0.6, "rewardAccuracy": 0.7, "rewardMargin": 0.1},
    "evaluate": {"judgeAccuracy": 0.6, "judgeAccuracyPairs": 15, "meanLength": 100.0, "winRate": 0.5},
}
PINS = Pins(
    base_model=SourceRef(uri="hf://org/base", revision="b" * 40),
    seed_data=SourceRef(uri="hf://org/data", revision="d" * 40, file="trees.jsonl"),
)


@dataclass(frozen=True)
class Ending:
    """How a pod ends."""

    exit_code: int
    message: str = ""
    reason: str = ""
    disrupted: bool = False


def error(exit_code: int, reason: str, message: str = "it broke", artifact: ArtifactRef | None = None) -> Ending:
    """A pod that says why it failed."""
    detail = StageError(reason=reason, message=message, artifact=artifact).model_dump_json(
        by_alias=True, exclude_none=True
    )
    return Ending(exit_code, f'{{"error": {detail}}}')


@dataclass
class FakeStages:
    """A store of committed artifacts, and the stages that fill it."""

    committed: dict[str, Outcome] = field(default_factory=dict)
    """By key."""
    shards: dict[str, set[int]] = field(default_factory=dict)
    faults: dict[str, deque[Ending]] = field(default_factory=dict)
    """Endings to come, by node name: each is used once."""
    statistics: dict[str, dict[str, float]] = field(default_factory=dict)
    """By node id or name, instead of STATISTICS."""
    pins: Pins = PINS
    """What every preflight finds outside."""
    portion: int = 100
    """Committed artifacts that one answer of preflight holds."""
    storage_errors: int = 0
    """What every pod of a stage says of failed requests to the object store."""
    link_seconds: float = 0.25
    """What every link of a chain says that it took."""
    reports: list[StageTask] = field(default_factory=list)
    """Tasks of all reports made."""
    on_report: Callable[[StageTask], object] = lambda task: None
    """Writes the report."""
    made_by: dict[str, str] = field(default_factory=dict)
    """Stage of every committed artifact, by key."""
    users: dict[str, set[str]] = field(default_factory=dict)
    """Names of the runs that use an artifact, by key."""
    ran: list[str] = field(default_factory=list)
    """`<iteration>/<node>` of every pod that really computed something."""

    def fail(self, node: str, *endings: Ending) -> None:
        self.faults.setdefault(node, deque()).extend(endings)

    def run(self, task: StageTask, index: int = 0) -> Ending:
        """What the pod of `task` with completion index `index` ends with."""
        waiting = self.faults.get(task.node)
        if waiting:
            return waiting.popleft()
        match task.stage:
            case "preflight":
                return _success(self._preflight(task))
            case "cleanup":
                self._clean_up(task)
                return _success(StageResult(stage="cleanup"))
            case "report":
                self.reports.append(task)
                self.on_report(task)
                run = task.run
                uri = f"{task.storage.uri}/runs/{run.namespace}/{run.name}/report.html"
                return _success(StageResult(stage="report", manifest_uri=uri))
            case _:
                answer = self._stage(task, index)
                answer = answer.model_copy(update={"storage_errors": self.storage_errors})
                return self._go_on(task, answer) if answer.content_digest else _success(answer)

    def interrupt(self, task: StageTask, index: int, links: int) -> Ending:
        """The pod is told to end in its chain, when so many links are committed."""
        answer = self._stage(task, index)
        told = task.model_copy(update={"chain": task.chain[:links]})
        text = self._go_on(told, answer).message if answer.content_digest else _text(answer)
        return Ending(143, text, "Error")

    def _go_on(self, task: StageTask, lead: StageResult) -> Ending:
        """The chain of a pod whose stage is committed. A link that would fail ends it, and fails again alone; one that
        would be killed takes the pod with it. The last pod does the shards of all."""
        outcomes, answer = {f"{task.iteration}/{task.node}": self.committed[task.key]}, lead
        for link in task.chain:
            waiting = self.faults.get(link.node)
            if waiting:
                killed = waiting[0].disrupted or waiting[0].reason == "OOMKilled"
                return replace(waiting[0], message=_text(answer)) if killed else _success(answer)
            node = Node(
                link.iteration, link.node, link.stage, link.params, artifacts=link.inputs, sources=link.sources,
                inputs={name: NodeId.parse(node_id) for name, node_id in link.awaited.items()},
                round=link.round, image=link.image,
            )  # fmt: skip
            key = node_key(node, outcomes, task.seed, link.revision)
            assert key is not None, f"{node.id} waits for something outside its chain"
            single = task.model_copy(
                update={"stage": link.stage, "iteration": link.iteration, "node": link.node, "key": key, "shards": 1}
            )
            done = self._stage(single, 0)
            outcomes[node.id] = self.committed[key]
            chained = ChainedResult(
                node=node.id, key=key, content_digest=done.content_digest, revision=link.revision,
                statistics=done.statistics, reused=done.reused, seconds=self.link_seconds,
            )  # fmt: skip
            answer = answer.model_copy(update={"chained": (*answer.chained, chained)})
        return _success(answer)

    def _clean_up(self, task: StageTask) -> None:
        params = task.params
        assert isinstance(params, CleanupParams)
        for key, stage in list(self.made_by.items()):
            kept = params.retention == "DeleteIntermediate" and stage in MODEL_MAKERS
            if (not kept or key in params.intermediate) and self.users[key] <= {task.run.name}:
                del self.committed[key], self.made_by[key], self.shards[key]

    def _stage(self, task: StageTask, index: int) -> StageResult:
        self.users.setdefault(task.key, set()).add(task.run.name)
        known = self.committed.get(task.key)
        if known is not None and not task.repair:
            return self._answer(task, known, reused=True)
        shard = task.shard_indexes[index] if task.shard_indexes else index
        done = self.shards.setdefault(task.key, set())
        done.add(shard)
        self.ran.append(f"{task.iteration}/{task.node}")
        if len(done) < task.shards:
            return StageResult(stage=task.stage, key=task.key)
        usual = self.statistics.get(task.node, STATISTICS.get(task.stage, {}))
        statistics = self.statistics.get(f"{task.iteration}/{task.node}", usual)
        outcome = Outcome(task.key, sha256(f"digest of {task.key}".encode()), statistics)
        self.committed[task.key], self.made_by[task.key] = outcome, task.stage
        return self._answer(task, outcome, reused=False)

    @staticmethod
    def _answer(task: StageTask, outcome: Outcome, *, reused: bool) -> StageResult:
        return StageResult(
            stage=task.stage,
            key=task.key,
            content_digest=outcome.content_digest,
            manifest_uri=f"{task.storage.uri}/artifacts/{task.stage}/{task.key}/manifest.json",
            statistics=dict(outcome.statistics),
            reused=reused,
        )

    def _preflight(self, task: StageTask) -> StageResult:
        params = task.params
        assert isinstance(params, PreflightParams)
        outcomes: dict[str, Outcome] = {n: Outcome("", digest) for n, digest in params.known.items()}
        found: list[Committed] = []
        for node in graph(params.spec, self.pins, outcomes, params.branch):
            if node.id in outcomes:
                continue
            key = node_key(node, outcomes, params.spec.seed)
            known = self.committed.get(key or "")
            if known is None:
                continue
            outcomes[node.id] = known
            self.users.setdefault(known.key, set()).add(task.run.name)
            found.append(
                Committed(
                    node=node.id, key=known.key, content_digest=known.content_digest,
                    statistics=dict(known.statistics),
                )
            )  # fmt: skip
        more = len(found) > self.portion
        return StageResult(stage="preflight", pins=self.pins, committed=tuple(found[: self.portion]), more=more)


def _success(result: StageResult) -> Ending:
    return Ending(0, _text(result), "Completed")


def _text(result: StageResult) -> str:
    return result.model_dump_json(by_alias=True, exclude_none=True)
