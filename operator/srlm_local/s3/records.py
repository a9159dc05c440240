"""What is stored, as small JSON files, and moto's buckets made from them again at the start.

    <root>/data/<id>                              bytes, never changed once written
    <root>/buckets/<bucket>/<hash of key>.json    an object: its files, ETag, time and metadata
    <root>/uploads/<upload id>.json               an unfinished multipart upload and its parts

A record is put in place by an atomic rename after its data is complete, and data is removed after its
record: stopping at any instant leaves the old object or the new one. Data that no record names is
removed at the start. There is no fsync: it survives a killed process, not a power cut.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from moto.core import DEFAULT_ACCOUNT_ID
from moto.s3 import models
from moto.s3.utils import CaseInsensitiveDict

from srlm_local.s3.disk import DISK, DiskKey, DiskMultipart, FileValue, Segment, install


class Records:
    """Keeps moto's buckets in a folder. Not thread-safe: callers hold one lock around moto and this."""

    def __init__(self, root: Path) -> None:
        """Reads the folder; at most one per process, as moto's buckets are."""
        self.root = root
        for name in ("data", "buckets", "uploads"):
            (root / name).mkdir(parents=True, exist_ok=True)
        install(root / "data")
        self.backend: Any = models.s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
        self.objects: dict[str, set[str]] = {}
        self.uploads: dict[str, str] = {}
        self._load()

    def save(self, bucket: str, key: str = "", upload_id: str = "") -> None:
        """Brings the folder up to date after a request on this bucket, object or upload."""
        stored = self.backend.buckets.get(bucket)
        folder = self._folder(bucket)
        if stored is None:
            shutil.rmtree(folder, ignore_errors=True)
            self.objects.pop(bucket, None)
        else:
            folder.mkdir(exist_ok=True)
            known = self.objects.setdefault(bucket, set())
            if key in stored.keys:
                _write(self._path(bucket, key), _object(stored.keys[key]))
                known.add(key)
            for gone in [name for name in known if name not in stored.keys]:
                self._path(bucket, gone).unlink()
                known.discard(gone)
            for upload in stored.multiparts.values():
                if upload.id == upload_id or upload.id not in self.uploads:
                    _write(self.root / "uploads" / f"{upload.id}.json", _upload(bucket, upload))
                    self.uploads[upload.id] = bucket
        open_uploads = stored.multiparts if stored else {}
        for gone in [u for u, where in self.uploads.items() if where == bucket and u not in open_uploads]:
            (self.root / "uploads" / f"{gone}.json").unlink()
            del self.uploads[gone]
        DISK.sweep()

    def _folder(self, bucket: str) -> Path:
        return self.root / "buckets" / quote(bucket, safe="")

    def _path(self, bucket: str, key: str) -> Path:
        # Keys may hold any character and be longer than file names.
        return self._folder(bucket) / f"{hashlib.sha256(key.encode()).hexdigest()}.json"

    def _load(self) -> None:
        for folder in (self.root / "buckets").iterdir():
            bucket = unquote(folder.name)
            self.backend.create_bucket(bucket, "us-east-1")
            self.objects[bucket] = set()
            for path in folder.glob("*.json"):
                record = json.loads(path.read_text())
                key = self.backend.put_object(
                    bucket, record["key"], self._value(record), storage=record["storage"],
                    etag=record["etag"], disable_notification=True,
                )  # fmt: skip
                _restore(key, record)
                self.objects[bucket].add(key.name)
        for path in (self.root / "uploads").glob("*.json"):
            self._load_upload(json.loads(path.read_text()))
        self._remove_orphans()

    def _load_upload(self, record: dict[str, Any]) -> None:
        upload = DiskMultipart(
            record["key"], CaseInsensitiveDict(record["metadata"]), DEFAULT_ACCOUNT_ID, "us-east-1",
            storage=record["storage"], tags={},
        )  # fmt: skip
        upload.id, upload.initiated = record["id"], datetime.fromisoformat(record["initiated"])
        for part in record["parts"]:
            _restore(upload.set_part(part["key"], self._value(part)), part)
        self.backend.buckets[record["bucket"]].multiparts[upload.id] = upload
        self.uploads[upload.id] = record["bucket"]

    def _value(self, record: dict[str, Any]) -> FileValue:
        files = [Segment(self.root / "data" / name, *range_) for name, *range_ in record["files"]]
        return FileValue(files, md5=record["etag"], spare=True)

    def _remove_orphans(self) -> None:
        used = set()
        for bucket in self.backend.buckets.values():
            parts = [part for upload in bucket.multiparts.values() for part in upload.parts.values()]
            used |= {s.path.name for key in [*bucket.keys.values(), *parts] for s in key.files}
        for path in (self.root / "data").iterdir():
            if path.name not in used:
                path.unlink()


def _object(key: DiskKey) -> dict[str, Any]:
    return {
        "key": key.name,
        "files": [(s.path.name, s.start, s.stop) for s in key.files],
        "etag": key.etag.strip('"'),
        "modified": key.last_modified.isoformat(),
        "metadata": dict(key.metadata),
        "storage": key.storage_class,
        "checksum": [key.checksum_algorithm, key.checksum_value],
    }


def _restore(key: DiskKey, record: dict[str, Any]) -> None:
    key._etag = record["etag"]
    key.last_modified = datetime.fromisoformat(record["modified"])
    key.set_metadata(dict(record["metadata"]))
    key.checksum_algorithm, key.checksum_value = record["checksum"]


def _upload(bucket: str, upload: DiskMultipart) -> dict[str, Any]:
    return {
        "id": upload.id,
        "bucket": bucket,
        "key": upload.key_name,
        "initiated": upload.initiated.isoformat(),
        "metadata": dict(upload.metadata),
        "storage": upload.storage,
        "parts": [_object(part) for part in upload.parts.values()],
    }


def _write(path: Path, record: dict[str, Any]) -> None:
    new = path.with_suffix(".new")
    new.write_text(json.dumps(record))
    os.replace(new, path)
