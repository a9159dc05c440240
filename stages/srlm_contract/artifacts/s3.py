"""The object store over S3, for any server that speaks it.

Conditional puts: `conditional=True` leaves the condition to the server. `None` (not known yet) looks first
and then puts conditionally; `False` looks first, puts plainly and looks again, which is weaker: of two writers
within one round trip usually only one believes it won, but both can. `if_match` says the same of replacing one
version, and in which form the server compares its ETag. `probe` finds out what the server can do.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Self

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from srlm_contract.errors import InvalidTask, NotFound, PreconditionFailed, StoreNotPermitted, Unsupported
from srlm_contract.spec.storage import IfMatch, Place

from . import layout
from .s3_conditions import Condition, same_etag
from .s3_count import RequestErrors
from .s3_errors import Rejected, SendAgain, refuse_redirects, translated
from .s3_md5 import content_md5, send_md5_of_deletions
from .s3_pace import PacedBody
from .s3_transfer import S3Object, TransferSettings, download, head_of, read_range, read_whole, repeated, upload_parts
from .store import Blob, FileDigest, ObjectInfo, Probe, run_probe

#: Most keys in one DeleteObjects call.
DELETE_BATCH = 1000
#: Seconds after which a plain put is looked at again, at most.
LONGEST_WAIT = 5.0


class S3Store:
    """A bucket, below a prefix. Thread-safe."""

    def __init__(
        self,
        client: Any,
        bucket: str,
        prefix: str = "",
        *,
        conditional: bool | None = None,
        if_match: IfMatch | None = None,
        transfer: TransferSettings | None = None,
        errors: RequestErrors | None = None,
    ) -> None:
        """prefix: without slashes at the ends. if_match: None when not known. errors: counts requests that fail."""
        self.client = client
        self.bucket = bucket
        self.prefix = f"{prefix}/" if prefix else ""
        self.conditional = conditional
        self.if_match = if_match
        self.transfer = transfer or TransferSettings()
        self.errors = errors or RequestErrors()
        self.errors.listen(client)
        send_md5_of_deletions(client)
        refuse_redirects(client)

    @classmethod
    def open(
        cls,
        place: Place,
        uri: str | None = None,
        *,
        ca_bundle: Path | str | None = None,
        conditional: bool | None = None,
        if_match: IfMatch | None = None,
        transfer: TransferSettings | None = None,
        attempts: int = 5,
        errors: RequestErrors | None = None,
        credentials: Mapping[str, str] | None = None,
    ) -> Self:
        """The store at a place; with `uri`, another bucket and prefix behind the same endpoint.

        credentials: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and maybe AWS_SESSION_TOKEN; None for those of the
        environment or the workload's identity.
        attempts: tries of one request, with exponential pauses of at most 20 s. errors: counts requests that fail.
        Raises InvalidTask when the location is not valid.
        """
        transfer = transfer or TransferSettings()
        uri = uri or place.uri
        bucket, prefix = split_uri(uri)
        if ca_bundle and not Path(ca_bundle).is_file():
            raise InvalidTask("InvalidTask", f"the CA bundle {ca_bundle} does not exist; correct storage.caBundleRef")
        config = Config(
            region_name=place.region,
            s3={"addressing_style": place.addressing_style.lower()},
            # Some stores refuse the newer checksum trailers; Content-MD5 does the same and is known to all.
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
                "s3", endpoint_url=place.endpoint_url, config=config, verify=str(ca_bundle) if ca_bundle else None
            )
        except ValueError as error:
            raise InvalidTask(
                "InvalidTask", f"storage.endpointUrl {place.endpoint_url!r} is not a URL: {error}"
            ) from error
        except BotoCoreError as error:
            raise InvalidTask(
                "InvalidTask", f"storage {uri}: {error}; correct region, endpoint or credentials"
            ) from error
        return cls(client, bucket, prefix, conditional=conditional, if_match=if_match, transfer=transfer, errors=errors)

    def uri(self, key: str) -> str:
        return f"s3://{self.bucket}/{self.prefix}{key}"

    def head(self, key: str) -> ObjectInfo | None:
        try:
            answer = head_of(self._target(key))
            with translated(self.uri(key), "read"):
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
        wanted = Condition.of(if_none_match, if_match)
        if wanted is None:
            return self._put(key, data)
        if wanted.left_to_server(self.conditional, self.if_match) is not False:
            try:
                return self._put_on_condition(key, data, wanted)
            except Unsupported:
                self._lacks(wanted)
        began = time.monotonic()
        self._look(key, wanted)
        info = self._put(key, data)
        self._look_again(info, time.monotonic() - began)
        return info

    def upload_file(self, path: Path, key: str, *, if_none_match: bool = False) -> FileDigest:
        if path.stat().st_size <= self.transfer.part_bytes:
            data = path.read_bytes()
            self.put(key, data, if_none_match=if_none_match)
            return FileDigest(len(data), hashlib.sha256(data).hexdigest())
        wanted = Condition.of(if_none_match, None)
        if wanted is None:
            return upload_parts(self._target(key), path, self.transfer, {})
        self._look(key, wanted)  # also where the server decides: some do for single puts only
        sent = {} if self.conditional is False else wanted.headers()
        try:
            return upload_parts(self._target(key), path, self.transfer, sent)
        except Unsupported:
            if not sent:
                raise
            self._lacks(wanted)
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
                repeated(self.transfer, partial(self._delete_batch, batch))
            except (Unsupported, Rejected, NotFound):
                self._delete_each(batch)

    def abort_uploads(self, prefix: str, older_than: datetime) -> int:
        aborted = 0
        for upload in self._unfinished(prefix):
            if upload["Initiated"] < older_than:
                target = {"Bucket": self.bucket, "Key": upload["Key"], "UploadId": upload["UploadId"]}
                ended = self.client.exceptions.NoSuchUpload  # in this very moment
                with translated(f"s3://{self.bucket}/{upload['Key']}", "drop an unfinished upload of"), suppress(ended):
                    self.client.abort_multipart_upload(**target)
                aborted += 1
        return aborted

    def probe(self) -> Probe:
        """Also remembers whether conditional puts work, and how."""

        def conditional_put(key: str, data: bytes, etag: str | None, form: IfMatch) -> None:
            headers = Condition(etag).headers(form)
            try:
                self._put(key, data, headers)
            except (Rejected, SendAgain) as error:
                raise Unsupported(str(error)) from error

        found = run_probe(self, conditional_put)
        self.conditional, self.if_match = found.conditional, found.if_match
        try:
            next(self._unfinished(layout.PROBES), None)
        except Unsupported as error:
            return replace(found, lacks=(str(error),))
        return found

    def _target(self, key: str) -> S3Object:
        return S3Object(self.client, self.bucket, self.prefix + key, self.errors)

    def _put(self, key: str, data: bytes, headers: Mapping[str, str] | None = None) -> ObjectInfo:
        """headers: a condition, as arguments of boto3."""
        about = {**self._target(key).address, "ContentMD5": content_md5(data), **(headers or {})}

        def once() -> ObjectInfo:
            body = PacedBody(data, self.uri(key), self.transfer.clock)
            with translated(self.uri(key), "write"):
                answer = self.client.put_object(**about, Body=body)
                return ObjectInfo(key, len(data), answer["ETag"], datetime.now(UTC))

        return repeated(self.transfer, once)

    def _put_on_condition(self, key: str, data: bytes, wanted: Condition) -> ObjectInfo:
        """Leaves the decision to the server; looks first unless it is known to decide. Raises Unsupported."""
        if wanted.left_to_server(self.conditional, self.if_match):
            return self._put(key, data, wanted.headers(self.if_match))
        self._look(key, wanted)
        try:
            return self._put(key, data, wanted.headers(self.if_match))
        except PreconditionFailed:
            if wanted.etag is None or self.if_match is not None:
                raise
            # A moment ago it held: the server may compare the ETag without its quotes.
            info = self._put(key, data, wanted.headers("Unquoted"))
            self.if_match = "Unquoted"
            return info

    def _lacks(self, wanted: Condition) -> None:
        """The server said that it knows no such condition."""
        if wanted.etag is None:
            self.conditional = False
        else:
            self.if_match = "Unsupported"

    def _look(self, key: str, wanted: Condition) -> None:
        """Raises PreconditionFailed unless the condition holds now."""
        info = self.head(key)
        if wanted.etag is None and info is not None:
            raise PreconditionFailed(f"{self.uri(key)} exists already")
        if wanted.etag is not None and (info is None or not same_etag(info.etag, wanted.etag)):
            raise PreconditionFailed(f"{self.uri(key)} changed since it was read")

    def _look_again(self, put: ObjectInfo, seconds: float) -> None:
        """Raises PreconditionFailed when another writer's object took the place of ours.

        seconds: how long we took from looking to having put; another one who looked before we put has put its own
        after about as long again.
        """
        time.sleep(min(seconds, LONGEST_WAIT))
        now = self.head(put.key)
        if now is None or not same_etag(now.etag, put.etag):
            raise PreconditionFailed(f"{self.uri(put.key)}: somebody else wrote it at the same time")

    def _unfinished(self, prefix: str) -> Iterator[Mapping[str, Any]]:
        """Multipart uploads that nobody completed. Raises Unsupported when the store does not tell."""
        below = self.prefix + prefix
        pages = self.client.get_paginator("list_multipart_uploads").paginate(Bucket=self.bucket, Prefix=below)
        try:
            with translated(self.uri(prefix), "list unfinished uploads of"):
                for page in pages:
                    # Not every store heeds the prefix, and the uploads of others must stay.
                    yield from (found for found in page.get("Uploads", ()) if found["Key"].startswith(below))
        except (Unsupported, Rejected, NotFound, StoreNotPermitted) as error:
            raise Unsupported(
                "the store does not list unfinished uploads (ListMultipartUploads), so parts that a killed pod leaves "
                f"stay; let the bucket's lifecycle rules abort incomplete multipart uploads ({error})"
            ) from error

    def _delete_each(self, names: Iterable[str]) -> None:
        """One request an object, for stores that do not take many at once."""
        for name in names:
            with suppress(NotFound), translated(f"s3://{self.bucket}/{name}", "delete"):
                self.client.delete_object(Bucket=self.bucket, Key=name)

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
        raise InvalidTask("InvalidTask", f"{uri!r} is not an S3 location; write s3://bucket or s3://bucket/prefix")
    return bucket, prefix.strip("/")


def _session(credentials: Mapping[str, str] | None) -> Any:
    if credentials is None:
        return boto3.session.Session()
    return boto3.session.Session(
        aws_access_key_id=credentials["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=credentials["AWS_SECRET_ACCESS_KEY"],
        aws_session_token=credentials.get("AWS_SESSION_TOKEN") or None,
    )
