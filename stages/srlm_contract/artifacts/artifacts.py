"""Artifacts as stages use them: `ArtifactStore` looks up, reads, commits (whole or shard by shard) and keeps
resume points. The protocol is in `commits`, `shards` and `checkpoints`, the paths in `layout`.
"""

from __future__ import annotations

import fnmatch
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from srlm_contract.errors import ArtifactDamaged
from srlm_contract.jsonl import RowT, iter_rows
from srlm_contract.tasks import ArtifactRef

from . import reader, writer
from .cache import ModelCache
from .checkpoints import Checkpoints
from .manifest import Manifest
from .shards import Shards


class ArtifactStore(Shards, Checkpoints):
    """Artifacts below one storage location, as one pod sees them."""

    def read_manifest(self, ref: ArtifactRef) -> Manifest:
        """Raises ArtifactDamaged when it is gone or its content digest is another one."""
        return reader.load_manifest(self.store, ref)

    def fetch(self, ref: ArtifactRef, dest: Path, only: Collection[str] | None = None) -> Manifest:
        """All files, or those named in `only`, to `dest/<path>`, verified. Raises ArtifactDamaged."""
        manifest = self.read_manifest(ref)
        reader.fetch_files(self.store, manifest, dest, only)
        return manifest

    def read_rows(self, ref: ArtifactRef, pattern: str, model: type[RowT]) -> Iterator[RowT]:
        """Rows of all files that match `pattern` (such as `candidates-*.jsonl`), by path.

        A file is verified before its first row is given out; one file at a time lies in the scratch folder.
        """
        manifest = self.read_manifest(ref)
        paths = sorted(e.path for e in manifest.files if fnmatch.fnmatchcase(e.path, pattern))
        if not paths:
            raise reader.damaged(ref.stage, ref.key, f"it has no file {pattern}", ref)
        for path in paths:
            with self.temporary_folder() as folder:
                reader.fetch_files(self.store, manifest, folder, [path])
                try:
                    yield from iter_rows(folder / path, model)
                except ArtifactDamaged as error:
                    raise reader.damaged(ref.stage, ref.key, str(error), ref) from error

    @contextmanager
    def model(self, ref: ArtifactRef, cache: ModelCache | None, work: Path) -> Iterator[Path]:
        """Folder of a model: from the node's cache when there is one, else fetched into `work`.

        A cached folder is kept from eviction, and must not be changed, inside the `with` block.
        """
        manifest = self.read_manifest(ref)
        writer.check_model_paths([entry.path for entry in manifest.files])

        def fill(folder: Path) -> None:
            reader.fetch_files(self.store, manifest, folder)

        if cache is None:
            folder = work / f"model-{ref.key}"
            fill(folder)
            yield folder
            return
        with cache.get(manifest.content_digest, fill) as folder:
            yield folder

    @contextmanager
    def temporary_folder(self) -> Iterator[Path]:
        """A folder in the scratch space, gone afterwards."""
        folder = Path(tempfile.mkdtemp(prefix="artifact-", dir=self.scratch))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
