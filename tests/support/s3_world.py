"""An S3 server for tests: SeaweedFS as the one-machine cluster starts it, ready in two seconds, gone with the test."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from srlm_local.ports import free_port
from srlm_local.s3 import STOP_SECONDS, Account, SeaweedFS, StoreError, wait_until_writable, weed

WRITER, READER = Account("WRITER", "writer-secret"), Account("READER", "reader-secret", read_only=True)
CREDENTIALS = WRITER.environ | {"AWS_EC2_METADATA_DISABLED": "true"}


class Server:
    """A server on a folder, which may be ended and started again; skips the test where there is no SeaweedFS."""

    def __init__(self, folder: Path, bucket: str = "made", accounts: tuple[Account, ...] = (WRITER, READER)) -> None:
        try:
            weed()
        except StoreError:
            pytest.skip("SeaweedFS is not installed")
        folder.mkdir(exist_ok=True)
        for attempt in range(3):  # somebody else may take a port between the look and the start
            self.seaweed = SeaweedFS(folder / f"seaweed-{attempt}", free_port(), bucket, accounts)
            try:
                return self.start()
            except StoreError:
                self.stop(signal.SIGKILL)
        raise AssertionError((self.seaweed.folder / "log").read_text(errors="replace")[-2000:])

    @property
    def url(self) -> str:
        return self.seaweed.store.endpoint_url

    def start(self) -> None:
        """Starts it and waits until it takes objects."""
        command, environ = self.seaweed.command(), self.seaweed.environ
        with (self.seaweed.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environ, cwd=self.seaweed.folder)
        wait_until_writable(self.seaweed.store, lambda: self.process.poll() is None)

    def stop(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def client(self, account: Account = WRITER) -> Any:
        """A boto3 client without retries."""
        return boto3.client(
            "s3", endpoint_url=self.url, aws_access_key_id=account.access_key,
            aws_secret_access_key=account.secret_key, region_name="us-east-1",
            config=Config(retries={"max_attempts": 1}, s3={"addressing_style": "path"}),
        )  # fmt: skip


@contextmanager
def server(folder: Path, bucket: str = "made", accounts: tuple[Account, ...] = (WRITER, READER)) -> Iterator[Server]:
    """A running server."""
    made = Server(folder, bucket, accounts)
    try:
        yield made
    finally:
        made.stop()


@contextmanager
def s3_endpoint(folder: Path) -> Iterator[str]:
    """URL of a server with the bucket `world`; credentials for it are in the environment."""
    with pytest.MonkeyPatch.context() as patch, server(folder, "world") as made:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        yield made.url
