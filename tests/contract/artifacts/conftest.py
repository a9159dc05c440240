"""Stores under test: one in memory, one over HTTP; each test has a bucket of its own."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest

from contract.artifacts.faulty_s3 import FaultyS3, S3Server
from srlm_contract.artifacts.artifacts import ArtifactStore
from srlm_contract.artifacts.manifest import Producer
from srlm_contract.artifacts.s3 import S3Store
from srlm_contract.artifacts.s3_transfer import TransferSettings
from srlm_contract.artifacts.store import Probe, Store
from srlm_contract.spec.storage import Place
from srlm_contract.tasks import RunIdentity
from srlm_local.s3 import Account
from support.memory_store import MemoryStore
from support.s3_world import server as server_on

#: Before tests put credentials of their own into the environment.
GIVEN = dict(os.environ)
FAST = TransferSettings(part_bytes=5 * 1024 * 1024, workers=4, backoff_seconds=0)


@pytest.fixture(scope="session", autouse=True)
def _credentials() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.delenv("AWS_PROFILE", raising=False)
        yield


@pytest.fixture(scope="session")
def server() -> Iterator[S3Server]:
    running = S3Server.start()
    yield running
    running.stop()


@cache
def client(endpoint_url: str, attempts: int) -> Any:
    """One client for many stores: making one costs more than most tests."""
    return S3Store.open(Place(uri="s3://any", endpoint_url=endpoint_url), transfer=FAST, attempts=attempts).client


@pytest.fixture
def s3(server: S3Server) -> Iterator[FaultyS3]:
    """The server's application, without faults at the beginning and the end."""
    server.app.requests.clear()
    yield server.app
    server.app.faults.clear()
    server.app.quirks = ()


@pytest.fixture
def open_s3(server: S3Server, s3: FaultyS3) -> Callable[..., S3Store]:
    """Opens the same fresh bucket, as often as wanted."""
    bucket = f"bucket-{uuid.uuid4().hex[:12]}"
    client(server.url, 2).create_bucket(Bucket=bucket)

    def open_store(attempts: int = 2, **known: Any) -> S3Store:
        shared = client(server.url, attempts)
        return S3Store(shared, bucket, "some/prefix", transfer=FAST, **known)

    return open_store


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a real store with the bucket `real`."""
    accounts = Account("test", "test"), Account("reader", "reader", read_only=True)
    with server_on(tmp_path_factory.mktemp("weed"), "real", accounts) as made:
        yield made.url


@pytest.fixture
def open_seaweed(seaweed: str) -> Callable[..., S3Store]:
    """Opens the same fresh prefix at SeaweedFS."""
    prefix = uuid.uuid4().hex

    def open_store(conditional: bool | None = None) -> S3Store:
        return S3Store(client(seaweed, 2), "real", prefix, conditional=conditional, transfer=FAST)

    return open_store


@pytest.fixture(scope="session")
def named_traits() -> Probe:
    """What `preflight` would find out about the server of SRLM_TEST_S3_ENDPOINT."""
    return named_store(f"srlm-tests/{uuid.uuid4().hex}").probe()


@pytest.fixture
def open_named(named_traits: Probe) -> Iterator[Callable[..., S3Store]]:
    """Opens the same fresh prefix at that server; nothing is left there."""
    prefix = f"srlm-tests/{uuid.uuid4().hex}"
    store = named_store(prefix, conditional=named_traits.conditional, if_match=named_traits.if_match)
    yield lambda: store
    store.delete([info.key for info in store.list_objects("")])


def named_store(prefix: str, **known: Any) -> S3Store:
    """SRLM_TEST_S3_ENDPOINT and SRLM_TEST_S3_BUCKET, an empty bucket or one that may be written to, and the
    credentials, region and certificates of the AWS_ variables."""
    missing = {"SRLM_TEST_S3_BUCKET", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} - GIVEN.keys()
    assert not missing, f"with SRLM_TEST_S3_ENDPOINT set {', '.join(sorted(missing))} too"
    return S3Store(named_client(), GIVEN["SRLM_TEST_S3_BUCKET"], prefix, transfer=FAST, **known)


@cache
def named_client() -> Any:
    return S3Store.open(
        Place(
            uri="s3://any",
            endpoint_url=GIVEN["SRLM_TEST_S3_ENDPOINT"],
            region=GIVEN.get("AWS_REGION") or GIVEN.get("AWS_DEFAULT_REGION") or "us-east-1",
        ),
        transfer=FAST,
        credentials=GIVEN,
    ).client


STORES = ["memory", "s3", "seaweed"] + (["named"] if "SRLM_TEST_S3_ENDPOINT" in GIVEN else [])


def opened(request: pytest.FixtureRequest, name: str) -> Store:
    """One of STORES."""
    if name == "memory":
        return MemoryStore()
    store: Store = request.getfixturevalue(f"open_{name}")()
    return store


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> Store:
    """The store in memory; over moto's server, SeaweedFS and a server that is named."""
    return opened(request, request.param)


def run_identity(name: str = "run") -> RunIdentity:
    return RunIdentity(namespace="training", name=name, uid=f"uid-{name}")


def artifacts_of(store: Store, scratch: Path, uid: str = "pod-a", run: str = "run") -> ArtifactStore:
    """The artifacts as the pod with this UID sees them."""
    producer = Producer(run=run_identity(run), job="job", pod=f"name-{uid}", pod_uid=uid, image="image")
    return ArtifactStore(store, producer, scratch=scratch)


@pytest.fixture
def pod(store: Store, tmp_path: Path) -> Callable[..., ArtifactStore]:
    """`pod("a")`: the artifacts as a pod with this UID sees them, in every store under test."""
    return partial(artifacts_of, store, tmp_path)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """`write({"a.jsonl": b"..."})`: a fresh folder with these files."""

    def make(files: dict[str, bytes]) -> Path:
        folder = tmp_path / f"files-{uuid.uuid4().hex[:8]}"
        for path, data in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)
        return folder

    return make
