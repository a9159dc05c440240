"""XML documents of S3: listings of objects, buckets, uploads and parts."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from urllib.parse import quote
from xml.sax.saxutils import escape

from srlm_local.s3.errors import S3Error
from srlm_local.s3.objects import Bucket, ObjectStore, Upload

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"


def document(name: str, body: str) -> str:
    """A complete XML document with S3's namespace."""
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<{name} xmlns="{NAMESPACE}">{body}</{name}>'


def element(name: str, value: object) -> str:
    """One element with escaped text."""
    return f"<{name}>{escape(str(value))}</{name}>"


def iso_time(seconds: float) -> str:
    """Time as S3 writes it in XML, with milliseconds."""
    return (
        datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.")
        + f"{int(seconds * 1000) % 1000:03d}Z"
    )


def list_buckets(store: ObjectStore) -> str:
    """Answer to GET /."""
    rows = "".join(
        f"<Bucket>{element('Name', name)}"
        f"{element('CreationDate', iso_time(store.buckets[name].path.stat().st_ctime))}</Bucket>"
        for name in sorted(store.buckets)
    )
    return document("ListAllMyBucketsResult", f"<Owner><ID>local</ID></Owner><Buckets>{rows}</Buckets>")


def list_objects(bucket: Bucket, name: str, query: Mapping[str, str]) -> str:
    """ListObjects and ListObjectsV2: keys in order, with common prefixes where a delimiter is given."""
    v2 = query.get("list-type") == "2"
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    try:
        limit = min(int(query.get("max-keys", "1000")), 1000)
    except ValueError:
        raise S3Error("InvalidArgument", "Provided max-keys not an integer or within integer range") from None
    after = (
        (query.get("continuation-token") or query.get("start-after", "")) if v2 else query.get("marker", "")
    )
    encode: Callable[[str], str] = quote if query.get("encoding-type") == "url" else str
    contents, prefixes, last, truncated = _page(bucket, prefix, delimiter, after, limit)
    body = [element("Name", name), element("Prefix", encode(prefix)), element("MaxKeys", limit)]
    if delimiter:
        body.append(element("Delimiter", encode(delimiter)))
    if query.get("encoding-type") == "url":
        body.append(element("EncodingType", "url"))
    body.append(element("IsTruncated", "true" if truncated else "false"))
    if v2:
        body.append(element("KeyCount", len(contents) + len(prefixes)))
        if truncated:
            body.append(element("NextContinuationToken", last))
    else:
        body.append(element("Marker", encode(after)))
        if truncated:
            body.append(element("NextMarker", encode(last)))
    for key in contents:
        record = bucket.objects[key]
        body.append(
            f"<Contents>{element('Key', encode(key))}{element('LastModified', iso_time(record.modified))}"
            f"<ETag>&quot;{record.etag}&quot;</ETag>{element('Size', record.size)}"
            "<StorageClass>STANDARD</StorageClass></Contents>"
        )
    body.extend(f"<CommonPrefixes>{element('Prefix', encode(p))}</CommonPrefixes>" for p in prefixes)
    return document("ListBucketResult", "".join(body))


def _page(
    bucket: Bucket, prefix: str, delimiter: str, after: str, limit: int
) -> tuple[list[str], list[str], str, bool]:
    contents: list[str] = []
    prefixes: list[str] = []
    last = after
    index = max(bisect_left(bucket.keys, prefix), bisect_right(bucket.keys, after) if after else 0)
    while index < len(bucket.keys) and bucket.keys[index].startswith(prefix):
        key = bucket.keys[index]
        cut = key.find(delimiter, len(prefix)) if delimiter else -1
        group = key[: cut + len(delimiter)] if cut >= 0 else ""
        if group and (group in prefixes[-1:] or (after and after.startswith(group))):
            index += 1
            continue
        if len(contents) + len(prefixes) >= limit:
            return contents, prefixes, last, limit > 0
        last = group or key
        (prefixes if group else contents).append(last)
        index += 1
    return contents, prefixes, last, False


def list_uploads(store: ObjectStore, bucket: str, query: Mapping[str, str]) -> str:
    """Unfinished multipart uploads of a bucket, all in one page."""
    store.bucket(bucket)
    rows = "".join(
        f"<Upload>{element('Key', u.key)}{element('UploadId', u.id)}"
        f"<StorageClass>STANDARD</StorageClass>{element('Initiated', iso_time(u.started))}</Upload>"
        for u in sorted(store.uploads.values(), key=lambda u: (u.key, u.started))
        if u.bucket == bucket and u.key.startswith(query.get("prefix", ""))
    )
    return document(
        "ListMultipartUploadsResult", f"{element('Bucket', bucket)}<IsTruncated>false</IsTruncated>{rows}"
    )


def list_parts(upload: Upload) -> str:
    """Parts of an unfinished upload, all in one page."""
    rows = "".join(
        f"<Part>{element('PartNumber', p.number)}{element('LastModified', iso_time(p.modified))}"
        f"<ETag>&quot;{p.etag}&quot;</ETag>{element('Size', p.size)}</Part>"
        for _, p in sorted(upload.parts.items())
    )
    head = f"{element('Bucket', upload.bucket)}{element('Key', upload.key)}{element('UploadId', upload.id)}"
    return document("ListPartsResult", f"{head}<IsTruncated>false</IsTruncated>{rows}")
