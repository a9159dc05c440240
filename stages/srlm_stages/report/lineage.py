"""`lineage.json`: everything needed to trace a run back and to repeat it."""

from __future__ import annotations

import json
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

from pydantic import Field

from srlm_contract.artifacts.manifest import FileEntry, Producer, Timings
from srlm_contract.base import Contract
from srlm_contract.rows import ROW_SCHEMA
from srlm_contract.spec.run import RunSpec
from srlm_contract.stages import STAGES
from srlm_contract.tasks import ArtifactRef, Pins, RunIdentity, SourceRef

from ..runtime.statistics import figures
from .collect import Collected, Stage


class Location(Contract):
    """Where the artifacts lie."""

    uri: str
    endpoint_url: str | None = None
    region: str = ""


class LineageArtifact(Contract):
    """A committed artifact. Its key is the hash of stage, revision, parameters, input digests and seed."""

    node: str
    """Node id `<iteration>/<name>`."""
    stage: str
    iteration: int
    round: int = 1
    key: str
    revision: int
    """Stage revision in the key."""
    content_digest: str
    uri: str
    """Of its manifest."""
    inputs: dict[str, ArtifactRef | SourceRef] = Field(default={})
    parameters: dict[str, Any] = Field(default={})
    """Those in the key, fields at their default left out; `iteration`, `rows` (rowSchema), `round` above 1 and
    `image` are added to them."""
    image: str = ""
    """The image the spec names for this stage, part of the key."""
    seed: int
    shards: int = 1
    rows: int | None = None
    statistics: dict[str, float] = Field(default={})
    """The plain figures."""
    files: tuple[FileEntry, ...]
    versions: dict[str, str] = Field(default={})
    """Engine or training libraries that shaped the result."""
    producer: Producer
    """Run, Job, pod and image that made it: another run's where it was reused."""
    timings: Timings
    reused: bool = False


class MissingArtifact(Contract):
    """A planned node without a usable artifact."""

    node: str
    stage: str
    key: str = ""
    """Empty while an input is missing too."""
    state: str
    reason: str = ""


class LineageModel(Contract):
    """A model and where it lies."""

    name: str
    node: str = ""
    """Empty for a base model or another run's model."""
    artifact: ArtifactRef | None = None
    uri: str


class Templates(Contract):
    """Prompt templates by built-in name or digest; empty for the model's own or the built-in one."""

    chat_template: str = ""
    rubric: str = ""


class Lineage(Contract):
    """`runs/<namespace>/<name>/lineage.json`."""

    schema_version: Literal[1] = 1
    row_schema: int = ROW_SCHEMA
    run: RunIdentity
    phase: str
    storage: Location
    spec: RunSpec
    """The effective spec."""
    pins: Pins | None = None
    """Revisions and digests of everything outside."""
    branch: ArtifactRef | None = None
    """The other run's model that this run started from."""
    templates: Templates = Templates()
    stage_revisions: dict[str, int]
    """Of the version that wrote this file."""
    software: dict[str, str]
    """Versions that wrote this file; those behind a result are with its artifact."""
    models: tuple[LineageModel, ...] = ()
    artifacts: tuple[LineageArtifact, ...] = ()
    """In graph order."""
    missing: tuple[MissingArtifact, ...] = ()

    def to_bytes(self) -> bytes:
        """Readable JSON, the same bytes for the same run."""
        return json.dumps(self.wire(), indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def lineage(found: Collected) -> Lineage:
    """The lineage of everything that is committed, and what is missing."""
    storage = found.task.storage
    pins = found.pins
    models = [m for t in found.iterations if (m := found.model(t)) is not None]
    return Lineage(
        run=found.run,
        phase=found.status.phase,
        storage=Location(uri=storage.uri, endpoint_url=storage.endpoint_url, region=storage.region),
        spec=found.spec,
        pins=pins,
        branch=found.branch,
        templates=Templates(chat_template=pins.chat_template, rubric=pins.rubric) if pins else Templates(),
        stage_revisions={str(name): stage.revision for name, stage in STAGES.items() if stage.revision},
        software=_software(),
        models=tuple(
            LineageModel(name=m.name, node=m.stage.id if m.stage else "", artifact=m.artifact, uri=m.uri)
            for m in models
        ),
        artifacts=tuple(_artifact(found, stage) for stage in found.committed),
        missing=tuple(
            MissingArtifact(node=s.id, stage=s.stage, key=s.key, state=s.state, reason=_reason(s))
            for s in found.stages
            if s.manifest is None
        ),
    )


def _artifact(found: Collected, stage: Stage) -> LineageArtifact:
    manifest = stage.manifest
    assert manifest is not None  # only committed ones come here
    node, record = stage.node, stage.record
    revision = (
        record.revision if record is not None and record.key == manifest.key else STAGES[manifest.ref.stage].revision
    )
    return LineageArtifact(
        node=stage.id,
        stage=stage.stage,
        iteration=stage.iteration,
        round=node.round if node is not None else 1,
        key=manifest.key,
        revision=revision,
        content_digest=manifest.content_digest,
        uri=found.artifacts.manifest_uri(manifest.stage, manifest.key),
        inputs=dict(sorted(manifest.inputs.items())),
        parameters=manifest.parameters,
        image=node.image if node is not None else "",
        seed=found.spec.seed,
        shards=manifest.shards,
        rows=manifest.rows,
        statistics=figures(manifest.statistics),
        files=manifest.files,
        versions=manifest.versions,
        producer=manifest.producer,
        timings=manifest.timings,
        reused=stage.reused or stage.foreign,
    )


def _reason(stage: Stage) -> str:
    if stage.damage:
        return stage.damage
    failure = stage.record.last_failure if stage.record is not None else None
    return f"{failure.reason}: {failure.message}" if failure is not None else ""


def _software() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in ("self-rewarding-operator", "matplotlib", "pydantic"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:  # run from a checkout
            continue
    return versions
