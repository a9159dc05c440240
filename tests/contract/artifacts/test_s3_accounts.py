"""Real refusals of a server that checks signatures and rights."""

from __future__ import annotations

import pytest

from srlm_contract.artifacts.s3 import S3Store
from srlm_contract.errors import BucketNotFound, NotPermitted
from srlm_contract.spec.storage import Place


def open_as(url: str) -> S3Store:
    """With the credentials of this moment."""
    return S3Store.open(Place(uri="s3://real/accounts", endpoint_url=url))


def test_wrong_secret(seaweed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(NotPermitted, match="SignatureDoesNotMatch"):
        open_as(seaweed).probe()


def test_unknown_key(seaweed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "unknown")
    with pytest.raises(NotPermitted, match="InvalidAccessKeyId"):
        open_as(seaweed).probe()


def test_read_only(seaweed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    open_as(seaweed).put("key", b"1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "reader")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "reader")
    store = open_as(seaweed)
    assert store.get("key").data == b"1"
    with pytest.raises(NotPermitted, match="cannot write") as caught:
        store.probe()
    assert (caught.value.exit_code, caught.value.reason) == (77, "StorageNotPermitted")


def test_wrong_bucket(seaweed: str) -> None:
    with pytest.raises(BucketNotFound, match="s3://another") as caught:
        S3Store.open(Place(uri="s3://another", endpoint_url=seaweed)).probe()
    assert (caught.value.exit_code, caught.value.reason) == (77, "StorageNotFound")


def test_secrets_are_in_no_message(seaweed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret-value")
    with pytest.raises(NotPermitted) as caught:
        open_as(seaweed).probe()
    assert "very-secret-value" not in str(caught.value)
