"""Sharded artifacts: every shard commits for itself, and whoever finds all of them puts the top manifest.

The number of shards is not part of the key. Shards of different numbers do not mix: each number has its own
set of shard manifests, and the first complete set becomes the artifact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from srlm_contract.errors import ArtifactDamaged, NotFound, StoreUnavailable

from . import layout, reader, writer
from .commits import Commits, Produced
from .manifest import Manifest, ShardManifest, Statistics, Timings, content_digest, sum_statistics

Merge = Callable[[Sequence[Statistics]], Statistics]
"""Statistics of all shards, in shard order → those of the artifact."""


class Shards(Commits):
    """Committing shard by shard."""

    def lookup_shard(self, stage: str, key: str, shard: int, shards: int) -> ShardManifest | None:
        return self._load(layout.shard_key(stage, key, shard, shards), ShardManifest, stage, key)

    def already_shard(
        self,
        stage: str,
        key: str,
        shard: int,
        shards: int,
        *,
        merge: Merge = sum_statistics,
        repair: bool = False,
    ) -> tuple[bool, Manifest | None]:
        """What a shard asks first: (whether its work is done, the artifact if it is complete).

        Puts the top manifest when only that is missing, as after a crash between the two.
        repair: this shard's bytes are checked; (False, None) says that they are damaged, and the
        `commit_shard` that follows replaces them.
        """
        if not repair:
            top = self.lookup(stage, key)
            if top is not None:
                return True, top
            if self.lookup_shard(stage, key, shard, shards) is None:
                return False, None
            return True, self.complete_shards(stage, key, shards, merge=merge)
        if not self._has_shards(stage, key, shards):
            # Made with another number of shards, or in one piece: it is whole or made again as a whole.
            top = self._intact(layout.manifest_key(stage, key), Manifest, stage, key)
            if top is not None:
                return True, top
        if self._intact(layout.shard_key(stage, key, shard, shards), ShardManifest, stage, key) is None:
            return False, None
        return True, self.complete_shards(stage, key, shards, merge=merge, repair=True)

    def commit_shard(
        self,
        stage: str,
        key: str,
        shard: int,
        shards: int,
        produced: Produced,
        *,
        merge: Merge = sum_statistics,
        repair: bool = False,
    ) -> Manifest | None:
        """Commits shard `shard` (from 0) of `shards`; the artifact when this made it complete, else None.

        repair: as for `commit`. File paths must differ between shards (see `layout.shard_file`).
        """
        object_key = layout.shard_key(stage, key, shard, shards)
        self._commit(object_key, ShardManifest, stage, key, produced, repair, shard=shard, shards=shards)
        return self.complete_shards(stage, key, shards, merge=merge, repair=repair)

    def complete_shards(
        self, stage: str, key: str, shards: int, *, merge: Merge = sum_statistics, repair: bool = False
    ) -> Manifest | None:
        """Puts the top manifest if all shards are committed; None while some are missing.

        repair: a top manifest that does not name the files of the shards as they are now is replaced.
        """
        object_key = layout.manifest_key(stage, key)
        for _ in range(10):
            parts = self._shard_manifests(stage, key, shards, repair)
            if parts is None:
                return None
            top = self._combine(stage, key, parts, merge)
            try:
                blob = self.store.get(object_key)
            except NotFound:
                etag = None
            else:
                etag = blob.info.etag
                try:
                    uri = self.store.uri(object_key)
                    standing = reader.parse_manifest(blob.data, Manifest, stage, key, uri)
                    if not repair or standing.files == top.files:
                        return standing
                except ArtifactDamaged:
                    if not repair:
                        raise
            _, won = writer.publish(self.store, object_key, top.to_bytes(), etag)
            if won:
                return top
        raise StoreUnavailable(f"cannot write {self.manifest_uri(stage, key)}: other shards keep changing it")

    def absent_shards(self, stage: str, key: str, shards: int) -> list[int]:
        """Shards that are not committed, and that no pod of this run is at work on (`uploads.sending`)."""
        names = {info.key for info in self.store.list_objects(layout.artifact_prefix(stage, key))}
        run = self.producer.run.uid
        return [
            i
            for i in range(shards)
            if layout.shard_key(stage, key, i, shards) not in names
            and layout.upload_key(stage, key, run, f"{i}-of-{shards}") not in names
        ]

    def _has_shards(self, stage: str, key: str, shards: int) -> bool:
        prefix = f"{layout.artifact_prefix(stage, key)}shards/"
        found = (layout.shard_of_key(info.key) for info in self.store.list_objects(prefix))
        return any(number is not None and number[1] == shards for number in found)

    def _shard_manifests(self, stage: str, key: str, shards: int, repair: bool) -> list[ShardManifest] | None:
        """All `shards` manifests in shard order; None while some are missing or wait for their repair."""
        prefix = f"{layout.artifact_prefix(stage, key)}shards/"
        names = {info.key for info in self.store.list_objects(prefix)}
        wanted = [layout.shard_key(stage, key, i, shards) for i in range(shards)]
        if not names.issuperset(wanted):
            return None
        parts = []
        for name in wanted:
            try:
                part = self._load(name, ShardManifest, stage, key)
            except ArtifactDamaged:
                if not repair:
                    raise
                part = None
            if part is None:
                return None
            parts.append(part)
        return parts

    def _combine(self, stage: str, key: str, parts: Sequence[ShardManifest], merge: Merge) -> Manifest:
        files = tuple(sorted((e for part in parts for e in part.files), key=lambda entry: entry.path))
        rows = [part.rows for part in parts if part.rows is not None]
        return Manifest(
            stage=stage,
            key=key,
            content_digest=content_digest(files),
            files=files,
            inputs=parts[0].inputs,
            parameters=parts[0].parameters,
            rows=sum(rows) if rows else None,
            statistics=merge([part.statistics for part in parts]),
            versions=_versions(part.versions for part in parts),
            shards=len(parts),
            producer=self.producer,
            timings=Timings(
                started_at=min(part.timings.started_at for part in parts),
                finished_at=max(part.timings.finished_at for part in parts),
                seconds=sum(part.timings.seconds for part in parts),
            ),
        )


def _versions(parts: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Versions of all shards; where they differ, all of them by name."""
    found: dict[str, set[str]] = {}
    for part in parts:
        for name, version in part.items():
            found.setdefault(name, set()).add(version)
    return {name: ", ".join(sorted(versions)) for name, versions in sorted(found.items())}
