"""Runs stages in this process against a store in memory, the way a pod would: task in, committed artifact out."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from srlm_contract.artifacts.artifacts import ArtifactStore
from srlm_contract.artifacts.commits import Produced
from srlm_contract.artifacts.manifest import Manifest, Producer
from srlm_contract.artifacts.store import Store
from srlm_contract.base import Contract
from srlm_contract.jsonl import write_rows
from srlm_contract.keys import artifact_key, row_id
from srlm_contract.rows import REFERENCES, PromptRow, RankedAnswer, SeedExample, ValidationAnswer
from srlm_contract.tasks import ArtifactRef, RunIdentity, SourceRef, StageResult, StageTask, StorageLocation
from srlm_stages.run import execute
from support.memory_store import MemoryStore

RUN = RunIdentity(namespace="default", name="world", uid="11111111-2222-3333-4444-555555555555")

QUESTIONS = [
    "What is the capital of France?",
    "How do I boil an egg?",
    "Write a short story about a cat who swims.",
    "Explain why the sky is blue.",
    "Name three fruits that grow in winter.",
    "Give advice on how to sleep well at night.",
]


class World:
    """A store, a scratch folder, and what was committed so far."""

    def __init__(self, root: Path, store: Store | None = None) -> None:
        self.root, self.store = root, store or MemoryStore()
        self._numbers = itertools.count(1)

    def environment(self, **extra: str) -> dict[str, str]:
        return {"SRLM_POD_UID": f"pod-{next(self._numbers)}"} | extra

    def artifacts(self) -> ArtifactStore:
        producer = Producer.from_environment(RUN, self.environment())
        return ArtifactStore(self.store, producer=producer, scratch=self.root)

    def put(self, stage: str, files: Mapping[str, Iterable[Contract]]) -> ArtifactRef:
        """Commit rows as an artifact of another stage."""
        folder = self.root / f"put-{next(self._numbers)}"
        folder.mkdir(parents=True)
        for name, rows in files.items():
            write_rows(folder / name, rows)
        key = artifact_key(stage, 1, {"put": folder.name}, {}, 0)
        commit = self.artifacts().commit(stage, key, Produced(folder))
        return commit.manifest.ref

    def task(
        self,
        params: Any,
        *,
        inputs: Mapping[str, ArtifactRef] | None = None,
        model: Path | None = None,
        sources: Mapping[str, SourceRef] | None = None,
        shards: int = 1,
        seed: int = 0,
        iteration: int = 1,
        key: str | None = None,
    ) -> StageTask:
        all_sources = {**(sources or {}), **({"model": SourceRef(uri=model.as_uri())} if model else {})}
        named = {**{n: r.content_digest for n, r in (inputs or {}).items()}}
        return StageTask(
            stage=params.kind,
            run=RUN,
            iteration=iteration,
            key=key or artifact_key(params.kind, 1, params.wire(), named, seed),
            seed=seed,
            params=params,
            inputs=dict(inputs or {}),
            sources=all_sources,
            shards=shards,
            storage=StorageLocation(uri="s3://world/runs"),
        )

    def run(self, task: StageTask, **environ: str) -> StageResult:
        """Run all pods of a task one after another; the last one's result."""
        for shard in range(task.shards):
            work = self.root / f"work-{next(self._numbers)}"
            work.mkdir(parents=True)
            result = execute(task, self.store, work, self.environment(JOB_COMPLETION_INDEX=str(shard), **environ))
        return result

    def manifest(self, result: StageResult) -> Manifest:
        manifest = self.artifacts().lookup(result.stage, result.key)
        assert manifest is not None
        return manifest

    def rows(self, result: StageResult, pattern: str, model: type[Any]) -> list[Any]:
        """Rows of a committed artifact."""
        return list(self.artifacts().read_rows(self.manifest(result).ref, pattern, model))

    def seed_data(self, references: bool = True) -> ArtifactRef:
        """A `data` artifact of a few prompts; older ones have no answers of people to validation prompts."""
        prompts = [PromptRow(id=row_id(q), prompt=q, source="seed") for q in QUESTIONS]
        ranked = [
            RankedAnswer(id=row_id(q, a), prompt_id=row_id(q), prompt=q, answer=a, rank=rank)
            for q in QUESTIONS[4:]
            for rank, a in enumerate(("Here is a good and useful answer.", "No.", "It depends on you."))
        ]
        people = [ValidationAnswer(id=p.id, prompt=p.prompt, answer="It is good.") for p in prompts[4:]]
        return self.put(
            "data",
            {
                **({REFERENCES: people} if references else {}),
                "ift.jsonl": [SeedExample(id=p.id, prompt=p.prompt, answer="An answer.") for p in prompts[:4]],
                "validation.jsonl": prompts[4:],
                "ranked-train.jsonl": ranked[:3],
                "ranked-heldout.jsonl": ranked,
            },
        )
