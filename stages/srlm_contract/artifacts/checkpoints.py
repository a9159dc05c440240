"""Resume points of training, kept beside the artifact that is being trained and gone once it is committed.

They may hold optimizer state in PyTorch's format: only the run that wrote one reads it back, with
weights_only=True.
"""

from __future__ import annotations

import shutil
from datetime import datetime
from pathlib import Path

from srlm_contract.errors import ArtifactDamaged, NotFound

from . import layout, reader, writer
from .commits import Commits, timings
from .manifest import CheckpointManifest, content_digest
from .writer import Files


class Checkpoints(Commits):
    """Committing and finding resume points."""

    def commit_checkpoint(
        self, stage: str, key: str, step: int, files: Files, *, started_at: datetime | None = None
    ) -> CheckpointManifest:
        """Writes a resume point; one of this run at the same step is replaced, one of another run stands."""
        entries = self._upload(stage, key, writer.collect(files), f"checkpoints/{step}")
        manifest = CheckpointManifest(
            stage=stage,
            key=key,
            step=step,
            content_digest=content_digest(entries),
            files=entries,
            producer=self.producer,
            timings=timings(started_at),
        )
        object_key = layout.checkpoint_key(stage, key, step)
        try:
            blob = self.store.get(object_key)
        except NotFound:
            pass
        else:
            standing = self._readable(blob.data, stage, key, object_key)
            if standing is None or standing.producer.run.uid == self.producer.run.uid:
                self._replaceable[object_key] = blob.info.etag
        winner, _ = self._publish(object_key, manifest, CheckpointManifest)
        return winner

    def latest_checkpoint(self, stage: str, key: str, dest: Path) -> int | None:
        """Fetches the newest usable resume point of this run into `dest`; its step, None without any.

        Damaged ones are skipped: training then resumes from an older one.
        """
        for step, object_key in self._steps(stage, key):
            manifest = self._load_checkpoint(stage, key, object_key)
            if manifest is None or manifest.producer.run.uid != self.producer.run.uid:
                continue
            try:
                reader.fetch_files(self.store, manifest, dest)
            except ArtifactDamaged:
                shutil.rmtree(dest, ignore_errors=True)
                continue
            return step
        return None

    def delete_checkpoints(self, stage: str, key: str, keep: int = 0) -> None:
        """Removes all resume points but the newest `keep`; each manifest goes before its files."""
        for _, object_key in self._steps(stage, key)[keep:]:
            manifest = self._load_checkpoint(stage, key, object_key)
            self.store.delete([object_key])
            if manifest is not None:
                self.store.delete([reader.object_key(manifest, entry) for entry in manifest.files])

    def _steps(self, stage: str, key: str) -> list[tuple[int, str]]:
        """(step, object key), newest first."""
        prefix = f"{layout.artifact_prefix(stage, key)}checkpoints/"
        found = ((layout.step_of_key(info.key), info.key) for info in self.store.list_objects(prefix))
        return sorted(((step, name) for step, name in found if step is not None), reverse=True)

    def _load_checkpoint(self, stage: str, key: str, object_key: str) -> CheckpointManifest | None:
        try:
            return self._load(object_key, CheckpointManifest, stage, key)
        except ArtifactDamaged:
            return None

    def _readable(self, data: bytes, stage: str, key: str, object_key: str) -> CheckpointManifest | None:
        try:
            return reader.parse_manifest(data, CheckpointManifest, stage, key, self.store.uri(object_key))
        except ArtifactDamaged:
            return None
