"""Objects on disk: data files, and beside them one small JSON file an object that names its data.

    <root>/data/<id>                          bytes, never changed once written
    <root>/buckets/<bucket>/<hash of key>.json
    <root>/uploads/<upload id>/{upload.json, <part number>.json}

An object exists when its JSON file exists, and that is put in place by an atomic rename after the data
is complete: stopping at any instant leaves the old object or the new one. Data that no JSON file
names is removed at the next start. There is no fsync: it survives a killed process, not a power cut.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from bisect import bisect_left, insort
from dataclasses import asdict, dataclass, field
from pathlib import Path

from srlm_local.s3.errors import S3Error

MIN_PART_BYTES = 5 * 1024 * 1024
MAX_KEY_BYTES = 1024


@dataclass(frozen=True)
class ObjectRecord:
    """What is known of an object; `etag` without quotes, `modified` in seconds since the epoch."""

    key: str
    data: str
    size: int
    etag: str
    modified: float
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PartRecord:
    """One uploaded part of a multipart upload."""

    number: int
    data: str
    size: int
    etag: str
    modified: float


@dataclass(frozen=True)
class Upload:
    """An unfinished multipart upload and its parts so far."""

    id: str
    bucket: str
    key: str
    started: float
    headers: dict[str, str] = field(default_factory=dict)
    parts: dict[int, PartRecord] = field(default_factory=dict, compare=False)


class Bucket:
    """Objects by key, and the keys in order."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.objects: dict[str, ObjectRecord] = {}
        self.keys: list[str] = []

    def put(self, record: ObjectRecord) -> None:
        """Keeps `record` in memory; the caller has written its file."""
        if record.key not in self.objects:
            insort(self.keys, record.key)
        self.objects[record.key] = record

    def drop(self, key: str) -> None:
        """Forgets `key`."""
        del self.objects[key]
        del self.keys[bisect_left(self.keys, key)]

    def record_path(self, key: str) -> Path:
        """Where the object's JSON file lies: keys may hold any character and be longer than file names."""
        return self.path / f"{hashlib.sha256(key.encode()).hexdigest()}.json"


class ObjectStore:
    """All buckets of one folder. Not thread safe: one event loop owns it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.buckets: dict[str, Bucket] = {}
        self.uploads: dict[str, Upload] = {}
        for name in ("data", "buckets", "uploads"):
            (root / name).mkdir(parents=True, exist_ok=True)
        self._load()

    def _load(self) -> None:
        used: set[str] = set()
        for folder in (self.root / "buckets").iterdir():
            bucket = self.buckets[folder.name] = Bucket(folder)
            for path in folder.glob("*.json"):
                record = ObjectRecord(**json.loads(path.read_text()))
                bucket.objects[record.key] = record
                used.add(record.data)
            bucket.keys = sorted(bucket.objects)
        for folder in (self.root / "uploads").iterdir():
            if not (folder / "upload.json").exists():
                shutil.rmtree(folder)
                continue
            upload = Upload(**json.loads((folder / "upload.json").read_text()))
            for path in folder.glob("[0-9]*.json"):
                part = PartRecord(**json.loads(path.read_text()))
                upload.parts[part.number] = part
                used.add(part.data)
            self.uploads[upload.id] = upload
        for path in (self.root / "data").iterdir():
            if path.name not in used:
                path.unlink()

    def bucket(self, name: str) -> Bucket:
        """The bucket, or NoSuchBucket."""
        if name not in self.buckets:
            raise S3Error("NoSuchBucket")
        return self.buckets[name]

    def create_bucket(self, name: str) -> None:
        """Makes a bucket; BucketAlreadyOwnedByYou when there is one, InvalidBucketName for a bad name."""
        if name in self.buckets:
            raise S3Error("BucketAlreadyOwnedByYou", "The bucket exists already and you own it.")
        allowed = "abcdefghijklmnopqrstuvwxyz0123456789.-"
        if (
            not 3 <= len(name) <= 63
            or name[0] in ".-"
            or name[-1] in ".-"
            or any(c not in allowed for c in name)
        ):
            raise S3Error("InvalidBucketName", f"The specified bucket is not valid: {name!r}")
        path = self.root / "buckets" / name
        path.mkdir()
        self.buckets[name] = Bucket(path)

    def delete_bucket(self, name: str) -> None:
        """Removes an empty bucket."""
        if self.bucket(name).objects:
            raise S3Error("BucketNotEmpty")
        self.buckets.pop(name).path.rmdir()

    def new_data(self) -> Path:
        """A fresh path to write data to; its name goes into a record."""
        return self.root / "data" / uuid.uuid4().hex

    def data_path(self, record: ObjectRecord | PartRecord) -> Path:
        """The file with the bytes of an object or part."""
        return self.root / "data" / record.data

    def check(self, bucket: str, key: str, if_match: str | None, if_none_match: str | None) -> None:
        """Raises PreconditionFailed (or NoSuchKey) unless a conditional write may go on."""
        existing = self.bucket(bucket).objects.get(key)
        if if_none_match is not None:
            if if_none_match != "*":
                raise S3Error("NotImplemented", "Only If-None-Match: * is supported for writes.")
            if existing is not None:
                raise S3Error("PreconditionFailed")
        if if_match is not None:
            if existing is None:
                raise S3Error("NoSuchKey")
            if if_match.strip('"') not in ("*", existing.etag):
                raise S3Error("PreconditionFailed")

    def put(self, bucket_name: str, record: ObjectRecord) -> None:
        """Makes the object visible; what it replaces is removed."""
        if len(record.key.encode()) > MAX_KEY_BYTES:
            raise S3Error("KeyTooLongError", "Your key is too long")
        bucket = self.bucket(bucket_name)
        old = bucket.objects.get(record.key)
        write_json(bucket.record_path(record.key), asdict(record))
        bucket.put(record)
        if old is not None:
            self.data_path(old).unlink(missing_ok=True)

    def delete(self, bucket_name: str, key: str) -> None:
        """Removes an object; nothing happens when there is none."""
        bucket = self.bucket(bucket_name)
        record = bucket.objects.get(key)
        if record is None:
            return
        bucket.record_path(key).unlink()
        bucket.drop(key)
        self.data_path(record).unlink(missing_ok=True)

    def start_upload(self, upload: Upload) -> None:
        """Begins a multipart upload."""
        self.bucket(upload.bucket)
        folder = self.root / "uploads" / upload.id
        folder.mkdir()
        write_json(folder / "upload.json", {k: v for k, v in asdict(upload).items() if k != "parts"})
        self.uploads[upload.id] = upload

    def upload(self, bucket: str, key: str, upload_id: str) -> Upload:
        """The unfinished upload, or NoSuchUpload."""
        upload = self.uploads.get(upload_id)
        if upload is None or (upload.bucket, upload.key) != (bucket, key):
            raise S3Error("NoSuchUpload")
        return upload

    def put_part(self, upload: Upload, part: PartRecord) -> None:
        """Adds or replaces a part."""
        if upload.id not in self.uploads:
            self.data_path(part).unlink()
            raise S3Error("NoSuchUpload")
        old = upload.parts.get(part.number)
        write_json(self.root / "uploads" / upload.id / f"{part.number}.json", asdict(part))
        upload.parts[part.number] = part
        if old is not None:
            self.data_path(old).unlink(missing_ok=True)

    def drop_upload(self, upload: Upload) -> None:
        """Forgets an upload, finished or aborted, with its parts."""
        del self.uploads[upload.id]
        shutil.rmtree(self.root / "uploads" / upload.id)
        for part in upload.parts.values():
            self.data_path(part).unlink(missing_ok=True)


def write_json(path: Path, value: object) -> None:
    """Puts the file in place by a rename, so that readers and restarts see it whole or not at all."""
    temporary = path.with_suffix(f".{uuid.uuid4().hex}.tmp")
    temporary.write_text(json.dumps(value))
    os.replace(temporary, path)
