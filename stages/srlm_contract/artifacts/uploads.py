"""Who is sending large files: what a killed pod had sent of one is dropped by whoever takes its place.

Parts of a multipart upload that nobody completes cost money, no listing of objects shows them, and nothing in them
tells a pod that was killed from one that runs. So before its large files a pod writes a note of its run and shard, and
removes it when they are there. A pod that finds such a note of another pod has taken its place: of one run and shard
no two pods run at a time. Other runs and shards that make the same artifact have notes of their own.

Where pods wait for each other's shards, they write the note when they begin: who waits sees whether anybody is at work.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta

from srlm_contract.errors import InvalidArtifact, NotFound, StoreError
from srlm_contract.keys import canonical_json

from . import layout
from .manifest import Producer
from .store import Store


@contextmanager
def sending(store: Store, stage: str, key: str, shard: str, producer: Producer) -> Iterator[None]:
    """Large files are sent below `parts/<pod UID>/` meanwhile; what a pod before this one left is dropped.

    shard: `<i>-of-<n>`. A store that fails here fails nothing: clean-up drops what is a week old.
    """
    note = layout.upload_key(stage, key, producer.run.uid, shard)
    with suppress(StoreError):
        drop_unfinished(store, note, but=producer.pod_uid)
        store.put(note, canonical_json({"podUid": producer.pod_uid}))
    yield
    with suppress(StoreError):
        store.delete([note])


def give_up(store: Store, stage: str, key: str, shard: str, producer: Producer) -> None:
    """This pod ends without what it was `sending`: nobody shall wait for it."""
    with suppress(StoreError):
        _drop(store, stage, key, producer.pod_uid)
    with suppress(StoreError):
        store.delete([layout.upload_key(stage, key, producer.run.uid, shard)])


def drop_unfinished(store: Store, note: str, but: str = "") -> int:
    """Drops the uploads of the pod that wrote `note`, unless it is `but`; returns how many. Raises StoreError."""
    artifact, pod = layout.artifact_of(note), sender(store, note)
    if artifact is None or pod in ("", but):
        return 0
    return _drop(store, *artifact, pod)


def _drop(store: Store, stage: str, key: str, pod: str) -> int:
    # The clocks of store and pod may differ; of that pod nothing new comes.
    return store.abort_uploads(layout.part_prefix(stage, key, pod), datetime.now(UTC) + timedelta(days=2))


def sender(store: Store, note: str) -> str:
    """UID of the pod that wrote `note`; empty where there is none, or none of ours. Raises StoreError."""
    try:
        pod = json.loads(store.get(note).data)["podUid"]
        layout.part_prefix("data", "000000", pod)
    except (NotFound, InvalidArtifact, ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return ""
    return str(pod)
