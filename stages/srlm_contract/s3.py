"""The object store over S3, for any server that speaks it.

Conditional puts: `conditional=True` leaves the condition to the server. `None` (not known yet) looks first
and then puts conditionally; `False` looks first and puts plainly, which is weaker: two writers within one
round trip can both believe they won. `probe` finds out what the server can do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from .errors import InvalidTask, NotFound, PreconditionFailed
from .s3_count import RequestErrors
from .s3_errors import Conflict, Unsupported, translated
from .s3_transfer import S3Object, TransferSettings, download, read_range, read_whole, upload_parts
from .store import Blob, FileDigest, ObjectInfo, Probe, run_probe

#: Most keys in one DeleteObjects call.
DELETE_BATCH = 1000


class S3Store:
    """A bucket, below a prefix. Thread-safe."""

    def __init__(
        self,
        client: Any,
        bucket: str,
        prefix: str = "",
        *,
        conditional: bool | None = None,
        transfer: TransferSettings | None = None,
        errors: RequestErrors | None = None,
    ) -> None:
        """prefix: without slashes at the ends. errors: counts requests that fail."""
        self.client = client
        self.bucket = bucket
        self.prefix = f"{prefix}/" if prefix else ""
        self.conditional = conditional
        self.transfer = transfer or TransferSettings()
        self.errors = errors or RequestErrors()
        self.errors.listen(client)

    @classmethod
    def from_location(
        cls,
        uri: str,
        *,
        endpoint_url: str | None = None,
        region: str | None = "us-east-1",
        addressing_style: Literal["Auto", "Path", "Virtual"] = "Auto",
        ca_bundle: Path | str | None = None,
        conditional: bool | None = None,
        transfer: TransferSettings | None = None,
        attempts: int = 5,
        errors: RequestErrors | None = None,
        credentials: Mapping[str, str] | None = None,
    ) -> Self:
        """Open `s3://bucket/prefix`.

        credentials: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and maybe AWS_SESSION_TOKEN; None for those of the
        environment or the workload's identity.
        attempts: tries of one request, with exponential pauses of at most 20 s. errors: counts requests that fail.
        Raises InvalidTask when the location is not valid.
        """
        transfer = transfer or TransferSettings()
        bucket, prefix = split_uri(uri)
        if ca_bundle and not Path(ca_bundle).is_file():
            raise InvalidTask(f"the CA bundle {ca_bundle} does not exist; correct storage.caBundleRef")
        config = Config(
            region_name=region,
            s3={"addressing_style": addressing_style.lower()},
            # Some stores refuse the newer checksum trailers; payloads are signed with their SHA-256 instead.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            retries={"mode": "standard", "total_max_attempts": attempts},
            connect_timeout=10,
            read_timeout=60,
            max_pool_connections=transfer.workers + 4,
            tcp_keepalive=True,
        )
        try:
            client = _session(credentials).client(
                "s3", endpoint_url=endpoint_url, config=config, verify=str(ca_bundle) if ca_bundle else None
            )
        except ValueError as error:
            raise InvalidTask(f"storage.endpointUrl {endpoint_url!r} is not a URL: {error}") from error
        except BotoCoreError as error:
            raise InvalidTask(f"storage {uri}: {error}; correct region, endpoint or credentials") from error
        return cls(client, bucket, prefix, conditional=conditional, transfer=transfer, errors=errors)

    def uri(self, key: str) -> str:
        return f"s3://{self.bucket}/{self.prefix}{key}"

    def head(self, key: str) -> ObjectInfo | None:
        try:
            with translated(self.uri(key), "read"):
                answer = self.client.head_object(**self._target(key).address)
                return ObjectInfo(key, int(answer["ContentLength"]), answer["ETag"], answer["LastModified"])
        except NotFound:
            return None

    def get(self, key: str) -> Blob:
        data, answer = read_whole(self._target(key), self.transfer)
        with translated(self.uri(key), "read"):
            return Blob(data, ObjectInfo(key, len(data), answer["ETag"], answer["LastModified"]))

    def get_range(self, key: str, start: int, length: int) -> bytes:
        info = self.head(key)
        if info is None:
            raise NotFound(f"{self.uri(key)} does not exist")
        data = bytearray(max(0, min(length, info.size - start)))
        if data:
            read_range(self._target(key), info.etag, start, memoryview(data), self.transfer)
        return bytes(data)

    def put(self, key: str, data: bytes, *, if_none_match: bool = False, if_match: str | None = None) -> ObjectInfo:
        condition = self._look_first(key, _condition(if_none_match, if_match))
        for attempt in range(self.transfer.attempts):
            try:
                return self._put(key, data, condition)
            except Unsupported:
                if not condition:
                    raise
                self.conditional = False
                condition = {}
            except Conflict:
                self.transfer.pause(attempt)
        return self._put(key, data, condition)

    def upload_file(self, path: Path, key: str, *, if_none_match: bool = False) -> FileDigest:
        if path.stat().st_size <= self.transfer.part_bytes:
            data = path.read_bytes()
            self.put(key, data, if_none_match=if_none_match)
            return FileDigest(len(data), hashlib.sha256(data).hexdigest())
        condition = self._look_first(key, _condition(if_none_match, None))
        try:
            return upload_parts(self._target(key), path, self.transfer, condition)
        except Unsupported:
            if not condition:
                raise
            self.conditional = False
            return upload_parts(self._target(key), path, self.transfer, {})

    def download_file(self, key: str, path: Path) -> FileDigest:
        return download(self._target(key), path, self.transfer)

    def list_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self.prefix + prefix)
        with translated(self.uri(prefix), "list"):
            for page in pages:
                for entry in page.get("Contents", ()):
                    key = entry["Key"].removeprefix(self.prefix)
                    yield ObjectInfo(key, int(entry["Size"]), entry["ETag"], entry["LastModified"])

    def delete(self, keys: Iterable[str]) -> None:
        names = [self.prefix + key for key in keys]
        for start in range(0, len(names), DELETE_BATCH):
            batch = names[start : start + DELETE_BATCH]
            try:
                self._delete_batch(batch)
            except Unsupported:
                for name in batch:
                    with translated(f"s3://{self.bucket}/{name}", "delete"):
                        self.client.delete_object(Bucket=self.bucket, Key=name)

    def abort_uploads(self, prefix: str, older_than: datetime) -> int:
        pages = self.client.get_paginator("list_multipart_uploads").paginate(
            Bucket=self.bucket, Prefix=self.prefix + prefix
        )
        aborted = 0
        with translated(self.uri(prefix), "clean up unfinished uploads of"):
            for page in pages:
                for entry in page.get("Uploads", ()):
                    if entry["Initiated"] < older_than:
                        self.client.abort_multipart_upload(
                            Bucket=self.bucket, Key=entry["Key"], UploadId=entry["UploadId"]
                        )
                        aborted += 1
        return aborted

    def probe(self) -> Probe:
        """Also remembers whether conditional puts work."""

        def conditional_put(key: str, data: bytes, etag: str | None) -> None:
            try:
                self._put(key, data, _condition(etag is None, etag))
            except Unsupported as error:
                raise NotImplementedError from error

        found = run_probe(self, conditional_put)
        self.conditional = found.conditional
        return found

    def _target(self, key: str) -> S3Object:
        return S3Object(self.client, self.bucket, self.prefix + key, self.errors)

    def _put(self, key: str, data: bytes, condition: dict[str, str]) -> ObjectInfo:
        with translated(self.uri(key), "write"):
            answer = self.client.put_object(**self._target(key).address, Body=data, **condition)
            return ObjectInfo(key, len(data), answer["ETag"], datetime.now(UTC))

    def _look_first(self, key: str, condition: dict[str, str]) -> dict[str, str]:
        """Checks the condition here unless the server is known to; returns what to send along."""
        if not condition or self.conditional:
            return condition
        info = self.head(key)
        if "IfNoneMatch" in condition and info is not None:
            raise PreconditionFailed(f"{self.uri(key)} exists already")
        if "IfMatch" in condition and (info is None or info.etag != condition["IfMatch"]):
            raise PreconditionFailed(f"{self.uri(key)} changed since it was read")
        return condition if self.conditional is None else {}

    def _delete_batch(self, names: list[str]) -> None:
        objects = [{"Key": name} for name in names]
        uri = f"s3://{self.bucket}/{names[0]}"
        with translated(uri, "delete"):
            answer = self.client.delete_objects(Bucket=self.bucket, Delete={"Objects": objects, "Quiet": True})
            for failed in answer.get("Errors", ()):
                if failed.get("Code") != "NoSuchKey":
                    raise self.client.exceptions.ClientError(
                        {"Error": failed, "ResponseMetadata": {"HTTPStatusCode": 0}}, "DeleteObjects"
                    )


def split_uri(uri: str) -> tuple[str, str]:
    """`s3://bucket/some/prefix/` → ("bucket", "some/prefix"). Raises InvalidTask."""
    scheme, _, rest = uri.partition("://")
    bucket, _, prefix = rest.partition("/")
    if scheme != "s3" or not bucket:
        raise InvalidTask(f"{uri!r} is not an S3 location; write s3://bucket or s3://bucket/prefix")
    return bucket, prefix.strip("/")


def _session(credentials: Mapping[str, str] | None) -> Any:
    if credentials is None:
        return boto3.session.Session()
    return boto3.session.Session(
        aws_access_key_id=credentials["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=credentials["AWS_SECRET_ACCESS_KEY"],
        aws_session_token=credentials.get("AWS_SESSION_TOKEN") or None,
    )


def _condition(if_none_match: bool, if_match: str | None) -> dict[str, str]:
    if if_none_match:
        return {"IfNoneMatch": "*"}
    return {"IfMatch": if_match} if if_match is not None else {}
