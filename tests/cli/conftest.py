"""What tests of commands that read S3 share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from srlm_cli import download
from support.cluster.fixtures import given_cluster, h, make_harness
from support.s3_world import WRITER, Server, server

__all__ = ["given_cluster", "h", "make_harness"]


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with server(tmp_path_factory.mktemp("s3")) as made:
        yield made


@pytest.fixture
def stranger(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Somebody without AWS credentials, in a folder of their own."""
    for name in (*WRITER.environ, *download._AMBIENT, "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "absent"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.chdir(tmp_path)
