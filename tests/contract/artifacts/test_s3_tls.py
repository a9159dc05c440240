"""TLS with an authority of one's own: `storage.caBundleRef`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from werkzeug.serving import make_server, make_ssl_devcert

from contract.artifacts.faulty_s3 import FaultyS3
from srlm_contract.artifacts.s3 import S3Store
from srlm_contract.errors import InvalidTask, NotPermitted
from srlm_contract.spec.storage import Place


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """(URL, certificate) of a server nobody trusts yet."""
    certificate, key = make_ssl_devcert(str(tmp_path_factory.mktemp("tls") / "ssl"), host="localhost")
    server = make_server("localhost", 0, FaultyS3(), threaded=True, ssl_context=(certificate, key))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"https://localhost:{server.server_port}", Path(certificate)
    server.shutdown()
    thread.join()
    server.server_close()


def test_unknown_authority(tls: tuple[str, Path]) -> None:
    url, _ = tls
    store = S3Store.open(Place(uri="s3://tls", endpoint_url=url), attempts=1)
    with pytest.raises(NotPermitted, match=r"storage\.caBundleRef"):
        store.put("key", b"1")


def test_given_authority(tls: tuple[str, Path]) -> None:
    url, certificate = tls
    store = S3Store.open(Place(uri="s3://tls", endpoint_url=url), ca_bundle=certificate)
    store.client.create_bucket(Bucket="tls")
    store.put("key", b"1")
    assert store.get("key").data == b"1"


def test_bundle_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(InvalidTask, match=r"storage\.caBundleRef"):
        S3Store.open(Place(uri="s3://tls"), ca_bundle=tmp_path / "none.crt")


def test_bundle_that_is_none(tls: tuple[str, Path], tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text("not a certificate")
    with pytest.raises((InvalidTask, NotPermitted), match=r"storage\.caBundleRef"):
        S3Store.open(Place(uri="s3://tls", endpoint_url=tls[0]), ca_bundle=tmp_path / "ca.crt", attempts=1).put(
            "k", b""
        )
