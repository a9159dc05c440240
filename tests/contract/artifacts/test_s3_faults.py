"""What goes wrong between a pod and S3, over the wire: each fault ends well or as the right error."""

from __future__ import annotations

import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from werkzeug.wrappers import Response

from contract.artifacts.conftest import artifacts_of
from contract.artifacts.faulty_s3 import Environ, Fault, FaultyS3, S3Server, error, ignore_conditions, refuse_conditions
from srlm_contract.artifacts.commits import Produced
from srlm_contract.artifacts.s3 import S3Store
from srlm_contract.artifacts.s3_transfer import TransferSettings
from srlm_contract.errors import (
    ArtifactDamaged,
    BucketNotFound,
    InvalidTask,
    NotFound,
    NotPermitted,
    PreconditionFailed,
    StoreError,
    Temporary,
)
from srlm_contract.spec.storage import Place

OpenS3 = Callable[..., S3Store]
MIB = 2**20


@pytest.fixture
def store(open_s3: OpenS3) -> S3Store:
    return open_s3()


@pytest.mark.parametrize(
    ("status", "code", "expected", "says"),
    [
        (403, "InvalidAccessKeyId", NotPermitted, "credentials are refused"),
        (403, "SignatureDoesNotMatch", NotPermitted, "credentialsSecretRef"),
        (400, "ExpiredToken", NotPermitted, "credentials are refused"),
        (403, "AccessDenied", NotPermitted, "the right is missing"),
        (404, "NoSuchBucket", BucketNotFound, "create it or correct storage.uri"),
        (403, "RequestTimeTooSkewed", Temporary, "clock"),
        (503, "SlowDown", Temporary, "SlowDown"),
        (500, "InternalError", Temporary, "InternalError"),
        (507, "XMinioStorageFull", Temporary, "full"),
        (400, "BadDigest", Temporary, "BadDigest"),
    ],
)
@pytest.mark.parametrize("call", ["get", "put", "list", "download", "delete", "upload"])
def test_answers_become_our_errors(
    open_s3: OpenS3, s3: FaultyS3, tmp_path: Path,
    status: int, code: str, expected: type[StoreError], says: str, call: str,
) -> None:  # fmt: skip
    store = open_s3(attempts=1)
    store.put("key", b"x" * 10)
    (tmp_path / "big").write_bytes(b"x" * (6 * MIB))
    # A HEAD has no body, so its code is lost on the wire; the GET or PUT of the same call must tell.
    s3.faults = [Fault(m, "", error(status, code)) for m in ("GET", "PUT", "POST")]
    calls: dict[str, Callable[[], object]] = {
        "get": lambda: store.get("key"),
        "put": lambda: store.put("key", b"new"),
        "list": lambda: list(store.list_objects("")),
        "download": lambda: store.download_file("key", tmp_path / "got"),
        "delete": lambda: store.delete(["key"]),
        "upload": lambda: store.upload_file(tmp_path / "big", "big"),
    }
    with pytest.raises(expected, match=says) as caught:
        calls[call]()
    assert f"s3://{store.bucket}" in str(caught.value)


def test_exit_codes(open_s3: OpenS3, s3: FaultyS3) -> None:
    store = open_s3(attempts=1)
    for status, code, exit_code in [
        (403, "AccessDenied", 77),
        (404, "NoSuchBucket", 77),
        (503, "SlowDown", 75),
    ]:
        s3.faults = [Fault("GET", "key", error(status, code))]
        with pytest.raises(StoreError) as caught:
            store.get("key")
        assert caught.value.exit_code == exit_code


def test_bucket_that_does_not_exist(server: S3Server) -> None:
    store = S3Store.open(Place(uri="s3://never-created/prefix", endpoint_url=server.url))
    with pytest.raises(BucketNotFound, match="s3://never-created/prefix"):
        store.probe()
    with pytest.raises(BucketNotFound):
        list(store.list_objects(""))


def test_bucket_in_another_region(open_s3: OpenS3, s3: FaultyS3) -> None:
    s3.faults = [Fault("PUT", "key", error(400, "AuthorizationHeaderMalformed", x_amz_bucket_region="eu-west-1"))]
    store = open_s3(attempts=1)
    with pytest.raises((BucketNotFound, Temporary), match=r"region eu-west-1|AuthorizationHeaderMalformed"):
        store.put("key", b"")


def redirect(status: int) -> Callable[[Environ], Response]:
    """What a web server in front of the store says to http."""
    page = "<html><body>moved</body></html>"
    return lambda environ: Response(page, status, {"Location": "https://s3.example.com/bucket/key"}, "text/html")


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("call", ["probe", "get", "head", "list"])
def test_endpoint_that_sends_elsewhere(open_s3: OpenS3, s3: FaultyS3, status: int, call: str) -> None:
    store = open_s3()
    s3.requests.clear()
    s3.quirks = (redirect(status),)
    calls: dict[str, Callable[[], object]] = {
        "probe": store.probe,
        "get": lambda: store.get("key"),
        "head": lambda: store.head("key"),
        "list": lambda: list(store.list_objects("")),
    }
    with pytest.raises(BucketNotFound, match=r"sends to https://s3\.example\.com.*storage\.endpointUrl") as caught:
        calls[call]()
    assert caught.value.exit_code == 77
    assert len(s3.requests) == 1


@pytest.mark.parametrize("size", [10, 6 * MIB])
@pytest.mark.parametrize("page", ["", "<html><body>404 page not found</body></html>"])
def test_endpoint_that_is_no_store(open_s3: OpenS3, s3: FaultyS3, tmp_path: Path, page: str, size: int) -> None:
    store = open_s3()
    s3.quirks = (lambda environ: Response(page, 404, mimetype="text/html"),)
    (tmp_path / "file").write_bytes(b"x" * size)
    with pytest.raises(BucketNotFound, match=r"correct storage\.endpointUrl") as caught:
        store.upload_file(tmp_path / "file", "file")
    assert (caught.value.exit_code, caught.value.reason) == (77, "StorageNotFound")
    with pytest.raises(BucketNotFound):
        list(store.list_objects(""))


@pytest.mark.parametrize("call", ["head", "download", "range"])
def test_credentials_that_have_run_out_are_told_by_a_head(
    open_s3: OpenS3, s3: FaultyS3, tmp_path: Path, call: str
) -> None:
    store = open_s3(attempts=1)
    store.put("key", b"1")
    s3.quirks = (error(400, "ExpiredToken"),)
    calls: dict[str, Callable[[], object]] = {
        "head": lambda: store.head("key"),
        "download": lambda: store.download_file("key", tmp_path / "got"),
        "range": lambda: store.get_range("key", 0, 1),
    }
    with pytest.raises(NotPermitted, match="credentials are refused") as caught:
        calls[call]()
    assert caught.value.exit_code == 77


def test_no_right_to_write(open_s3: OpenS3, s3: FaultyS3) -> None:
    s3.faults = [Fault("PUT", "", error(403, "AccessDenied"))]
    with pytest.raises(NotPermitted, match="cannot write"):
        open_s3().probe()


def test_no_right_to_delete(open_s3: OpenS3, s3: FaultyS3) -> None:
    s3.faults = [Fault("POST", "delete", error(403, "AccessDenied"))]
    with pytest.raises(NotPermitted, match="cannot delete"):
        open_s3().probe()


def test_unreachable_endpoint() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    store = S3Store.open(Place(uri="s3://bucket", endpoint_url=f"http://127.0.0.1:{port}"), attempts=1)
    with pytest.raises(Temporary, match=r"check storage.endpointUrl"):
        store.put("key", b"")


def test_something_that_is_no_s3(open_s3: OpenS3, s3: FaultyS3) -> None:
    page = Response("<html></html>", 200, mimetype="text/html")
    s3.faults = [Fault(method, "", lambda environ: page) for method in ("GET", "PUT", "POST", "HEAD")]
    with pytest.raises(Temporary, match=r"check storage\.endpointUrl"):
        open_s3(attempts=1).probe()


def test_no_credentials(server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(NotPermitted, match=r"no usable credentials"):
        S3Store.open(Place(uri="s3://bucket", endpoint_url=server.url)).put("key", b"")


@pytest.mark.parametrize("uri", ["bucket/prefix", "s3:/bucket", "s3://", "http://bucket", "s3:///prefix"])
def test_locations_that_are_none(uri: str) -> None:
    with pytest.raises(InvalidTask, match="s3://bucket"):
        S3Store.open(Place(uri=uri))


def test_endpoint_that_is_no_url() -> None:
    with pytest.raises(InvalidTask, match=r"storage\.endpointUrl"):
        S3Store.open(Place(uri="s3://bucket", endpoint_url="minio:9000"))


def test_location_without_prefix(server: S3Server) -> None:
    store = S3Store.open(Place(uri="s3://plain/", endpoint_url=server.url, addressing_style="Path"))
    store.client.create_bucket(Bucket="plain")
    store.put("key", b"1")
    assert store.uri("key") == "s3://plain/key"
    assert [info.key for info in store.list_objects("")] == ["key"]


def test_temporary_errors_are_tried_again(open_s3: OpenS3, s3: FaultyS3, tmp_path: Path) -> None:
    store = open_s3(attempts=2)
    (tmp_path / "big").write_bytes(b"0123456789abcdef" * (MIB // 2))
    s3.faults = [
        Fault("PUT", "partNumber=1", error(503, "SlowDown"), times=1),
        Fault("GET", "big", error(503, "SlowDown"), times=1),
        Fault("HEAD", "big", error(503, "SlowDown"), times=1),
    ]
    sent = store.upload_file(tmp_path / "big", "big")
    assert store.download_file("big", tmp_path / "got") == sent


def test_answers_that_end_early_are_continued(open_s3: OpenS3, s3: FaultyS3, tmp_path: Path) -> None:
    store = open_s3()
    data = bytes(range(256)) * (12 * 4096)  # 12 MiB: three parts
    (tmp_path / "big").write_bytes(data)
    sent = store.upload_file(tmp_path / "big", "big")
    cut = Fault("GET", "big", change=lambda body: body[: len(body) // 2], times=4)
    s3.faults = [cut]
    assert store.download_file("big", tmp_path / "got") == sent
    assert (tmp_path / "got").read_bytes() == data
    assert cut.seen > 3
    s3.faults = [Fault("GET", "big", change=lambda body: body[:100], times=1)]
    assert store.get("big").data == data


def test_answers_that_always_end_early(open_s3: OpenS3, s3: FaultyS3, tmp_path: Path) -> None:
    store = open_s3()
    store.put("key", b"0123456789")
    s3.faults = [Fault("GET", "key", change=lambda body: b"")]
    with pytest.raises(Temporary, match="kept ending early"):
        store.download_file("key", tmp_path / "got")
    with pytest.raises(Temporary, match="kept ending early"):
        store.get("key")


def test_a_bit_flipped_on_the_way_is_fetched_again(open_s3: OpenS3, s3: FaultyS3, tmp_path: Path) -> None:
    artifacts = artifacts_of(open_s3(), tmp_path)
    (tmp_path / "rows").write_bytes(b"0123456789")
    ref = artifacts.commit("generate", "abcdef01", Produced({"rows.jsonl": tmp_path / "rows"})).manifest.ref
    flip = Fault("GET", "rows.jsonl", change=lambda body: b"\xff" + body[1:], times=1)
    s3.faults = [flip]
    artifacts.fetch(ref, tmp_path / "got")
    assert (tmp_path / "got" / "rows.jsonl").read_bytes() == b"0123456789"
    assert flip.seen == 2
    s3.faults = [Fault("GET", "rows.jsonl", change=lambda body: b"\xff" + body[1:])]
    with pytest.raises(ArtifactDamaged, match="SHA-256"):
        artifacts.fetch(ref, tmp_path / "again")


def test_a_failing_upload_is_dropped(open_s3: OpenS3, s3: FaultyS3, tmp_path: Path) -> None:
    store = open_s3(attempts=1)
    (tmp_path / "big").write_bytes(b"x" * (11 * MIB))
    s3.faults = [Fault("PUT", "partNumber=2", error(500, "InternalError"))]
    with pytest.raises(Temporary):
        store.upload_file(tmp_path / "big", "big")
    assert store.head("big") is None
    uploads = store.client.list_multipart_uploads(Bucket=store.bucket).get("Uploads", [])
    assert uploads == []


def test_unfinished_uploads_are_aborted_by_age(open_s3: OpenS3) -> None:
    store = open_s3()
    for key in ("artifacts/a", "elsewhere/b"):
        store.client.create_multipart_upload(Bucket=store.bucket, Key=f"some/prefix/{key}")
    now = datetime.now(UTC)
    assert store.abort_uploads("artifacts/", now - timedelta(days=365 * 50)) == 0
    assert store.abort_uploads("artifacts/", now + timedelta(days=1)) == 1
    assert store.abort_uploads("", now + timedelta(days=1)) == 1


def test_object_that_changes_while_it_is_read(open_s3: OpenS3, s3: FaultyS3, tmp_path: Path) -> None:
    store = open_s3()
    (tmp_path / "big").write_bytes(b"x" * (11 * MIB))
    store.upload_file(tmp_path / "big", "big")
    s3.faults = [Fault("GET", "big", error(412, "PreconditionFailed"), after=1)]
    with pytest.raises(Temporary, match="changed while it was read"):
        store.download_file("big", tmp_path / "got")


def test_complete_whose_answer_got_lost(open_s3: OpenS3, s3: FaultyS3, tmp_path: Path) -> None:
    store = open_s3()
    (tmp_path / "big").write_bytes(b"x" * (6 * MIB))
    sent = store.upload_file(tmp_path / "big", "big")
    # The first request went through and its answer got lost: the second one finds no upload.
    s3.faults = [Fault("POST", "uploadId", error(404, "NoSuchUpload"))]
    assert store.upload_file(tmp_path / "big", "big") == sent


def test_put_whose_answer_got_lost_still_wins(open_s3: OpenS3, s3: FaultyS3, tmp_path: Path) -> None:
    store = open_s3(conditional=True)
    artifacts = artifacts_of(store, tmp_path)
    (tmp_path / "rows").write_bytes(b"rows")

    def lose_answer(environ: dict[str, object]) -> Response:
        s3.real(environ)
        return error(500, "InternalError")(environ)

    s3.faults = [Fault("PUT", "manifest.json", lose_answer, times=1)]
    done = artifacts.commit("generate", "abcdef01", Produced({"rows.jsonl": tmp_path / "rows"}))
    assert done.won
    artifacts.fetch(done.manifest.ref, tmp_path / "got")


def test_conflicting_writes_are_sent_again(open_s3: OpenS3, s3: FaultyS3) -> None:
    s3.faults = [Fault("PUT", "key", error(409, "ConditionalRequestConflict"), times=2)]
    store = open_s3()
    store.put("key", b"1", if_none_match=True)
    assert store.get("key").data == b"1"


@pytest.mark.parametrize("behaviour", [ignore_conditions, refuse_conditions])
class TestWithoutConditionalPuts:
    """Check-then-put: weaker, but right unless two writers meet within one round trip."""

    @pytest.fixture(autouse=True)
    def _behave(self, s3: FaultyS3, behaviour: Callable[..., Response | None]) -> None:
        s3.faults = [Fault(method, "", behaviour) for method in ("PUT", "POST")]

    def test_probe_finds_out(self, open_s3: OpenS3) -> None:
        store = open_s3()
        assert not store.probe().conditional
        assert store.conditional is False
        assert list(store.list_objects("")) == []

    @pytest.mark.parametrize("known", [None, False])
    def test_later_writers_still_lose(self, open_s3: OpenS3, known: bool | None, tmp_path: Path) -> None:
        store = open_s3(conditional=known)
        etag = store.put("key", b"first", if_none_match=True).etag
        with pytest.raises(PreconditionFailed):
            store.put("key", b"second", if_none_match=True)
        store.put("key", b"third", if_match=etag)
        with pytest.raises(PreconditionFailed):
            store.put("key", b"fourth", if_match=etag)
        assert store.get("key").data == b"third"
        (tmp_path / "big").write_bytes(b"x" * (6 * MIB))
        store.upload_file(tmp_path / "big", "big", if_none_match=True)
        with pytest.raises(PreconditionFailed):
            store.upload_file(tmp_path / "big", "big", if_none_match=True)

    def test_artifacts_work(self, open_s3: OpenS3, tmp_path: Path) -> None:
        store = open_s3()
        (tmp_path / "rows").write_bytes(b"rows")
        first = artifacts_of(store, tmp_path, "pod-a").commit(
            "generate", "abcdef01", Produced({"rows": tmp_path / "rows"})
        )
        second = artifacts_of(store, tmp_path, "pod-b").commit(
            "generate", "abcdef01", Produced({"rows": tmp_path / "rows"})
        )
        assert (first.won, second.won) == (True, False)
        assert second.manifest == first.manifest


def test_part_sizes() -> None:
    settings = TransferSettings(part_bytes=16 * MIB)
    assert settings.part_size(0) == 16 * MIB
    assert settings.part_size(160_000 * MIB) == 16 * MIB
    large = settings.part_size(5 * 2**40)
    assert 5 * 2**40 / large <= 10_000


def test_one_request_for_a_small_object(open_s3: OpenS3, s3: FaultyS3) -> None:
    store = open_s3(conditional=True)
    s3.requests.clear()
    store.put("key", b"1", if_none_match=True)
    store.get("key")
    assert [request.split()[0] for request in s3.requests] == ["PUT", "GET"]


def test_store_is_shared_by_threads(open_s3: OpenS3, tmp_path: Path) -> None:
    store = open_s3()

    def round_trip(number: int) -> bool:
        (tmp_path / f"in-{number}").write_bytes(b"%d" % number * 1000)
        sent = store.upload_file(tmp_path / f"in-{number}", f"key-{number}")
        return store.download_file(f"key-{number}", tmp_path / f"out-{number}") == sent

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(round_trip, range(24)))


def test_not_found_is_named(open_s3: OpenS3, tmp_path: Path) -> None:
    store = open_s3()
    with pytest.raises(NotFound, match=rf"s3://{store.bucket}/some/prefix/none does not exist"):
        store.download_file("none", tmp_path / "got")
