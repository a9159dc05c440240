"""The S3 server by boto3 over HTTP: moto's answers are unchanged, and what moto alone cannot do."""

from __future__ import annotations

import hashlib
import os
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError
from moto.server import ThreadedMotoServer

from local.s3_kit import READER, WRITER, Server, answer, client, server

PART = 5 * 1024 * 1024


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with server(tmp_path_factory.mktemp("s3")) as made:
        yield made


@pytest.fixture(scope="module")
def moto() -> Iterator[Any]:
    made = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    made.start()
    host, port = made.get_host_and_port()
    yield client(f"http://{host}:{port}")
    made.stop()


def objects(c: Any) -> list[Any]:
    """Plain objects: writing, reading, ranges, conditions, copies, deletion."""
    put, get, head = c.put_object, c.get_object, c.head_object
    k: dict[str, Any] = {"Bucket": "objects", "Key": "a/ü +~'(1).txt"}
    return [
        answer(c.create_bucket, Bucket="objects"),
        answer(c.head_bucket, Bucket="objects"),
        answer(c.head_bucket, Bucket="nobody"),
        answer(put, "ETag", **k, Body=b"hello", Metadata={"x": "y"}, ContentType="text/plain", IfNoneMatch="*"),
        answer(put, **k, Body=b"again", IfNoneMatch="*"),
        answer(head, "ETag", "ContentLength", "ContentType", "Metadata", **k),
        answer(get, "ETag", "ContentLength", **k),
        answer(get, "ContentRange", "ContentLength", **k, Range="bytes=1-2"),
        answer(get, "ContentRange", "ContentLength", **k, Range="bytes=-2"),
        answer(get, "ContentRange", "ContentLength", **k, Range="bytes=3-"),
        answer(get, **k, Range="bytes=9-"),
        answer(get, Bucket="objects", Key="none"),
        answer(head, Bucket="objects", Key="none"),
        answer(get, Bucket="nobody", Key="none"),
        answer(get, **k, IfMatch='"0123"'),
        answer(get, "ETag", **k, IfMatch='"5d41402abc4b2a76b9719d911017c592"'),
        answer(head, **k, IfNoneMatch='"5d41402abc4b2a76b9719d911017c592"'),
        answer(put, **k, Body=b"new", IfMatch='"0123"'),
        answer(put, Bucket="objects", Key="none", Body=b"new", IfMatch='"0123"'),
        answer(put, "ETag", **k, Body=b"new", IfMatch='"5d41402abc4b2a76b9719d911017c592"'),
        answer(c.copy_object, Bucket="objects", Key="copy", CopySource=k),
        answer(get, "ETag", "ContentLength", Bucket="objects", Key="copy"),
        answer(c.copy_object, Bucket="objects", Key="copy", CopySource={"Bucket": "objects", "Key": "none"}),
        answer(c.delete_object, **k),
        answer(c.delete_object, **k),
        answer(get, **k),
        answer(c.delete_bucket, Bucket="objects"),
        answer(c.delete_object, Bucket="objects", Key="copy"),
        answer(c.delete_bucket, Bucket="objects"),
        answer(c.delete_bucket, Bucket="objects"),
    ]


def listings(c: Any) -> list[Any]:
    """Listings: prefixes, delimiters, pages, both versions; deletion of many."""
    c.create_bucket(Bucket="listings")
    for key in ["a", "a/1", "a/2", "a/b/3", "b & c", "ü", "z/9", "z/10"]:
        c.put_object(Bucket="listings", Key=key, Body=key.encode())
    seen: list[Any] = []

    def both(**arguments: Any) -> None:
        for call in (c.list_objects_v2, c.list_objects):
            got = call(Bucket="listings", **arguments)
            found = [(o["Key"], o["Size"], o["ETag"]) for o in got.get("Contents", [])]
            prefixes = [p["Prefix"] for p in got.get("CommonPrefixes", [])]
            seen.append((found, prefixes, got["IsTruncated"], got.get("KeyCount")))

    both()
    both(Prefix="a/")
    both(Delimiter="/")
    both(Prefix="a/", Delimiter="/")
    both(Prefix="none")
    both(MaxKeys=3)
    pages = c.get_paginator("list_objects_v2").paginate(
        Bucket="listings", Delimiter="/", PaginationConfig={"PageSize": 2}
    )
    for page in pages:
        seen.append([o["Key"] for o in page.get("Contents", [])])
        seen.append([o["Prefix"] for o in page.get("CommonPrefixes", [])])
    seen.append([o["Key"] for o in c.list_objects_v2(Bucket="listings", StartAfter="a/2")["Contents"]])
    seen.append(answer(c.list_objects_v2, Bucket="nobody"))
    gone = c.delete_objects(Bucket="listings", Delete={"Objects": [{"Key": "b & c"}, {"Key": "ü"}, {"Key": "none"}]})
    seen.append(sorted(o["Key"] for o in gone["Deleted"]))
    seen.append([o["Key"] for o in c.list_objects_v2(Bucket="listings")["Contents"]])
    return seen


def multipart(c: Any) -> list[Any]:
    """Multipart uploads: order, replacement, conditions, faults."""
    c.create_bucket(Bucket="multipart")
    one, two = b"1" * PART, b"2" * 10

    def begin(key: str = "k") -> dict[str, Any]:
        started = c.create_multipart_upload(Bucket="multipart", Key=key, ContentType="text/plain")
        return {"Bucket": "multipart", "Key": key, "UploadId": started["UploadId"]}

    def part(upload: dict[str, Any], number: int, body: bytes) -> dict[str, Any]:
        return {"PartNumber": number, "ETag": c.upload_part(**upload, PartNumber=number, Body=body)["ETag"]}

    def finish(upload: dict[str, Any], *parts: dict[str, Any], **conditions: Any) -> Any:
        return answer(
            c.complete_multipart_upload,
            "ETag",
            **upload,
            MultipartUpload={"Parts": list(parts)},
            **conditions,
        )

    first = begin()
    parts = [part(first, 1, b"0" * PART), part(first, 2, two)]
    parts[0] = part(first, 1, one)
    listed = c.list_parts(**first)["Parts"]
    wrong = {"PartNumber": 2, "ETag": '"0123456789abcdef0123456789abcdef"'}
    seen: list[Any] = [
        [(p["PartNumber"], p["Size"], p["ETag"]) for p in listed],
        [u["Key"] for u in c.list_multipart_uploads(Bucket="multipart")["Uploads"]],
        finish(first, parts[0], wrong),
        finish(first, *parts, IfNoneMatch="*"),
        answer(c.head_object, "ETag", "ContentLength", "ContentType", Bucket="multipart", Key="k"),
        hashlib.sha256(c.get_object(Bucket="multipart", Key="k")["Body"].read()).hexdigest(),
    ]
    second = begin()
    again = [part(second, 1, two)]
    seen.append(finish(second, *again, IfNoneMatch="*"))
    seen.append(answer(c.abort_multipart_upload, **second))
    small = begin("small")
    seen.append(finish(small, part(small, 1, two), part(small, 2, two)))
    seen.append(answer(c.abort_multipart_upload, **small))
    return seen


@pytest.mark.parametrize("scenario", [objects, listings, multipart])
def test_answers_as_moto_does(ours: Server, moto: Any, scenario: Any) -> None:
    answers = scenario(ours.client())
    assert answers == scenario(moto)
    assert len({str(one) for one in answers}) > 5, "the scenario sees nothing"


@pytest.mark.parametrize(
    ("keys", "code"),
    [(("NOBODY", "x"), "InvalidAccessKeyId"), ((WRITER[0], "wrong"), "SignatureDoesNotMatch")],
)
def test_wrong_credentials(ours: Server, keys: tuple[str, str], code: str) -> None:
    assert answer(ours.client(keys).list_objects_v2, Bucket="made") == (403, code)
    assert answer(ours.client(keys).put_object, Bucket="made", Key="k", Body=b"x" * 100_000) == (403, code)


def test_reader_may_not_write(ours: Server) -> None:
    reader = ours.client(READER)
    assert answer(reader.list_objects_v2, Bucket="made") == (200,)
    assert answer(reader.put_object, Bucket="made", Key="k", Body=b"") == (403, "AccessDenied")
    assert answer(reader.delete_object, Bucket="made", Key="k") == (403, "AccessDenied")
    assert answer(reader.create_multipart_upload, Bucket="made", Key="k") == (403, "AccessDenied")


def test_anonymous_is_refused(ours: Server) -> None:
    nobody = boto3.client(
        "s3", endpoint_url=f"http://127.0.0.1:{ours.port}", region_name="us-east-1",
        config=Config(signature_version=UNSIGNED),
    )  # fmt: skip
    assert answer(nobody.list_objects_v2, Bucket="made") == (403, "AccessDenied")


def test_damaged_body_is_refused(ours: Server) -> None:
    """A digest in the request that does not fit the bytes: nothing is written."""
    c = ours.client()
    wrong = c.put_object
    assert answer(wrong, Bucket="made", Key="bad", Body=b"hello", ChecksumSHA256="A" * 43 + "=") == (
        400,
        "BadDigest",
    )
    assert answer(wrong, Bucket="made", Key="bad", Body=b"hello", ContentMD5="A" * 22 + "==") == (
        400,
        "BadDigest",
    )
    assert answer(c.head_object, Bucket="made", Key="bad") == (404, "404")


def test_one_of_many_racing_conditional_writers_wins(ours: Server) -> None:
    statuses: list[int] = []

    def write(number: int) -> None:
        body = f"writer {number}".encode() * 10_000
        statuses.append(answer(ours.client().put_object, Bucket="made", Key="race", Body=body, IfNoneMatch="*")[0])

    threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200] + [412] * 7


def test_killed_server_has_everything_again(tmp_path: Path) -> None:
    with server(tmp_path) as made:
        c = made.client()
        c.put_object(Bucket="made", Key="kept", Body=b"kept", Metadata={"who": "me"}, ContentType="text/plain")
        c.put_object(Bucket="made", Key="gone", Body=b"gone")
        c.delete_object(Bucket="made", Key="gone")
        upload = c.create_multipart_upload(Bucket="made", Key="big")["UploadId"]
        one = c.upload_part(Bucket="made", Key="big", UploadId=upload, PartNumber=1, Body=b"1" * PART)
        made.kill()
        (tmp_path / "objects" / "data" / "orphan").write_bytes(b"of a write that was cut off")
        made.start()
        c = made.client()
        got = c.get_object(Bucket="made", Key="kept")
        assert (got["Body"].read(), got["Metadata"], got["ContentType"]) == (
            b"kept",
            {"who": "me"},
            "text/plain",
        )
        assert [o["Key"] for o in c.list_objects_v2(Bucket="made")["Contents"]] == ["kept"]
        two = c.upload_part(Bucket="made", Key="big", UploadId=upload, PartNumber=2, Body=b"2")
        parts = [{"PartNumber": 1, "ETag": one["ETag"]}, {"PartNumber": 2, "ETag": two["ETag"]}]
        arguments = {"Bucket": "made", "Key": "big", "UploadId": upload}
        c.complete_multipart_upload(**arguments, MultipartUpload={"Parts": parts})
        assert c.get_object(Bucket="made", Key="big")["Body"].read() == b"1" * PART + b"2"
        assert len(list((tmp_path / "objects" / "data").iterdir())) == 3, "kept, and two parts of big"


def test_reader_of_an_overwritten_object_gets_the_old_bytes(ours: Server) -> None:
    c = ours.client()
    c.put_object(Bucket="made", Key="swap", Body=b"a" * (8 * 1024 * 1024))
    body = c.get_object(Bucket="made", Key="swap")["Body"]
    first = body.read(1000)
    c.put_object(Bucket="made", Key="swap", Body=b"b")
    assert set(first + body.read()) == {ord("a")}


def test_memory_stays_bounded(ours: Server, tmp_path: Path) -> None:
    """An object of 128 MiB comes and goes within a few chunks of memory."""
    source = tmp_path / "big"
    with source.open("wb") as file:
        for _ in range(16):
            file.write(os.urandom(8 * 1024 * 1024))
    before = psutil.Process(ours.process.pid).memory_info().rss
    c = ours.client()
    with source.open("rb") as file:
        c.put_object(Bucket="made", Key="big", Body=file)
    c.upload_file(str(source), "made", "parts")
    for key in ("big", "parts"):
        c.download_file("made", key, str(tmp_path / key))
        assert (tmp_path / key).read_bytes() == source.read_bytes()
    assert psutil.Process(ours.process.pid).memory_info().rss - before < 64 * 1024 * 1024


def upload_of_two(c: Any, key: str, **metadata: str) -> dict[str, Any]:
    """An upload with two parts, and what completes it."""
    upload = c.create_multipart_upload(Bucket="made", Key=key, Metadata=metadata)["UploadId"]
    target = {"Bucket": "made", "Key": key, "UploadId": upload}
    parts = []
    for number, body in enumerate([b"1" * PART, b"2" * 10], 1):
        etag = c.upload_part(**target, PartNumber=number, Body=body)["ETag"]
        parts.append({"PartNumber": number, "ETag": etag})
    return {**target, "MultipartUpload": {"Parts": parts}}


def test_completing_an_upload_on_a_condition(ours: Server) -> None:
    c = ours.client()
    key = {"Bucket": "made", "Key": "conditions"}
    complete = c.complete_multipart_upload
    assert answer(complete, **upload_of_two(c, "conditions"), IfMatch='"0"') == (404, "NoSuchKey")
    etag = c.put_object(**key, Body=b"old")["ETag"]
    assert answer(complete, **upload_of_two(c, "conditions"), IfMatch='"0"') == (412, "PreconditionFailed")
    assert answer(complete, **upload_of_two(c, "conditions"), IfNoneMatch="*") == (412, "PreconditionFailed")
    assert c.get_object(**key)["Body"].read() == b"old"
    assert answer(complete, **upload_of_two(c, "conditions"), IfMatch=etag) == (200,)
    assert c.head_object(**key)["ContentLength"] == PART + 10


def test_parts_out_of_order_are_refused(ours: Server) -> None:
    c = ours.client()
    upload = upload_of_two(c, "order")
    upload["MultipartUpload"]["Parts"].reverse()
    assert answer(c.complete_multipart_upload, **upload) == (400, "InvalidPartOrder")


def test_ranges_across_parts_and_copies_of_them(ours: Server) -> None:
    c = ours.client()
    c.complete_multipart_upload(**upload_of_two(c, "source"))
    whole, key = b"1" * PART + b"2" * 10, {"Bucket": "made", "Key": "source"}
    assert c.get_object(**key, Range=f"bytes={PART - 2}-{PART + 1}")["Body"].read() == b"1122"
    c.copy_object(Bucket="made", Key="copy", CopySource=key)
    upload = {"Bucket": "made", "Key": "pieced"}
    upload["UploadId"] = c.create_multipart_upload(**upload)["UploadId"]
    copied = c.upload_part_copy(**upload, PartNumber=1, CopySource=key, CopySourceRange=f"bytes={PART - 3}-{PART + 2}")
    part = {"PartNumber": 1, "ETag": copied["CopyPartResult"]["ETag"]}
    c.complete_multipart_upload(**upload, MultipartUpload={"Parts": [part]})
    c.delete_object(**key)
    assert c.get_object(Bucket="made", Key="copy")["Body"].read() == whole
    assert c.get_object(Bucket="made", Key="pieced")["Body"].read() == b"111222"


def test_an_upload_is_as_old_as_it_is(ours: Server) -> None:
    c = ours.client()
    upload_of_two(c, "begun")
    found = c.list_multipart_uploads(Bucket="made", Prefix="begun")["Uploads"][0]
    assert abs((datetime.now(UTC) - found["Initiated"]).total_seconds()) < 60


def test_everything_about_an_object_survives(tmp_path: Path) -> None:
    with server(tmp_path) as made:
        c = made.client()
        c.complete_multipart_upload(**upload_of_two(c, "big", who="me", snake_case="kept"))
        c.put_object(Bucket="made", Key="small", Body=b"first")
        c.put_object(Bucket="made", Key="small", Body=b"second", ContentEncoding="x")
        c.copy_object(Bucket="made", Key="copy", CopySource={"Bucket": "made", "Key": "big"})
        c.create_bucket(Bucket="another")
        upload_of_two(c, "aborted")
        names = ("ETag", "LastModified", "ContentLength", "Metadata", "ContentEncoding", "ContentType")
        keys = ["big", "copy", "small"]
        before = [answer(c.head_object, *names, Bucket="made", Key=key) for key in keys]
        made.kill()
        made.start()
        c = made.client()
        assert [answer(c.head_object, *names, Bucket="made", Key=key) for key in keys] == before
        assert c.get_object(Bucket="made", Key="small")["Body"].read() == b"second"
        assert [b["Name"] for b in c.list_buckets()["Buckets"]] == ["another", "made"]
        aborted = c.list_multipart_uploads(Bucket="made")["Uploads"][0]
        c.abort_multipart_upload(Bucket="made", Key="aborted", UploadId=aborted["UploadId"])
        c.delete_objects(Bucket="made", Delete={"Objects": [{"Key": key} for key in keys]})
        assert not list((tmp_path / "objects" / "data").iterdir())
        assert not list((tmp_path / "objects" / "uploads").iterdir())
        assert not list((tmp_path / "objects" / "buckets" / "made").iterdir())


def test_refused_bodies_leave_no_data(tmp_path: Path) -> None:
    with server(tmp_path) as made:
        c = made.client()
        c.put_object(Bucket="made", Key="k", Body=b"kept")
        assert answer(c.put_object, Bucket="made", Key="k", Body=b"new", IfNoneMatch="*")[0] == 412
        assert answer(c.put_object, Bucket="nobody", Key="k", Body=b"new") == (404, "NoSuchBucket")
        assert answer(c.put_object, Bucket="made", Key="k", Body=b"new", ContentMD5="A" * 22 + "==")[0] == 400
        assert len(list((tmp_path / "objects" / "data").iterdir())) == 1


def test_ends_with_its_parent(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "120"]) as parent, server(tmp_path, "--parent", str(parent.pid)) as made:
        assert answer(made.client().list_buckets) == (200,)
        parent.kill()
        parent.wait()
        assert made.process.wait(timeout=60) == 0


def test_unknown_upload(ours: Server) -> None:
    upload = {"Bucket": "made", "Key": "k", "UploadId": "none"}
    assert answer(ours.client().upload_part, **upload, PartNumber=1, Body=b"") == (404, "NoSuchUpload")
    assert answer(ours.client().abort_multipart_upload, **upload) == (404, "NoSuchUpload")


def test_unknown_operation_is_refused_and_not_guessed(ours: Server) -> None:
    with pytest.raises(ClientError, match="NotImplemented"):
        ours.client().put_bucket_versioning(Bucket="made", VersioningConfiguration={"Status": "Enabled"})
    with pytest.raises(ClientError, match="NotImplemented"):
        ours.client().put_object_tagging(Bucket="made", Key="k", Tagging={"TagSet": []})
