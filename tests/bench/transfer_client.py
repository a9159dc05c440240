"""One side of the transfer benchmark, in a process of its own so that its peak memory can be told.

    python transfer_client.py ours|boto3 URL FOLDER < commands

A line `up` sends FOLDER/source, `down` fetches it to FOLDER/got-<side>; each answers with its wall and processor
seconds, `peak` with the peak of resident memory in bytes. `verified-down` and `verified-up` of boto3 read the file
once more for its SHA-256.
"""

from __future__ import annotations

import hashlib
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import boto3

from srlm_contract.artifacts.s3 import S3Store
from srlm_contract.spec.storage import Place


def ours(url: str, folder: Path) -> dict[str, Callable[[], object]]:
    store = S3Store.open(Place(uri="s3://made/ours", endpoint_url=url))
    return {
        "up": lambda: store.upload_file(folder / "source", "file"),
        "down": lambda: store.download_file("file", folder / "got-ours"),
    }


def plain_boto3(url: str, folder: Path) -> dict[str, Callable[[], object]]:
    client = boto3.client("s3", endpoint_url=url, region_name="us-east-1")

    def up() -> object:
        return client.upload_file(str(folder / "source"), "made", "boto3/file")

    def down() -> object:
        return client.download_file("made", "boto3/file", str(folder / "got-boto3"))

    def digest(path: Path) -> object:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256")

    return {
        "up": up,
        "down": down,
        "verified-up": lambda: (up(), digest(folder / "source")),
        "verified-down": lambda: (down(), digest(folder / "got-boto3")),
    }


def main() -> None:
    side, url, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    actions = (ours if side == "ours" else plain_boto3)(url, folder)
    for line in sys.stdin:
        name = line.strip()
        if name == "peak":
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, flush=True)
            continue
        began, worked = time.perf_counter(), time.process_time()
        actions[name]()
        print(time.perf_counter() - began, time.process_time() - worked, flush=True)


if __name__ == "__main__":
    main()
