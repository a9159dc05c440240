"""What each S3 operation does. Operations not listed in `server.route` answer NotImplemented."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import time
import uuid
from email.utils import formatdate, parsedate_to_datetime
from urllib.parse import unquote
from xml.etree import ElementTree

from aiohttp import web

from srlm_local.s3.body import CHUNK_BYTES, receive
from srlm_local.s3.errors import S3Error
from srlm_local.s3.listing import document, element, iso_time
from srlm_local.s3.objects import MIN_PART_BYTES, ObjectRecord, ObjectStore, PartRecord, Upload

KEPT_HEADERS = {
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-type",
}


def xml(body: str, status: int = 200) -> web.Response:
    """An XML answer."""
    return web.Response(status=status, text=body, content_type="application/xml")


def _kept(request: web.Request) -> dict[str, str]:
    headers = {
        k.lower(): v
        for k, v in request.headers.items()
        if k.lower() in KEPT_HEADERS or k.lower().startswith("x-amz-meta-")
    }
    encoding = ",".join(
        e for e in headers.pop("content-encoding", "").split(",") if e.strip() not in ("aws-chunked", "")
    )
    return {**headers, **({"content-encoding": encoding} if encoding else {})}


def _conditions(request: web.Request) -> tuple[str | None, str | None]:
    return request.headers.get("If-Match"), request.headers.get("If-None-Match")


async def put_object(store: ObjectStore, request: web.Request, bucket: str, key: str) -> web.Response:
    """PutObject; conditions are checked before and, for racing writers, again after the body came."""
    store.check(bucket, key, *_conditions(request))
    path = store.new_data()
    received = await receive(request, path)
    headers = _kept(request)
    for name, value in request.headers.items():
        if name.lower().startswith("x-amz-checksum-"):
            headers[name.lower()] = value
    record = ObjectRecord(key, path.name, received.size, received.md5, time.time(), headers)
    _commit(store, request, bucket, record)
    return web.Response(headers={"ETag": f'"{received.md5}"'})


def _commit(store: ObjectStore, request: web.Request, bucket: str, record: ObjectRecord) -> None:
    # No await between check and put: of two racing conditional writers exactly one wins.
    try:
        store.check(bucket, record.key, *_conditions(request))
        store.put(bucket, record)
    except BaseException:
        store.data_path(record).unlink(missing_ok=True)
        raise


async def get_object(store: ObjectStore, request: web.Request, bucket: str, key: str) -> web.StreamResponse:
    """GetObject and HeadObject with conditions and one byte range."""
    record = store.bucket(bucket).objects.get(key)
    if record is None:
        raise S3Error("NoSuchKey")
    _check_read(request, record)
    headers = {
        "ETag": f'"{record.etag}"',
        "Last-Modified": formatdate(record.modified, usegmt=True),
        "Accept-Ranges": "bytes",
        "content-type": "binary/octet-stream",
    }
    kept = record.headers
    start, stop, partial = _range(request.headers.get("Range"), record.size)
    if partial or request.headers.get("x-amz-checksum-mode", "").upper() != "ENABLED":
        kept = {k: v for k, v in kept.items() if not k.startswith("x-amz-checksum-")}
    headers.update(kept)
    headers["Content-Length"] = str(stop - start)
    if partial:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{record.size}"
    response = web.StreamResponse(status=206 if partial else 200, headers=headers)
    if request.method == "HEAD":
        await response.prepare(request)
        return response
    # Opened before anything is awaited: an overwrite meanwhile unlinks the file but cannot change it.
    with store.data_path(record).open("rb") as file:
        await response.prepare(request)
        file.seek(start)
        left = stop - start
        while left:
            piece = file.read(min(left, CHUNK_BYTES))
            await response.write(piece)
            left -= len(piece)
    await response.write_eof()
    return response


def _check_read(request: web.Request, record: ObjectRecord) -> None:
    headers = request.headers
    if (wanted := headers.get("If-Match")) and wanted.strip('"') not in ("*", record.etag):
        raise S3Error("PreconditionFailed")
    if (known := headers.get("If-None-Match")) is not None:
        if known.strip('"') in ("*", record.etag):
            raise S3Error("NotModified")
        return
    since = headers.get("If-Modified-Since")
    if since and int(record.modified) <= parsedate_to_datetime(since).timestamp():
        raise S3Error("NotModified")


def _range(header: str | None, size: int) -> tuple[int, int, bool]:
    """(start, stop, whether it is a part); a range that cannot be parsed is ignored, as in HTTP."""
    if not header or not header.startswith("bytes=") or "," in header:
        return 0, size, False
    first, _, last = header.removeprefix("bytes=").partition("-")
    try:
        if first:
            start, stop = int(first), min(int(last) + 1 if last else size, size)
        else:
            start, stop = max(size - int(last), 0), size
    except ValueError:
        return 0, size, False
    if start >= size or stop <= start:
        raise S3Error("InvalidRange")
    return start, stop, True


async def copy_object(store: ObjectStore, request: web.Request, bucket: str, key: str) -> web.Response:
    """CopyObject within this server."""
    source_bucket, _, source_key = unquote(request.headers["x-amz-copy-source"]).lstrip("/").partition("/")
    source = store.bucket(source_bucket).objects.get(source_key)
    if source is None:
        raise S3Error("NoSuchKey")
    store.check(bucket, key, *_conditions(request))
    path = store.new_data()
    await asyncio.to_thread(shutil.copyfile, store.data_path(source), path)
    replace = request.headers.get("x-amz-metadata-directive") == "REPLACE"
    headers = _kept(request) if replace else source.headers
    record = ObjectRecord(key, path.name, source.size, source.etag, time.time(), headers)
    _commit(store, request, bucket, record)
    body = f"{element('LastModified', iso_time(record.modified))}<ETag>&quot;{record.etag}&quot;</ETag>"
    return xml(document("CopyObjectResult", body))


async def delete_objects(store: ObjectStore, request: web.Request, bucket: str) -> web.Response:
    """DeleteObjects: up to a thousand keys in one request."""
    store.bucket(bucket)
    tree = _parse(await request.read())
    quiet = tree.findtext("{*}Quiet") == "true"
    rows = []
    for key in [e.findtext("{*}Key") or "" for e in tree.iterfind("{*}Object")]:
        store.delete(bucket, key)
        rows.append("" if quiet else f"<Deleted>{element('Key', key)}</Deleted>")
    return xml(document("DeleteResult", "".join(rows)))


async def start_upload(store: ObjectStore, request: web.Request, bucket: str, key: str) -> web.Response:
    """CreateMultipartUpload."""
    upload = Upload(uuid.uuid4().hex, bucket, key, time.time(), _kept(request))
    store.start_upload(upload)
    body = f"{element('Bucket', bucket)}{element('Key', key)}{element('UploadId', upload.id)}"
    return xml(document("InitiateMultipartUploadResult", body))


async def put_part(store: ObjectStore, request: web.Request, upload: Upload, number: str) -> web.Response:
    """UploadPart."""
    if not number.isdecimal() or not 1 <= int(number) <= 10_000:
        raise S3Error("InvalidArgument", "Part number must be an integer between 1 and 10000, inclusive")
    path = store.new_data()
    received = await receive(request, path)
    store.put_part(upload, PartRecord(int(number), path.name, received.size, received.md5, time.time()))
    return web.Response(headers={"ETag": f'"{received.md5}"'})


async def complete_upload(store: ObjectStore, request: web.Request, upload: Upload) -> web.Response:
    """CompleteMultipartUpload: joins the parts named, in the order of their numbers."""
    store.check(upload.bucket, upload.key, *_conditions(request))
    parts: list[PartRecord] = []
    for entry in _parse(await request.read()).iterfind("{*}Part"):
        number, etag = entry.findtext("{*}PartNumber") or "0", (entry.findtext("{*}ETag") or "").strip('"')
        part = upload.parts.get(int(number))
        if part is None or part.etag != etag:
            raise S3Error("InvalidPart")
        if parts and part.number <= parts[-1].number:
            raise S3Error("InvalidPartOrder", "The list of parts was not in ascending order.")
        parts.append(part)
    if not parts:
        raise S3Error("MalformedXML", "You must specify at least one part")
    if any(part.size < MIN_PART_BYTES for part in parts[:-1]):
        raise S3Error("EntityTooSmall")
    path = store.new_data()
    await asyncio.to_thread(_join, store, parts, path)
    digest = hashlib.md5(b"".join(bytes.fromhex(p.etag) for p in parts), usedforsecurity=False).hexdigest()
    etag = f"{digest}-{len(parts)}"
    size = sum(part.size for part in parts)
    _commit(
        store,
        request,
        upload.bucket,
        ObjectRecord(upload.key, path.name, size, etag, time.time(), upload.headers),
    )
    if upload.id in store.uploads:
        store.drop_upload(upload)
    body = (
        f"{element('Location', request.path)}{element('Bucket', upload.bucket)}{element('Key', upload.key)}"
        f"<ETag>&quot;{etag}&quot;</ETag>"
    )
    return xml(document("CompleteMultipartUploadResult", body))


def _join(store: ObjectStore, parts: list[PartRecord], path: object) -> None:
    with open(str(path), "wb") as target:
        for part in parts:
            with store.data_path(part).open("rb") as source:
                shutil.copyfileobj(source, target, CHUNK_BYTES)


def _parse(body: bytes) -> ElementTree.Element:
    if b"<!" in body:  # no document types or entities: nothing a client sends needs them
        raise S3Error("MalformedXML", "The XML you provided must not contain declarations")
    try:
        return ElementTree.fromstring(body)  # noqa: S314  (no declarations in it)
    except ElementTree.ParseError:
        raise S3Error("MalformedXML", "The XML you provided was not well-formed") from None
