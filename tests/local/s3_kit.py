"""An S3 server process for tests."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from srlm_local.s3.auth import Account, save_accounts

WRITER, READER = ("WRITER", "writer-secret"), ("READER", "reader-secret")


class Server:
    """`python -m srlm_local.s3` on a folder; may be killed and started again."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.options = options
        accounts = {WRITER[0]: Account(WRITER[1]), READER[0]: Account(READER[1], read_only=True)}
        save_accounts(folder / "accounts.json", accounts)
        self.start()

    def start(self) -> None:
        """Starts it and waits until it answers."""
        arguments = ["--root", str(self.folder / "objects"), "--accounts", str(self.folder / "accounts.json")]
        command = [sys.executable, "-m", "srlm_local.s3", *arguments, "--bucket", "made", *self.options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def client(self, keys: tuple[str, str] = WRITER) -> Any:
        """A boto3 client without retries."""
        return client(f"http://127.0.0.1:{self.port}", keys)

    def kill(self) -> None:
        """SIGKILL, as nobody expects it."""
        self.process.kill()
        self.close()

    def close(self) -> None:
        """SIGTERM and wait."""
        self.process.terminate()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def client(url: str, keys: tuple[str, str] = WRITER) -> Any:
    """A boto3 client for an endpoint."""
    return boto3.client(
        "s3", endpoint_url=url, aws_access_key_id=keys[0], aws_secret_access_key=keys[1], region_name="us-east-1",
        config=Config(retries={"max_attempts": 1}, s3={"addressing_style": "path"}),
    )  # fmt: skip


@contextmanager
def server(folder: Path, *options: str) -> Iterator[Server]:
    """A running server."""
    made = Server(folder, *options)
    try:
        yield made
    finally:
        made.close()


def answer(call: Any, *names: str, **arguments: Any) -> Any:
    """What a client sees: (status, error code), or (status, the named fields of the answer)."""
    try:
        got = call(**arguments)
    except ClientError as error:
        return error.response["ResponseMetadata"]["HTTPStatusCode"], error.response["Error"]["Code"]
    return got["ResponseMetadata"]["HTTPStatusCode"], *(got.get(name) for name in names)
