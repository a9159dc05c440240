"""Committing artifacts: exactly one writer wins, and a damaged artifact is replaced by its producer.

Data files are written first, under the UID of the pod that writes them; the manifest comes last with a
conditional put, so that a late writer can neither overwrite nor mix files. A repair puts the new manifest
with If-Match on the ETag of the one that was seen damaged.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from srlm_contract.errors import ArtifactDamaged, NotFound, StoreError
from srlm_contract.tasks import ArtifactRef, SourceRef

from . import layout, reader, uploads, writer
from .manifest import FileEntry, Manifest, Producer, Result, Timings, content_digest
from .reader import M
from .store import Store
from .writer import Files

R = TypeVar("R", bound=Result)


@dataclass(frozen=True)
class Produced:
    """What a pod made, and what the manifest says of it."""

    files: Files
    inputs: Mapping[str, ArtifactRef | SourceRef] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    rows: int | None = None
    statistics: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    started_at: datetime | None = None
    """With time zone; the moment of the commit when None."""
    model: bool = False
    """Only the files of a safetensors model are taken, the rest is left behind."""


@dataclass(frozen=True)
class Commit:
    """The artifact that stands after a commit."""

    manifest: Manifest
    won: bool
    """False when another pod had committed first: `manifest` is that pod's."""


class Commits:
    """Looking up and committing, as one pod does it."""

    def __init__(self, store: Store, producer: Producer, scratch: Path | None = None) -> None:
        """scratch: folder for files on their way; the system's temporary folder by default."""
        self.store = store
        self.producer = producer
        self.scratch = scratch
        self._replaceable: dict[str, str | None] = {}
        """ETag by object key of manifests this pod found damaged; None where the manifest was gone."""

    def manifest_uri(self, stage: str, key: str) -> str:
        return self.store.uri(layout.manifest_key(stage, key))

    def lookup(self, stage: str, key: str) -> Manifest | None:
        """The committed artifact, None when there is none. Raises ArtifactDamaged for a broken manifest."""
        return self._load(layout.manifest_key(stage, key), Manifest, stage, key)

    def already(self, stage: str, key: str, *, repair: bool = False) -> Manifest | None:
        """What a stage asks first: the committed artifact, or None when there is work to do.

        repair: a reader found the artifact damaged. Every byte is checked; None then means damaged indeed,
        and the commit that follows replaces it.
        """
        if repair:
            return self._intact(layout.manifest_key(stage, key), Manifest, stage, key)
        return self.lookup(stage, key)

    def commit(self, stage: str, key: str, produced: Produced, *, repair: bool = False) -> Commit:
        """Uploads the files and puts the manifest, unless the key is committed: then that artifact stands.

        repair: replaces an artifact that is damaged; one that turns out to be intact stands.
        Raises InvalidArtifact, StoreError.
        """
        object_key = layout.manifest_key(stage, key)
        return Commit(*self._commit(object_key, Manifest, stage, key, produced, repair))

    def _commit(
        self, object_key: str, model: type[R], stage: str, key: str, produced: Produced, repair: bool, **place: Any
    ) -> tuple[R, bool]:
        """(the manifest that stands at `object_key`, whether it is ours). place: which shard of how many."""
        standing = self._standing(object_key, model, stage, key, repair)
        if standing is not None:
            return standing, False
        collect = writer.model_files if produced.model else writer.collect
        shard = f"{place.get('shard', 0)}-of-{place.get('shards', 1)}"
        entries = self._upload(stage, key, collect(produced.files), shard=shard)
        manifest = model(
            stage=stage,
            key=key,
            content_digest=content_digest(entries),
            files=entries,
            inputs=dict(produced.inputs),
            parameters=dict(produced.parameters),
            rows=produced.rows,
            statistics=dict(produced.statistics),
            versions=dict(produced.versions),
            producer=self.producer,
            timings=timings(produced.started_at),
            **place,
        )
        return self._publish(object_key, manifest, model)

    def _standing(self, object_key: str, model: type[M], stage: str, key: str, repair: bool) -> M | None:
        """The manifest that a commit must leave alone; None when ours is to be put."""
        if object_key in self._replaceable:
            return None
        if repair:
            return self._intact(object_key, model, stage, key)
        return self._load(object_key, model, stage, key)

    def _load(self, object_key: str, model: type[M], stage: str, key: str) -> M | None:
        return reader.find_manifest(self.store, object_key, model, stage, key)

    def _intact(self, object_key: str, model: type[M], stage: str, key: str) -> M | None:
        """The manifest if every byte it names is as it says; else None, and it may be replaced."""
        try:
            blob = self.store.get(object_key)
        except NotFound:
            self._replaceable[object_key] = None
            return None
        try:
            manifest = reader.parse_manifest(blob.data, model, stage, key, self.store.uri(object_key))
            if not reader.verify_files(self.store, manifest):
                return manifest
        except ArtifactDamaged:
            pass
        self._replaceable[object_key] = blob.info.etag
        return None

    def _upload(
        self, stage: str, key: str, files: Mapping[str, Path], folder: str = "", shard: str = "0-of-1"
    ) -> tuple[FileEntry, ...]:
        part = f"{self.producer.pod_uid}/{folder}" if folder else self.producer.pod_uid
        large = any(file.stat().st_size > reader.SMALL_FILE_BYTES for file in files.values())
        with uploads.sending(self.store, stage, key, shard, self.producer) if large else nullcontext():
            return writer.upload(self.store, stage, key, part, files)

    def _publish(self, object_key: str, manifest: M, model: type[M]) -> tuple[M, bool]:
        """Puts a manifest; when another pod was first, its manifest stands and our files go."""
        data = manifest.to_bytes()
        blob, won = writer.publish(self.store, object_key, data, self._replaceable.pop(object_key, None))
        if won:
            return manifest, True
        uri = self.store.uri(object_key)
        winner = reader.parse_manifest(blob.data, model, manifest.stage, manifest.key, uri)
        named = {reader.object_key(winner, entry) for entry in winner.files}
        ours = {reader.object_key(manifest, entry) for entry in manifest.files}
        with suppress(StoreError):  # clean-up removes orphans anyway
            self.store.delete(sorted(ours - named))
        return winner, False


def timings(started_at: datetime | None) -> Timings:
    """From `started_at` (with time zone; now when None) until now."""
    now = datetime.now(UTC)
    begin = started_at or now
    return Timings(started_at=begin, finished_at=now, seconds=max(0.0, (now - begin).total_seconds()))
