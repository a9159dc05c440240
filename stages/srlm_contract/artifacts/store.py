"""The object store as stages see it: the smallest protocol that serves.

Keys are relative to the location the store was opened with, use `/`, and never begin with it.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from srlm_contract.errors import NotFound, PreconditionFailed, StoreNotPermitted, Unsupported
from srlm_contract.spec.storage import IfMatch

from . import layout


@dataclass(frozen=True)
class ObjectInfo:
    """What the store says about an object."""

    key: str
    size: int
    """Bytes."""
    etag: str
    """Opaque; changes with the content. For `if_match`."""
    modified: datetime


@dataclass(frozen=True)
class Blob:
    """A small object, read whole."""

    data: bytes
    info: ObjectInfo


@dataclass(frozen=True)
class FileDigest:
    """What went over the wire: bytes and their SHA-256 as 64 hex digits."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Probe:
    """What `preflight` found out about a store that can be read, written and deleted from."""

    conditional: bool
    """Whether it decides puts with If-None-Match: refuses them when there is an object, and only then."""
    if_match: IfMatch = "Quoted"
    """How it decides puts with If-Match; without meaning unless `conditional`."""
    lacks: tuple[str, ...] = ()
    """Sentences on what else it cannot do."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What people should know before they rely on the store."""
        weaker = []
        if not self.conditional:
            weaker.append(
                "the store does not honour conditional puts (If-None-Match): two pods that commit the same artifact "
                "within one round trip could both believe they won"
            )
        elif self.if_match == "Unsupported":
            weaker.append(
                "the store does not honour If-Match on puts: of two pods that repair the same artifact, or record "
                "what the run uses, within one round trip one could be forgotten"
            )
        return (*weaker, *self.lacks)


class Store(Protocol):
    """An object store. All methods raise StoreError and may be called from several threads."""

    def uri(self, key: str) -> str:
        """Full address of a key, for messages and results."""

    def head(self, key: str) -> ObjectInfo | None:
        """None when there is no such object."""

    def get(self, key: str) -> Blob:
        """A small object whole. Raises NotFound."""

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Bytes `start` to `start + length`, fewer at the end of the object. Raises NotFound."""

    def put(self, key: str, data: bytes, *, if_none_match: bool = False, if_match: str | None = None) -> ObjectInfo:
        """Write a small object; raises PreconditionFailed when it exists or its ETag is another one."""

    def upload_file(self, path: Path, key: str, *, if_none_match: bool = False) -> FileDigest:
        """Write a file of any size; the digest is over the bytes that were sent."""

    def download_file(self, key: str, path: Path) -> FileDigest:
        """Read an object of any size to a file; the digest is over what arrived. Raises NotFound."""

    def list_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        """All objects whose key begins with `prefix`, by key."""

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects; those that do not exist are no error."""

    def abort_uploads(self, prefix: str, older_than: datetime) -> int:
        """Drop unfinished multipart uploads begun before `older_than`; returns how many.

        Raises Unsupported when the store does not list them.
        """

    def probe(self) -> Probe:
        """Try reading, writing, conditional writing and deleting; raises what is missing."""


ConditionalPut = Callable[[str, bytes, str | None, IfMatch], object]
"""(key, data, ETag or None, form of the ETag): put if the object has the ETag, or if there is no object."""


def run_probe(store: Store, conditional_put: ConditionalPut) -> Probe:
    """Try on `store` what stages do, with an object of its own that is gone afterwards.

    conditional_put: leaves the condition to the server; raises Unsupported where the server knows of none.
    """
    key = f"{layout.PROBES}{uuid.uuid4().hex}"
    new = f"{key}-new"
    store.put(key, b"first")
    try:
        if store.get(key).data != b"first" or [info.key for info in store.list_objects(key)] != [key]:
            raise StoreNotPermitted(
                f"{store.uri(key)}: an object is not read or listed as it was just written; "
                "storage.uri must name a store with strong read-after-write consistency"
            )
        if not _decides(lambda data: conditional_put(new, data, None, "Quoted")):
            return Probe(conditional=False)
        return Probe(conditional=True, if_match=_form_of_etags(store, conditional_put, key))
    finally:
        store.delete([key, new])


def _form_of_etags(store: Store, conditional_put: ConditionalPut, key: str) -> IfMatch:
    """The form in which the server compares the ETag of a put."""
    for form in ("Quoted", "Unquoted"):
        etag = store.put(key, form.encode()).etag
        if _decides(lambda data: conditional_put(key, data, etag, form)):  # noqa: B023 - called at once
            return form
    return "Unsupported"


def _decides(put: Callable[[bytes], object]) -> bool:
    """Whether a put goes through while its condition holds, and is refused once it no longer does."""
    try:
        put(b"goes through")
    except (PreconditionFailed, NotFound, Unsupported):
        return False
    try:
        put(b"is refused")
    except PreconditionFailed:
        return True
    except Unsupported:
        pass
    return False
