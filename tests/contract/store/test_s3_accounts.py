"""Real refusals of a server that checks signatures and rights."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from srlm_contract.errors import BucketNotFound, NotPermitted
from srlm_contract.s3 import S3Store

OpenS3 = Callable[..., S3Store]


def test_wrong_secret(open_local: OpenS3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(NotPermitted, match="SignatureDoesNotMatch"):
        open_local().probe()


def test_unknown_key(open_local: OpenS3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "unknown")
    with pytest.raises(NotPermitted, match="InvalidAccessKeyId"):
        open_local().probe()


def test_read_only(open_local: OpenS3, monkeypatch: pytest.MonkeyPatch) -> None:
    open_local().put("key", b"1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "reader")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "reader")
    store = open_local()
    assert store.get("key").data == b"1"
    with pytest.raises(NotPermitted, match="cannot write") as caught:
        store.probe()
    assert (caught.value.exit_code, caught.value.reason) == (77, "StorageNotPermitted")


def test_wrong_bucket(local_server: str) -> None:
    with pytest.raises(BucketNotFound, match="s3://another") as caught:
        S3Store.from_location("s3://another", endpoint_url=local_server).probe()
    assert (caught.value.exit_code, caught.value.reason) == (77, "StorageNotFound")


def test_secrets_are_in_no_message(open_local: OpenS3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret-value")
    with pytest.raises(NotPermitted) as caught:
        open_local().probe()
    assert "very-secret-value" not in str(caught.value)
