"""What there is of a run: its graph, what the operator noted in status, and the committed artifacts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from srlm_contract.artifacts.artifacts import ArtifactStore
from srlm_contract.artifacts.manifest import Manifest
from srlm_contract.errors import ArtifactDamaged, InvalidArtifact
from srlm_contract.graph import Node, NodeId, Outcome, graph, model_name, model_node, node_key
from srlm_contract.jsonl import RowT
from srlm_contract.spec.policy import MAX_ITERATIONS
from srlm_contract.spec.run import RunSpec
from srlm_contract.stages import BASELINES, STAGES
from srlm_contract.status import IterationStatus, RunStatus, StageStatus
from srlm_contract.tasks import ArtifactRef, Pins, ReportParams, RunIdentity, StageTask

from ..runtime.statistics import figures
from .lenient import read_status

T = TypeVar("T")
_MODEL = re.compile(r"M([1-9][0-9]{0,2})")


@dataclass(frozen=True)
class Stage:
    """One node of the run: as planned, as the operator noted it, and as committed; each may be missing."""

    iteration: int
    name: str
    stage: str
    key: str = ""
    node: Node | None = None
    record: StageStatus | None = None
    manifest: Manifest | None = None
    damage: str = ""
    """Why a manifest that exists cannot be used."""
    foreign: bool = False
    """Whether another run made the artifact."""

    @property
    def id(self) -> NodeId:
        return NodeId(self.iteration, self.name)

    @property
    def state(self) -> str:
        """State for people: what is committed counts, whatever an older status says."""
        if self.manifest is not None:
            return "Succeeded"
        return self.record.state if self.record is not None else "Pending"

    @property
    def statistics(self) -> Mapping[str, Any]:
        """All statistics of the manifest; the figures in status where there is none."""
        if self.manifest is not None:
            return self.manifest.statistics
        return self.record.statistics if self.record is not None else {}

    def figure(self, name: str) -> float | None:
        """A plain number among the statistics."""
        return figures(self.statistics).get(name)

    @property
    def span(self) -> tuple[datetime, datetime] | None:
        """From the first attempt to the end, as the operator saw it; as the pods saw it where it says nothing.

        None for what was reused from another run: it took no time here.
        """
        record = self.record
        if record is not None and not record.reused:
            begin, end = moment(record.started_at), moment(record.finished_at)
            if begin is not None and end is not None and end >= begin:
                return begin, end
        if record is None and self.manifest is not None and not self.foreign:
            return self.manifest.timings.started_at, self.manifest.timings.finished_at
        return None

    @property
    def seconds(self) -> float | None:
        """Wall time."""
        return None if self.span is None else (self.span[1] - self.span[0]).total_seconds()

    @property
    def reused(self) -> bool:
        return self.record.reused if self.record is not None else self.foreign


@dataclass(frozen=True)
class Model:
    """A model of the run and where it lies."""

    name: str
    iteration: int
    stage: Stage | None = None
    """The stage of this run that made it; None for a base model or another run's."""
    artifact: ArtifactRef | None = None
    uri: str = ""


@dataclass(frozen=True)
class Collected:
    """Everything the report is made from."""

    artifacts: ArtifactStore
    run: RunIdentity
    task: StageTask
    spec: RunSpec
    status: RunStatus
    pins: Pins | None
    branch: ArtifactRef | None
    stages: tuple[Stage, ...]
    """In graph order."""
    problems: list[str] = field(default_factory=list)
    """What could not be read, in words; grows while rows are read."""

    @property
    def committed(self) -> tuple[Stage, ...]:
        return tuple(stage for stage in self.stages if stage.manifest is not None)

    @property
    def iterations(self) -> range:
        return range(max([self.spec.iterations, *(s.iteration for s in self.stages)]) + 1)

    def of(self, iteration: int, stage: str, name: str = "") -> list[Stage]:
        """Stages of that kind in an iteration, in graph order; those of other models only when asked by name."""
        return [
            s
            for s in self.stages
            if s.iteration == iteration
            and s.stage == stage
            and (s.name == name if name else s.name not in ("judge-heldout", "judge-ranked", "sft-ift", *BASELINES))
        ]

    def record(self, iteration: int) -> IterationStatus | None:
        """The operator's record of an iteration."""
        return next((i for i in self.status.iterations if i.name == model_name(iteration)), None)

    def model(self, iteration: int) -> Model | None:
        """The model an iteration gave, once it is there."""
        name = model_name(iteration)
        node = model_node(self.spec, iteration)
        maker = next((s for s in self.stages if s.id == node), None)
        if maker is not None and maker.manifest is not None:
            ref = maker.manifest.ref
            return Model(name, iteration, maker, ref, self.artifacts.manifest_uri(maker.stage, ref.key))
        if iteration == 0 and self.branch is not None:
            return Model(name, 0, None, self.branch, self.artifacts.manifest_uri(self.branch.stage, self.branch.key))
        if iteration == 0 and self.spec.bootstrap.strategy == "None":
            return Model(name, 0, None, None, self.spec.base_model.uri)
        return None

    def rows(self, stage: Stage, pattern: str, model: type[RowT]) -> Iterator[RowT]:
        """Rows of a committed artifact, one file at a time on disk; ends early, with a note, where it is damaged."""
        if stage.manifest is None:
            return
        try:
            yield from self.artifacts.read_rows(stage.manifest.ref, pattern, model)
        except ArtifactDamaged as error:
            self.problems.append(f"{stage.id}: {error}")


def collect(artifacts: ArtifactStore, task: StageTask, params: ReportParams) -> Collected:
    """Look up every artifact of the run. Store errors pass through; damaged manifests become notes."""
    status, problems = read_status(params.status)
    pins = params.pins or status.preflight.pins
    branch = params.branch or status.preflight.branch
    records = {NodeId(iteration, stage.name): stage for iteration, stage in _records(status)}
    lookup = _Lookup(artifacts, task.run, params.spec.seed)
    stages = []
    if pins is not None:
        nodes = lookup.walk(params.spec, pins, branch, records)
        stages = [lookup.stage(node, records.get(node.id)) for node in nodes]
    known = {stage.id for stage in stages}
    for node_id, record in records.items():
        if node_id not in known and record.stage in STAGES:
            stages.append(lookup.recorded(node_id.iteration, record))
    problems += [f"{s.id}: {s.damage}" for s in stages if s.damage]
    return Collected(artifacts, task.run, task, params.spec, status, pins, branch, tuple(stages), problems)


def first_and_last(items: Sequence[T], most: int) -> list[T]:
    """At most `most` items: where there are more, the first and the last ones."""
    return list(items) if len(items) <= most else [*items[: most // 2], *items[-(most // 2) :]]


def moment(text: str | None) -> datetime | None:
    """A time of status; None when it is none."""
    try:
        found = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return found if found.tzinfo is not None else None


def _records(status: RunStatus) -> Iterator[tuple[int, StageStatus]]:
    for iteration in status.iterations:
        number = _MODEL.fullmatch(iteration.name)
        if number is not None and int(number.group(1)) <= MAX_ITERATIONS + 1:
            for stage in iteration.stages:
                yield int(number.group(1)) - 1, stage


class _Lookup:
    """Manifests by stage and key, each fetched once."""

    def __init__(self, artifacts: ArtifactStore, run: RunIdentity, seed: int) -> None:
        self.artifacts, self.run, self.seed = artifacts, run, seed
        self.outcomes: dict[str, Outcome] = {}
        self._seen: dict[tuple[str, str], tuple[Manifest | None, str]] = {}

    def walk(
        self, spec: RunSpec, pins: Pins, branch: ArtifactRef | None, records: Mapping[NodeId, StageStatus]
    ) -> tuple[Node, ...]:
        """All nodes; `outcomes` holds the committed ones. The graph grows with what is found (minimum yield)."""
        while True:
            nodes = graph(spec, pins, self.outcomes, branch)
            before = len(self.outcomes)
            for node in nodes:
                if node.id not in self.outcomes:
                    self._find(node, records.get(node.id))
            if len(self.outcomes) == before:
                return nodes

    def _find(self, node: Node, record: StageStatus | None) -> None:
        # The key in status first: it may have been made with an earlier revision of the stage.
        for key in self._keys(node, record):
            manifest, _ = self.get(node.stage, key)
            if manifest is not None:
                self.outcomes[node.id] = Outcome(key, manifest.content_digest, figures(manifest.statistics))
                return

    def _keys(self, node: Node, record: StageStatus | None) -> list[str]:
        keys = [record.key] if record is not None and record.key else []
        planned = node_key(node, self.outcomes, self.seed, record.revision if record is not None else None)
        return keys + ([planned] if planned and planned not in keys else [])

    def get(self, stage: str, key: str) -> tuple[Manifest | None, str]:
        """(the manifest if it is there and whole, what is wrong with it)."""
        if (stage, key) not in self._seen:
            found: tuple[Manifest | None, str] = (None, "")
            try:
                found = self.artifacts.lookup(stage, key), ""
            except (ArtifactDamaged, InvalidArtifact) as error:
                found = None, str(error)
            self._seen[stage, key] = found
        return self._seen[stage, key]

    def stage(self, node: Node, record: StageStatus | None) -> Stage:
        keys = self._keys(node, record)
        outcome = self.outcomes.get(node.id)
        if outcome is not None:
            manifest, _ = self.get(node.stage, outcome.key)
            foreign = manifest is not None and manifest.producer.run.uid != self.run.uid
            return Stage(node.iteration, node.name, node.stage, outcome.key, node, record, manifest, "", foreign)
        damage = next((d for key in keys if (d := self.get(node.stage, key)[1])), "")
        return Stage(node.iteration, node.name, node.stage, keys[0] if keys else "", node, record, None, damage)

    def recorded(self, iteration: int, record: StageStatus) -> Stage:
        """A stage that is known from status alone: before preflight, or of a spec that changed since."""
        manifest, damage = self.get(record.stage, record.key) if record.key else (None, "")
        foreign = manifest is not None and manifest.producer.run.uid != self.run.uid
        return Stage(iteration, record.name, record.stage, record.key, None, record, manifest, damage, foreign)
