"""What a stage is given: its task, its inputs as folders, a place for its output, and a way to say how far it is."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

from srlm_contract.artifacts.artifacts import ArtifactStore
from srlm_contract.artifacts.cache import ModelCache
from srlm_contract.artifacts.layout import shard_file
from srlm_contract.artifacts.store import Store
from srlm_contract.base import Contract
from srlm_contract.errors import InvalidTask
from srlm_contract.keys import row_seed, sha256, shard_of
from srlm_contract.tasks import ArtifactRef, SourceRef, StageTask

from .pod import Pod
from .runtime.progress import ProgressReporter
from .sources.fetch import MODEL_FILES, TOKENIZER_FILES, fetch_source, matching
from .sources.origins import Kind, OpenStore

ParamsT = TypeVar("ParamsT", bound=Contract)

MAX_WARNINGS = 5


class StageContext:
    """Given to `run` of every stage."""

    def __init__(
        self,
        task: StageTask,
        artifacts: ArtifactStore,
        store: Store,
        work: Path,
        progress: ProgressReporter,
        open_store: OpenStore,
        shard: int = 0,
        environ: Mapping[str, str] = os.environ,
        pod: Pod | None = None,
    ) -> None:
        """pod: what it shares with the stages before and after it, if there are any."""
        self.task, self.artifacts, self.store, self.work = task, artifacts, store, work
        self.progress, self.shard, self.environ = progress, shard, environ
        self.output = work / "output"
        self.output.mkdir(parents=True)
        self.details: dict[str, Any] = {}
        self.versions: dict[str, str] = {}
        self.warnings: list[str] = []
        self.open_store, self.pod = open_store, pod or Pod(work)

    # What is asked for

    def params(self, kind: type[ParamsT]) -> ParamsT:
        """The task's parameters as `kind`. Raises InvalidTask for those of another stage."""
        if not isinstance(self.task.params, kind):
            raise InvalidTask(
                "InvalidTask",
                f"params are {type(self.task.params).__name__}, not {kind.__name__}: wrong stage?",
            )
        return self.task.params

    @property
    def shards(self) -> int:
        return self.task.shards

    def mine(self, row: str) -> bool:
        """Whether a row (16 hex digits) belongs to this shard."""
        return self.shards == 1 or shard_of(row, self.shards) == self.shard

    def seed(self, purpose: str, row: str, sample: int) -> int:
        """Seed of one sample of one row, independent of shards and batches."""
        return row_seed(self.task.seed, purpose, self.task.iteration, self.task.round, row, sample)

    # Inputs

    def has(self, name: str) -> bool:
        """Whether there is an input or source of that name."""
        return name in self.task.inputs or name in self.task.sources

    def names(self, prefix: str) -> list[str]:
        """Input names beginning with `prefix`, numbers in them in numeric order."""
        found = [name for name in self.task.inputs if name.startswith(prefix)]
        return sorted(found, key=lambda n: [int(s) if s.isdigit() else s for s in re.split(r"(\d+)", n)])

    def input(self, name: str) -> Path:
        """Folder with the verified files of an input artifact; fetched once."""
        ref = self._ref(name)

        def fetch(folder: Path) -> Path:
            self.artifacts.fetch(ref, folder)
            return folder

        return self.pod.folder("inputs", ref.content_digest, name, fetch)

    def _ref(self, name: str) -> ArtifactRef:
        if name not in self.task.inputs:
            raise InvalidTask(
                "InvalidTask",
                f"stage {self.task.stage} needs the input {name!r}; the task has {sorted(self.task.inputs)}",
            )
        return self.task.inputs[name]

    def model_path(self, name: str = "model") -> Path:
        """Folder of a model (safetensors, configuration, tokenizer): an input artifact, else an outside source."""
        if name not in self.task.inputs:
            return self._source(name, "model", MODEL_FILES)
        ref, pod = self._ref(name), self.pod
        return pod.folder(
            "models", ref.content_digest, name, lambda into: pod.held(self.artifacts.model(ref, pod.cache, into))
        )

    def tokenizer_path(self, name: str = "tokenizer") -> Path:
        """Folder with the tokenizer and configuration of an outside model, without its weights."""
        return self._source(name, "model", TOKENIZER_FILES)

    def source_path(self, name: str) -> Path:
        """File or folder of outside data, as `SourceRef` names it."""
        return self._source(name, "dataset", ("*",))

    def _source(self, name: str, kind: Kind, files: Sequence[str]) -> Path:
        source = self.task.sources.get(name)
        if source is None:
            raise InvalidTask(
                "InvalidTask",
                f"stage {self.task.stage} needs {name!r}; the task has inputs {sorted(self.task.inputs)} "
                f"and sources {sorted(self.task.sources)}",
            )
        return self.fetch_source(source, kind, files, name)

    def fetch_source(self, source: SourceRef, kind: Kind, files: Sequence[str], name: str) -> Path:
        """Fetch any outside source (see sources.fetch_source) below the pod's work folder."""
        cache = self.pod.cache

        def fetch(into: Path) -> Path:
            if cache is not None and files is MODEL_FILES and not source.uri.startswith("file://"):
                return self.pod.held(self._cached_source(cache, source, kind, files))
            return fetch_source(source, kind, into, self.open_store, files)

        content = " ".join((source.uri, source.revision, source.file or "", kind, *files))
        return self.pod.folder("sources", content, name, fetch)

    def _cached_source(
        self, cache: ModelCache, source: SourceRef, kind: Kind, files: Sequence[str]
    ) -> AbstractContextManager[Path]:
        """An outside model in the node's cache, under the digest of its place and revision."""

        def fill(folder: Path) -> None:
            found = fetch_source(source, kind, self.work / "fill", self.open_store, files)
            for path in matching((p.name for p in found.iterdir() if p.is_file()), files):
                shutil.move(found / path, folder / path)

        return cache.get(sha256(f"{source.uri}@{source.revision}".encode()), fill)

    # Output

    def rows_file(self, stem: str) -> Path:
        """Where this pod's rows go: `<stem>.jsonl`, or this shard's part of it."""
        name = f"{stem}.jsonl" if self.shards == 1 else shard_file(stem, self.shard, self.shards)
        return self.output / name

    def warn(self, text: str) -> None:
        """A line for people: in the log, and in the stage's result."""
        self.progress.say(f"warning: {text}")
        if len(self.warnings) < MAX_WARNINGS:
            self.warnings.append(text[:300])
