"""What may be removed: only what a run produced itself and no other run's `refs.json` names.

Each run records in `runs/<namespace>/<name>/refs.json` which artifacts it uses, before it uses them. Clean-up
of a run reads all of them; of those that a later version wrote, every key in them counts as used. A run that starts
to use an artifact in the very moment it goes finds it missing, and its producer makes it again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from itertools import groupby
from typing import Literal

from pydantic import Field, ValidationError

from srlm_contract.base import Contract
from srlm_contract.errors import ArtifactDamaged, NotFound, PreconditionFailed, StoreUnavailable, Unsupported
from srlm_contract.keys import canonical_json
from srlm_contract.spec.storage import Retention
from srlm_contract.stages import STAGES, StageName
from srlm_contract.tasks import ArtifactRef, RunIdentity

from . import layout, reader, uploads
from .manifest import CheckpointManifest, Described, Manifest, ShardManifest
from .store import ObjectInfo, Store


class Refs(Contract):
    """`refs.json`: artifacts by UID of the run; a re-created run of the same name has another UID."""

    schema_version: Literal[1] = 1
    runs: dict[str, tuple[ArtifactRef, ...]] = Field(default={})


def read_refs(store: Store, namespace: str, name: str) -> Refs:
    """Empty when the run recorded none. Raises StoreUnavailable when they cannot be read."""
    try:
        data = store.get(layout.refs_key(namespace, name)).data
    except NotFound:
        return Refs()
    return _parse(data, store.uri(layout.refs_key(namespace, name)))


def add_refs(store: Store, run: RunIdentity, artifacts: Iterable[ArtifactRef]) -> None:
    """Records that `run` uses `artifacts`; stages may do so at the same time."""
    new = tuple(artifacts)
    _change(store, run, lambda old: (*old, *(ref for ref in dict.fromkeys(new) if ref not in old)))


def drop_refs(store: Store, run: RunIdentity) -> None:
    """Forgets what `run` used, once it is removed."""
    _change(store, run, lambda old: ())


def removable(
    store: Store, run: RunIdentity, retention: Retention, intermediate: Collection[str] = ()
) -> list[ArtifactRef]:
    """Artifacts that clean-up of `run` removes, as committed now, also those that no run has recorded; damaged ones
    are left alone.

    intermediate: keys of artifacts that are no results of this run, whatever stage made them.
    Raises StoreUnavailable when another run's references cannot be read: then nothing may go.
    """
    if retention == "Retain":
        return []
    named = _named_by_others(store, run)
    recorded = read_refs(store, run.namespace, run.name).runs.get(run.uid, ())
    ours = dict.fromkeys((ref.stage, ref.key) for ref in recorded)
    # A pod that is killed when it has just committed has recorded nothing.
    ours |= dict.fromkeys(sorted(_committed(store) - named))
    found = []
    for stage, key in ours:
        result = STAGES[stage].result and key not in intermediate
        if (stage, key) in named or (retention == "DeleteIntermediate" and result):
            continue
        try:
            manifest = reader.find_manifest(store, layout.manifest_key(stage, key), Manifest, stage, key)
        except ArtifactDamaged:
            continue
        if manifest is not None and manifest.producer.run.uid == run.uid and manifest.ref not in found:
            found.append(manifest.ref)
    return found


def delete_artifact(store: Store, stage: str, key: str, run: RunIdentity) -> int:
    """Removes an artifact of `run` with shards, resume points and parts; the manifest goes first. Returns objects.

    What another run is sending stays: it makes the same artifact.
    """
    store.delete([layout.manifest_key(stage, key)])
    rest = [info.key for info in store.list_objects(layout.artifact_prefix(stage, key))]
    notes = [name for name in rest if layout.run_of_upload(name) not in (None, run.uid)]
    sent = {pod for note in notes if (pod := uploads.sender(store, note))}
    ours = [name for name in rest if name not in notes and layout.part_of_key(name) not in sent]
    manifests_first = sorted(ours, key=lambda name: (layout.part_of_key(name) is not None, name))
    store.delete(manifests_first)
    return len(ours) + 1


def delete_unfinished(store: Store, run: RunIdentity) -> int:
    """Removes artifacts that were never finished and that only `run` worked on; returns the objects.

    For the end of a run: shards and resume points wait for their artifact otherwise. Those whose key another
    run names stay, and so do those with an unreadable manifest.
    """
    named = _named_by_others(store, run)
    removed = 0
    for artifact, keys in _by_artifact(store):
        if artifact in named or layout.manifest_key(*artifact) in keys:
            continue
        try:
            manifests = [m for key in keys if (m := _load(store, *artifact, key)) is not None]
        except ArtifactDamaged:
            continue
        if manifests and all(manifest.producer.run.uid == run.uid for manifest in manifests):
            removed += delete_artifact(store, *artifact, run)
    return removed


def drop_uploads(store: Store, run: RunIdentity) -> int:
    """Drops what killed pods of `run` left of large files, once none of it runs any more; returns how many uploads."""
    notes = [info.key for info in store.list_objects(layout.ARTIFACTS) if layout.run_of_upload(info.key) == run.uid]
    dropped = 0
    with suppress(Unsupported):
        dropped = sum(uploads.drop_unfinished(store, note) for note in notes)
    store.delete(notes)
    return dropped


def delete_orphans(store: Store, older_than: datetime, warn: Callable[[str], object] = lambda text: None) -> int:
    """Removes data files that no manifest names, unfinished uploads, and what a killed preflight left of its tries,
    from before `older_than`.

    Choose the bound well above the longest attempt: files of a running stage are not named yet.
    Artifacts with an unreadable manifest are left alone. Returns the number of objects and uploads.
    warn: is told when the store cannot list unfinished uploads; they stay then.
    """
    probes = (info for info in store.list_objects(layout.PROBES) if layout.is_probe(info.key))
    tried = [info.key for info in probes if info.modified < older_than]
    store.delete(tried)
    removed = len(tried)
    try:
        removed += store.abort_uploads(layout.ARTIFACTS, older_than)
    except Unsupported as lacking:
        warn(str(lacking))
    for artifact, objects in _by_artifact(store):
        orphans = {
            key for key, info in objects.items() if layout.part_of_key(key) is not None and info.modified < older_than
        }
        if not orphans:
            continue
        try:
            for key in objects:
                orphans -= _files(_load(store, *artifact, key))
        except ArtifactDamaged:
            continue
        store.delete(sorted(orphans))
        removed += len(orphans)
    return removed


def _committed(store: Store) -> set[tuple[StageName, str]]:
    """(stage, key) of all artifacts that have a manifest."""
    found = (artifact for artifact, keys in _by_artifact(store) if layout.manifest_key(*artifact) in keys)
    return {(stage, key) for name, key in found for stage in STAGES if stage == name}


def _by_artifact(store: Store) -> Iterator[tuple[tuple[str, str], dict[str, ObjectInfo]]]:
    """((stage, key), objects by key), one artifact at a time in listing order."""
    objects = (info for info in store.list_objects(layout.ARTIFACTS) if layout.artifact_of(info.key))
    for artifact, group in groupby(objects, key=lambda info: layout.artifact_of(info.key)):
        if artifact is not None:
            yield artifact, {info.key: info for info in group}


def _load(store: Store, stage: str, key: str, object_key: str) -> Described | None:
    """The top, shard or checkpoint manifest at `object_key`; None for other objects."""
    model: type[Manifest] | type[ShardManifest] | type[CheckpointManifest]
    if object_key == layout.manifest_key(stage, key):
        model = Manifest
    elif layout.part_of_key(object_key) is not None:
        return None
    elif layout.shard_of_key(object_key) is not None:
        model = ShardManifest
    elif layout.step_of_key(object_key) is not None:
        model = CheckpointManifest
    else:
        return None
    return reader.find_manifest(store, object_key, model, stage, key)


def _files(manifest: Described | None) -> set[str]:
    """Keys of the data files that a manifest names."""
    return {reader.object_key(manifest, entry) for entry in manifest.files} if manifest is not None else set()


def _named_by_others(store: Store, run: RunIdentity) -> set[tuple[str, str]]:
    named: set[tuple[str, str]] = set()
    for info in store.list_objects(layout.RUNS):
        if not info.key.endswith("/refs.json"):
            continue
        try:
            data = store.get(info.key).data
        except NotFound:
            continue
        try:
            refs = _parse(data, store.uri(info.key))
        except StoreUnavailable:
            if (body := _newer(data)) is None:
                raise
            named |= {(stage, word) for word in _words(body) for stage in STAGES}
            continue
        for uid, artifacts in refs.runs.items():
            if uid != run.uid:
                named |= {(ref.stage, ref.key) for ref in artifacts}
    return named


def _newer(data: bytes) -> object | None:
    """What a later version of this project wrote; None for what this one understands, or nobody."""
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        return None
    version = body.get("schemaVersion") if isinstance(body, dict) else None
    return body if isinstance(version, int) and version > 1 else None


def _words(body: object) -> Iterator[str]:
    """Every text in a JSON document, names of fields too. Whatever its form: the keys of artifacts are among them."""
    if isinstance(body, str):
        yield body
    elif isinstance(body, list | dict):
        for item in (*body, *(body.values() if isinstance(body, dict) else ())):
            yield from _words(item)


def _change(
    store: Store,
    run: RunIdentity,
    change: Callable[[tuple[ArtifactRef, ...]], tuple[ArtifactRef, ...]],
) -> None:
    """Reads, changes and writes back, again when somebody else wrote meanwhile."""
    object_key = layout.refs_key(run.namespace, run.name)
    for _ in range(20):
        try:
            blob = store.get(object_key)
            etag, refs = blob.info.etag, _parse(blob.data, store.uri(object_key))
        except NotFound:
            etag, refs = None, Refs()
        old = refs.runs.get(run.uid, ())
        new = change(old)
        if new == old:
            return
        runs = {**refs.runs, run.uid: new}
        data = canonical_json(Refs(runs={uid: named for uid, named in runs.items() if named}).wire())
        try:
            store.put(object_key, data, if_none_match=etag is None, if_match=etag)
            return
        except (PreconditionFailed, NotFound):
            continue
    raise StoreUnavailable(f"cannot write {store.uri(object_key)}: other stages keep changing it; try again")


def _parse(data: bytes, uri: str) -> Refs:
    try:
        return Refs.model_validate_json(data)
    except ValidationError as error:
        raise StoreUnavailable(
            f"{uri} cannot be read, so nothing can be removed safely; restore it, or delete it if the run is gone"
        ) from error
