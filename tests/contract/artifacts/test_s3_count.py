"""Requests that the store fails or refuses are counted, try by try; what belongs to the protocol is not."""

from __future__ import annotations

import os
import socket
import uuid
from pathlib import Path

import pytest

from contract.artifacts.faulty_s3 import Fault, FaultyS3, S3Server, error, refuse_conditions
from srlm_contract.artifacts.s3 import S3Store
from srlm_contract.artifacts.s3_count import RequestErrors
from srlm_contract.artifacts.s3_transfer import TransferSettings
from srlm_contract.errors import NotFound, NotPermitted, PreconditionFailed, Temporary
from srlm_contract.spec.storage import Place

MIB = 2**20


@pytest.fixture
def errors() -> RequestErrors:
    return RequestErrors()


@pytest.fixture
def store(server: S3Server, s3: FaultyS3, errors: RequestErrors) -> S3Store:
    """A client of its own: a listener stays with its client."""
    bucket = f"bucket-{uuid.uuid4().hex[:12]}"
    fast = TransferSettings(part_bytes=5 * MIB, workers=2, backoff_seconds=0)
    found = S3Store.open(
        Place(uri=f"s3://{bucket}/x", endpoint_url=server.url), transfer=fast, attempts=3, errors=errors
    )
    found.client.create_bucket(Bucket=bucket)
    return found


def test_a_healthy_store_has_none(store: S3Store, errors: RequestErrors, tmp_path: Path) -> None:
    store.put("key", b"1")
    file = tmp_path / "file"
    file.write_bytes(os.urandom(11 * MIB))
    store.upload_file(file, "file")
    store.download_file("file", tmp_path / "again")
    with pytest.raises(NotFound):
        store.get("missing")
    assert store.head("missing") is None
    with pytest.raises(PreconditionFailed):
        store.put("key", b"2", if_none_match=True)
    store.delete(["key", "missing"])
    assert errors.count == 0


def test_a_store_without_conditional_puts_is_not_a_failing_one(
    store: S3Store, s3: FaultyS3, errors: RequestErrors
) -> None:
    s3.faults = [Fault("PUT", "", refuse_conditions)]
    store.put("key", b"1", if_none_match=True)
    assert errors.count == 0


def test_errors_that_a_retry_mends_count(store: S3Store, s3: FaultyS3, errors: RequestErrors) -> None:
    s3.faults = [Fault("PUT", "key", error(503, "SlowDown"), times=2)]
    store.put("key", b"1")
    assert errors.count == 2
    assert store.get("key").data == b"1"


def test_errors_that_end_a_stage_count(store: S3Store, s3: FaultyS3, errors: RequestErrors) -> None:
    s3.faults = [Fault("GET", "key", error(500, "InternalError"))]
    with pytest.raises(Temporary):
        store.get("key")
    assert errors.count == 3, "every try"
    s3.faults = [Fault("PUT", "key", error(403, "AccessDenied"))]
    with pytest.raises(NotPermitted):
        store.put("key", b"")
    assert errors.count == 4


def test_answers_that_break_off_count(store: S3Store, s3: FaultyS3, errors: RequestErrors, tmp_path: Path) -> None:
    store.put("key", b"x" * 1000)
    s3.faults = [Fault("GET", "key", change=lambda body: body[:10], times=1)]
    assert store.get("key").data == b"x" * 1000
    assert errors.count == 1
    s3.faults = [Fault("GET", "key", change=lambda body: body[:10], times=1)]
    store.download_file("key", tmp_path / "file")
    assert errors.count == 2


def test_connections_that_fail_count(errors: RequestErrors) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
    store = S3Store.open(Place(uri="s3://bucket", endpoint_url=address), attempts=2, errors=errors)
    with pytest.raises(Temporary):
        store.get("key")
    assert errors.count == 2
