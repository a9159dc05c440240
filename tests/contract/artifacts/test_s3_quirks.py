"""Stores that do not do all that S3 does: what they can is used, and what they lack is said once and done without."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from botocore.awsrequest import AWSPreparedRequest
from werkzeug.wrappers import Response

from contract.artifacts import quirks
from contract.artifacts.conftest import artifacts_of
from contract.artifacts.faulty_s3 import Environ, Fault, FaultyS3, ignore_conditions, refuse_conditions
from srlm_contract.artifacts.commits import Produced
from srlm_contract.artifacts.layout import manifest_key
from srlm_contract.artifacts.retention import add_refs, delete_orphans, read_refs
from srlm_contract.artifacts.s3 import S3Store
from srlm_contract.errors import PreconditionFailed, Temporary, Unsupported
from srlm_contract.tasks import ArtifactRef, RunIdentity

OpenS3 = Callable[..., S3Store]
MIB = 2**20
LATER = datetime.now(UTC) + timedelta(days=1)


def what_if_match_is_for(store: S3Store, folder: Path) -> None:
    """Replacing one version of an object: plainly, by repairing an artifact, by recording what runs use."""
    old = store.put("key", b"first").etag
    store.put("key", b"second", if_match=old)
    with pytest.raises(PreconditionFailed):
        store.put("key", b"third", if_match=old)
    assert store.get("key").data == b"second"

    (folder / "rows").write_bytes(b"rows")
    artifacts_of(store, folder, "pod-a").commit("generate", "abcdef01", Produced({"rows": folder / "rows"}))
    store.put(manifest_key("generate", "abcdef01"), b"damaged")
    second = artifacts_of(store, folder, "pod-b")
    assert second.already("generate", "abcdef01", repair=True) is None
    repaired = second.commit("generate", "abcdef01", Produced({"rows": folder / "rows"}), repair=True)
    assert repaired.won
    assert second.lookup("generate", "abcdef01") == repaired.manifest

    run = RunIdentity(namespace="training", name="run", uid="uid")
    refs = [ArtifactRef(stage="generate", key=f"abcdef0{n}", content_digest=f"sha256:{n:064}") for n in range(3)]
    for ref in refs:
        add_refs(store, run, [ref])
    assert read_refs(store, "training", "run").runs == {"uid": tuple(refs)}


@pytest.mark.parametrize(
    ("quirk", "conditional", "if_match", "warning"),
    [
        (lambda environ: None, True, "Quoted", None),
        (quirks.unquoted_if_match, True, "Unquoted", None),
        (quirks.ignored_if_match, True, "Unsupported", "does not honour If-Match"),
        (quirks.refused_if_match, True, "Unsupported", "does not honour If-Match"),
        (ignore_conditions, False, "Quoted", "If-None-Match"),
        (refuse_conditions, False, "Quoted", "If-None-Match"),
        (quirks.conditions_are_bad_requests, False, "Quoted", "If-None-Match"),
        (quirks.conditions_always_conflict, False, "Quoted", "If-None-Match"),
    ],
)
def test_conditional_puts(
    open_s3: OpenS3, s3: FaultyS3, tmp_path: Path,
    quirk: quirks.Quirk, conditional: bool, if_match: str, warning: str | None,
) -> None:  # fmt: skip
    s3.quirks = (quirk,)
    store = open_s3()
    found = store.probe()
    assert (found.conditional, found.if_match) == (conditional, if_match)
    assert [warning in text for text in found.warnings] == ([] if warning is None else [True])
    assert list(store.list_objects("")) == [], "the probe leaves nothing behind"
    what_if_match_is_for(store, tmp_path)


def test_what_the_probe_found_is_enough(open_s3: OpenS3, s3: FaultyS3, tmp_path: Path) -> None:
    """Other pods do not probe: they are told."""
    s3.quirks = (quirks.unquoted_if_match,)
    store = open_s3(conditional=True, if_match="Unquoted")
    what_if_match_is_for(store, tmp_path)
    s3.requests.clear()
    store.put("key", b"new", if_match=store.put("key", b"old").etag)
    assert [request.split()[0] for request in s3.requests] == ["PUT", "PUT"], "the server decides"


def test_unquoted_etags_are_found_out_without_a_probe(open_s3: OpenS3, s3: FaultyS3, tmp_path: Path) -> None:
    s3.quirks = (quirks.unquoted_if_match,)
    store = open_s3()
    what_if_match_is_for(store, tmp_path)
    assert store.if_match == "Unquoted"


@pytest.mark.parametrize(
    "quirk",
    [
        quirks.deletion_wants_md5,
        quirks.checked_md5,
        quirks.no_new_checksums,
        quirks.without_batch_deletion(501, "NotImplemented"),
        quirks.without_batch_deletion(405, "MethodNotAllowed"),
        quirks.without_batch_deletion(404, "NoSuchKey"),
        quirks.without_batch_deletion(400, "InvalidRequest"),
    ],
)
def test_stores_of_all_ages_write_and_delete(
    open_s3: OpenS3, s3: FaultyS3, tmp_path: Path, quirk: quirks.Quirk
) -> None:
    s3.quirks = (quirk,)
    store = open_s3()
    assert store.probe().warnings == ()
    (tmp_path / "big").write_bytes(b"x" * (6 * MIB))
    sent = store.upload_file(tmp_path / "big", "big")
    assert store.download_file("big", tmp_path / "got") == sent
    for key in ("a", "b & c", "ü"):
        store.put(key, b"")
    store.delete(["a", "b & c", "ü", "never"])
    assert [info.key for info in store.list_objects("")] == ["big"]


@pytest.mark.parametrize(
    ("status", "code"),
    [(501, "NotImplemented"), (405, "MethodNotAllowed"), (404, "NoSuchKey"), (403, "AccessDenied"), (400, "Bad")],
)
def test_without_a_listing_of_uploads(open_s3: OpenS3, s3: FaultyS3, tmp_path: Path, status: int, code: str) -> None:
    s3.quirks = (quirks.without_upload_listing(status, code),)
    store = open_s3()
    assert ["lifecycle rules" in text for text in store.probe().warnings] == [True]
    with pytest.raises(Unsupported):
        store.abort_uploads("", LATER)
    (tmp_path / "rows").write_bytes(b"rows")
    artifacts_of(store, tmp_path).commit("generate", "abcdef01", Produced({"rows": tmp_path / "rows"}))
    store.put("artifacts/generate/abcdef01/parts/late-pod/rows", b"orphan")
    said: list[str] = []
    assert delete_orphans(store, LATER, warn=said.append) == 1, "the rest of the clean-up is done"
    assert ["ListMultipartUploads" in text for text in said] == [True]


def test_uploads_of_others_stay_where_the_prefix_is_not_heeded(open_s3: OpenS3, s3: FaultyS3) -> None:
    store = open_s3()
    store.client.create_multipart_upload(Bucket=store.bucket, Key="another/prefix/artifacts/a")
    store.client.create_multipart_upload(Bucket=store.bucket, Key="some/prefix/artifacts/b")

    def forget(environ: Environ) -> None:
        if "uploads" in environ["QUERY_STRING"].split("&"):
            environ["QUERY_STRING"] = "uploads"

    s3.quirks = (forget,)
    assert store.abort_uploads("artifacts/", LATER) == 1
    left = store.client.list_multipart_uploads(Bucket=store.bucket)["Uploads"]
    assert [upload["Key"] for upload in left] == ["another/prefix/artifacts/a"]


@pytest.mark.parametrize("size", [10, 6 * MIB])
def test_uploads_damaged_on_the_way_are_sent_again(open_s3: OpenS3, s3: FaultyS3, tmp_path: Path, size: int) -> None:
    store = open_s3()
    (tmp_path / "file").write_bytes(b"x" * size)
    s3.quirks = (quirks.FlippedBit("file"), quirks.checked_md5)
    sent = store.upload_file(tmp_path / "file", "file")
    assert store.download_file("file", tmp_path / "got") == sent
    s3.quirks = (quirks.FlippedBit("file", times=1000), quirks.checked_md5)
    with pytest.raises(Temporary, match="damaged on the way"):
        store.upload_file(tmp_path / "file", "file")


@pytest.mark.parametrize("size", [10, 6 * MIB])
def test_a_real_store_refuses_damaged_uploads(open_seaweed: OpenS3, tmp_path: Path, size: int) -> None:
    """SeaweedFS compares no other digest: without Content-MD5 the damaged bytes would be stored."""
    store = open_seaweed()
    (tmp_path / "file").write_bytes(b"x" * size)
    damaged: list[str] = []

    def flip(request: AWSPreparedRequest, **_: object) -> None:
        if request.method == "PUT" and not damaged:
            damaged.append(request.url)
            body = request.body if isinstance(request.body, bytes | bytearray) else request.body.read()
            request.body = b"y" + bytes(body)[1:]

    store.client.meta.events.register("before-send.s3", flip)
    try:
        sent = store.upload_file(tmp_path / "file", "file")
    finally:
        store.client.meta.events.unregister("before-send.s3", flip)
    assert len(damaged) == 1
    assert store.download_file("file", tmp_path / "got") == sent


def test_every_upload_says_its_md5(open_s3: OpenS3, s3: FaultyS3, tmp_path: Path) -> None:
    told: list[tuple[str, bool]] = []

    def look(environ: Environ) -> None:
        if environ["REQUEST_METHOD"] == "PUT" or quirks.is_deletion(environ):
            told.append((environ["REQUEST_METHOD"], "HTTP_CONTENT_MD5" in environ))

    store = open_s3()
    s3.quirks = (look,)
    store.put("key", b"1")
    (tmp_path / "big").write_bytes(b"x" * (6 * MIB))
    store.upload_file(tmp_path / "big", "big")
    store.delete(["key"])
    assert told == [("PUT", True)] * 3 + [("POST", True)]


class Meeting:
    """Lets two requests of a kind go on only when both have been answered by the server."""

    def __init__(self, s3: FaultyS3, method: str) -> None:
        self.s3 = s3
        self.method = method
        self.barrier = threading.Barrier(2, timeout=20)

    def __call__(self, environ: Environ) -> Response | None:
        if environ["REQUEST_METHOD"] != self.method:
            return None
        answer = self.s3.real(environ)
        self.barrier.wait()
        return answer


def test_of_two_racing_writers_one_wins_on_a_store_without_conditions(open_s3: OpenS3, s3: FaultyS3) -> None:
    """Both find no object, both put: who then does not find its own has lost."""
    looked, put = Meeting(s3, "HEAD"), Meeting(s3, "PUT")
    s3.faults = [Fault("HEAD", "key", looked, times=2), Fault("PUT", "key", put)]

    def attempt(number: int) -> bool:
        try:
            open_s3(conditional=False).put("key", b"writer %d" % number, if_none_match=True)
        except PreconditionFailed:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        won = list(pool.map(attempt, range(2)))
    assert won.count(True) == 1
    assert open_s3().get("key").data == b"writer %d" % won.index(True)


def test_racing_commits_agree_on_a_store_without_conditions(open_s3: OpenS3, s3: FaultyS3, tmp_path: Path) -> None:
    looked, put = Meeting(s3, "HEAD"), Meeting(s3, "PUT")
    s3.faults = [Fault("HEAD", "manifest.json", looked, times=2), Fault("PUT", "manifest.json", put)]
    (tmp_path / "rows").write_bytes(b"rows")

    def commit(uid: str) -> tuple[bool, str]:
        artifacts = artifacts_of(open_s3(conditional=False), tmp_path, uid)
        done = artifacts.commit("generate", "abcdef01", Produced({"rows": tmp_path / "rows"}))
        return done.won, done.manifest.producer.pod_uid

    with ThreadPoolExecutor(2) as pool:
        (first, by_first), (second, by_second) = pool.map(commit, ["pod-a", "pod-b"])
    assert {first, second} == {True, False}
    assert by_first == by_second, "the loser reports what stands"
