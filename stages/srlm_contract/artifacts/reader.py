"""Reading artifacts: every byte is checked before anybody uses it."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from srlm_contract.errors import ArtifactDamaged, InvalidArtifact, NotFound
from srlm_contract.tasks import ArtifactRef

from . import layout
from .folders import leads_out
from .manifest import Described, FileEntry, Manifest
from .store import FileDigest, Store

M = TypeVar("M", bound=Described)

#: Files up to this size are fetched several at a time; a larger one is parallel in itself.
SMALL_FILE_BYTES = 8 * 1024 * 1024
SMALL_FILE_WORKERS = 8

#: What is wrong with a file, by path.
Damage = dict[str, str]


def parse_manifest(data: bytes, model: type[M], stage: str, key: str, uri: str) -> M:
    """Raises ArtifactDamaged when it is not the manifest of `stage` and `key`."""
    try:
        manifest = model.from_bytes(data)
    except ValidationError as error:
        raise damaged(stage, key, f"its manifest {uri} cannot be read: {_first(error)}") from error
    except ValueError as error:
        raise damaged(stage, key, f"its manifest {uri} cannot be read: {error}") from error
    if (manifest.stage, manifest.key) != (stage, key):
        raise damaged(stage, key, f"{uri} is the manifest of {manifest.stage}/{manifest.key}")
    return manifest


def find_manifest(store: Store, object_key: str, model: type[M], stage: str, key: str) -> M | None:
    """The manifest at `object_key`, None when there is none. Raises ArtifactDamaged."""
    try:
        data = store.get(object_key).data
    except NotFound:
        return None
    return parse_manifest(data, model, stage, key, store.uri(object_key))


def load_manifest(store: Store, ref: ArtifactRef) -> Manifest:
    """The manifest of a committed artifact. Raises ArtifactDamaged when it is missing or another one."""
    object_key = layout.manifest_key(ref.stage, ref.key)
    manifest = find_manifest(store, object_key, Manifest, ref.stage, ref.key)
    if manifest is None:
        raise damaged(ref.stage, ref.key, f"its manifest {store.uri(object_key)} is gone", ref)
    if manifest.content_digest != ref.content_digest:
        what = f"its content digest is {manifest.content_digest}, expected {ref.content_digest}"
        raise damaged(ref.stage, ref.key, what, ref)
    return manifest


def fetch_files(store: Store, manifest: Described, dest: Path, only: Collection[str] | None = None) -> None:
    """Files of `manifest` (or those named in `only`) to `dest`, verified. Raises ArtifactDamaged, and
    InvalidArtifact when a link in `dest` would lead a file out of it.

    A file that does not match is fetched once more, since the fault may be local.
    """
    wanted = [entry for entry in manifest.files if only is None or entry.path in only]
    missing = set(only or ()) - {entry.path for entry in wanted}
    if missing:
        raise damaged(manifest.stage, manifest.key, f"it has no file {', '.join(sorted(missing))}")
    for entry in wanted:
        if leads_out(dest, entry.path):
            raise InvalidArtifact(f"{dest / entry.path} lies behind a link out of {dest}; fetch into an empty folder")
        (dest / entry.path).parent.mkdir(parents=True, exist_ok=True)
    damage = _each(wanted, lambda entry: _fetch(store, manifest, entry, dest / entry.path))
    if damage:
        raise damaged(manifest.stage, manifest.key, describe(damage))


def verify_files(store: Store, manifest: Described) -> Damage:
    """Reads every byte of the artifact and says what is wrong; nothing is kept, empty means intact."""
    return _each(manifest.files, lambda entry: _check(store, manifest, entry, Path(os.devnull)))


def describe(damage: Damage) -> str:
    """One sentence for a message: the first few files and what is wrong with them."""
    shown = [f"{path}: {what}" for path, what in sorted(damage.items())[:3]]
    more = f" and {len(damage) - 3} more files" if len(damage) > 3 else ""
    return "; ".join(shown) + more


def damaged(stage: str, key: str, what: str, ref: ArtifactRef | None = None) -> ArtifactDamaged:
    """The error that names the artifact, so that its producer is run again."""
    if ref is None:
        ref = ArtifactRef.parse({"stage": stage, "key": key, "contentDigest": ""})
    return ArtifactDamaged(f"artifact {stage}/{key} is damaged: {what}; its producer must run again", ref)


def object_key(manifest: Described, entry: FileEntry) -> str:
    """Where the bytes of a file lie."""
    return f"{layout.artifact_prefix(manifest.stage, manifest.key)}parts/{entry.part}/{entry.path}"


def _fetch(store: Store, manifest: Described, entry: FileEntry, path: Path) -> str:
    """A file takes its name once it is known to be right; returns what is wrong, or nothing."""
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)  # a link that lies there would be followed
    try:
        fault = _check(store, manifest, entry, partial)
        if not fault:
            partial.replace(path)
        return fault
    finally:
        partial.unlink(missing_ok=True)


def _check(store: Store, manifest: Described, entry: FileEntry, path: Path) -> str:
    key = object_key(manifest, entry)
    expected = FileDigest(entry.size, entry.sha256)
    try:
        found = store.download_file(key, path)
        if found != expected:
            found = store.download_file(key, path)
    except NotFound:
        return f"{store.uri(key)} is gone"
    if found.size != expected.size:
        return f"{store.uri(key)} has {found.size} bytes, expected {expected.size}"
    if found != expected:
        return f"{store.uri(key)} has SHA-256 {found.sha256[:12]}…, expected {expected.sha256[:12]}…"
    return ""


def _each(entries: Iterable[FileEntry], work: Callable[[FileEntry], str]) -> Damage:
    entries = tuple(entries)
    small = [entry for entry in entries if entry.size <= SMALL_FILE_BYTES]
    large = [entry for entry in entries if entry.size > SMALL_FILE_BYTES]
    faults: Damage = {}
    if small:
        with ThreadPoolExecutor(min(SMALL_FILE_WORKERS, len(small))) as pool:
            faults.update(zip((e.path for e in small), pool.map(work, small), strict=True))
    faults.update({entry.path: work(entry) for entry in large})
    return {path: fault for path, fault in faults.items() if fault}


def _first(error: ValidationError) -> str:
    detail = error.errors()[0]
    return f"{'.'.join(map(str, detail['loc'])) or 'document'}: {detail['msg']}"
