"""`srlm local up` as a process: it starts, goes on after a kill, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest
from kubernetes import client, config

from srlm_local.http.access import Authorizer
from srlm_local.machine import MachineError
from srlm_local.machine import up as in_process
from srlm_local.processes import OWNER_VARIABLE
from srlm_local.programs import Program, python
from srlm_local.provision import ACCOUNT, SYSTEM_NAMESPACE
from support.s3_world import READER, WRITER, Server, server

LIMIT_SECONDS = 60
POLICY = {"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]}
SCRIPT = """
import os, subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
marker = os.path.join(os.environ["CLAIM"], "ran-before")
again = os.path.exists(marker)
open(marker, "w").close()
print("second" if again else "first", flush=True)
time.sleep(0 if again else 600)
"""


def until(what: Callable[[], Any]) -> Any:
    """Polls another process until `what` gives something true."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while not (found := what()):
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.05)
    return found


def marked(folder: Path) -> list[int]:
    """Living processes that carry the cluster's mark."""
    found = []
    for process in psutil.process_iter():
        try:
            mark = process.environ().get(OWNER_VARIABLE, "")
            if mark.startswith(f"{folder}") and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except (psutil.Error, OSError):
            continue
    return found


class Up:
    """A cluster without operator on a folder."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.start(*options)

    def start(self, *options: str) -> None:
        command = [sys.executable, "-m", "srlm_cli", "local", "up", "--no-operator", "--folder", str(self.folder)]
        self.process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("export KUBECONFIG="):
                break
        settings = client.Configuration()
        config.load_kube_config(str(self.folder / "kubeconfig"), client_configuration=settings)
        api = client.ApiClient(settings)
        self.core, self.batch, self.crds = (
            client.CoreV1Api(api), client.BatchV1Api(api), client.ApiextensionsV1Api(api),
        )  # fmt: skip

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        code = self.process.wait(LIMIT_SECONDS)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    def log(self, name: str) -> str:
        return str(self.core.read_namespaced_pod_log(name, "default"))

    def pods(self) -> list[Any]:
        return list(self.core.list_namespaced_pod("default").items)

    def s3(self) -> Any:
        storage = json.loads((self.folder / "storage.json").read_text())
        data = self.core.read_namespaced_secret(storage["credentialsSecretRef"]["name"], "default").data
        keys = {k.lower(): base64.b64decode(v).decode() for k, v in data.items()}
        return boto3.client("s3", endpoint_url=storage["endpointUrl"], region_name="us-east-1", **keys)


@contextmanager
def up(folder: Path, *options: str) -> Iterator[Up]:
    made = Up(folder, *options)
    try:
        yield made
    finally:
        if made.process.poll() is None:
            made.stop(signal.SIGKILL)


def start_job(machine: Up) -> str:
    """A Job whose first pod runs until it is ended; returns that pod's name once it runs."""
    container = {
        "name": "main",
        "image": "example.com/image:1",
        "command": ["python", "-c", SCRIPT],
        "env": [{"name": "CLAIM", "value": "/claim"}],
        "volumeMounts": [{"name": "claim", "mountPath": "/claim"}],
    }
    template = {
        "restartPolicy": "Never",
        "containers": [container],
        "volumes": [{"name": "claim", "persistentVolumeClaim": {"claimName": "kept"}}],
    }
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    machine.core.create_namespaced_persistent_volume_claim("default", {"metadata": {"name": "kept"}, "spec": claim})
    spec = {"template": {"spec": template}, "backoffLimit": 0, "podFailurePolicy": POLICY}
    machine.batch.create_namespaced_job("default", {"metadata": {"name": "j"}, "spec": spec})
    return str(until(lambda: [p.metadata.name for p in machine.pods() if p.status.phase == "Running"])[0])


def test_stopping_leaves_no_process(tmp_path: Path) -> None:
    with up(tmp_path) as machine:
        name = start_job(machine)
        until(lambda: "first" in machine.log(name))
        assert len(marked(tmp_path)) >= 3  # the S3 server, the pod's command and its child
        assert machine.stop() == 0
        assert marked(tmp_path) == []


def test_killed_cluster_goes_on_where_it_was(tmp_path: Path) -> None:
    with up(tmp_path) as machine:
        machine.s3().put_object(Bucket="self-rewarding", Key="kept", Body=b"kept")
        name = start_job(machine)
        until(lambda: "first" in machine.log(name))
        machine.stop(signal.SIGKILL)
        until(lambda: marked(tmp_path) == [])  # without anybody's help
        machine.start()
        lost = machine.core.read_namespaced_pod(name, "default")
        assert lost.status.phase == "Failed"
        assert [c.status for c in lost.status.conditions if c.type == "DisruptionTarget"] == ["True"]
        assert "first" in machine.log(name)
        assert machine.s3().get_object(Bucket="self-rewarding", Key="kept")["Body"].read() == b"kept"
        done = until(lambda: (j := machine.batch.read_namespaced_job("j", "default")).status.succeeded and j)
        assert done.status.failed is None
        second = next(p for p in machine.pods() if p.metadata.name != name)
        assert machine.log(second.metadata.name) == "second\n"
        assert machine.stop() == 0


def test_second_instance_on_a_folder_is_refused(tmp_path: Path) -> None:
    with up(tmp_path) as machine:
        command = [sys.executable, "-m", "srlm_cli", "local", "up", "--folder", str(tmp_path)]
        second = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS)
        assert second.returncode == 1
        assert f"a cluster already runs on {tmp_path} (process {machine.process.pid})" in second.stderr


def refused(folder: Path, *options: str) -> str:
    """What `srlm local up` says when it cannot start; nothing of it may be left."""
    command = [sys.executable, "-m", "srlm_cli", "local", "up", "--no-operator", "--folder", str(folder), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS)
    assert done.returncode == 1, done.stderr
    assert marked(folder) == []
    return done.stderr


def test_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with up(tmp_path / "one") as machine:
        settings = json.loads((machine.folder / "settings.json").read_text())
        said = refused(tmp_path / "two", "--port", str(settings["port"]))
        assert f"the API server cannot listen on port {settings['port']}" in said
        assert "with --port" in said
        said = refused(tmp_path / "three", "--s3-port", str(settings["s3_port"]))
        assert f"the S3 server cannot listen on port {settings['s3_port']}" in said
        assert "with --s3-port" in said


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Somebody's store."""
    with server(tmp_path_factory.mktemp("store")) as made:
        yield made


def test_objects_go_to_the_store_that_is_named(tmp_path: Path, store: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in WRITER.environ.items():
        monkeypatch.setenv(name, value)
    with up(tmp_path, "--s3-endpoint", store.url, "--s3-bucket", "made") as machine:
        assert [p for p in marked(machine.folder) if "weed" in psutil.Process(p).name()] == []
        machine.s3().put_object(Bucket="made", Key="there", Body=b"1")
        assert machine.stop() == 0
        machine.start()  # it remembers the store
        assert machine.s3().get_object(Bucket="made", Key="there")["Body"].read() == b"1"
        assert WRITER.secret_key not in (machine.folder / "settings.json").read_text()
    assert [o["Key"] for o in store.client().list_objects_v2(Bucket="made")["Contents"]] == ["there"]


@pytest.mark.parametrize(
    ("bucket", "s3_port", "words"),
    [
        (None, None, "s3://self-rewarding"),
        ("made", None, "AccessDenied"),
        ("made", 12345, "give one"),
    ],
)
async def test_a_store_that_cannot_be_used_is_told(
    tmp_path: Path, store: Server, monkeypatch: pytest.MonkeyPatch, bucket: str | None, s3_port: int | None, words: str
) -> None:
    for name, value in READER.environ.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(MachineError, match=words):
        async with in_process(tmp_path, s3_endpoint=store.url, s3_bucket=bucket, s3_port=s3_port):
            pass


async def test_a_store_needs_keys_and_a_bucket_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY", raising=False)
    with pytest.raises(MachineError, match="AWS_SECRET_ACCESS_KEY is not set"):
        async with in_process(tmp_path, s3_endpoint="http://127.0.0.1:9"):
            pass
    with pytest.raises(MachineError, match="give both"):
        async with in_process(tmp_path, s3_bucket="made"):
            pass


def test_what_a_new_cluster_has(tmp_path: Path) -> None:
    with up(tmp_path) as machine:
        assert {n.metadata.name for n in machine.core.list_namespace().items} >= {"default", "kube-system"}
        assert [n.metadata.name for n in machine.core.list_node().items] == ["local"]
        crd = machine.crds.read_custom_resource_definition("selfrewardingruns.selfrewarding.dev")
        assert [c.status for c in crd.status.conditions if c.type == "Established"] == ["True"]
        for name in ("kubeconfig", "settings.json", "s3/accounts.json"):
            assert os.stat(tmp_path / name).st_mode & 0o077 == 0


async def test_program_is_started_again_until_it_is_stopped(tmp_path: Path) -> None:
    """The first two processes end by themselves; the third stays until it is told."""
    script = (
        "import pathlib, sys, time; p = pathlib.Path(sys.argv[1]); n = int(p.read_text()) if p.exists() else 0;"
        "p.write_text(str(n + 1)); n < 2 and sys.exit(3); pathlib.Path(sys.argv[2]).open('w').write('up');"
        "time.sleep(600)"
    )
    count, fifo = tmp_path / "count", tmp_path / "fifo"
    os.mkfifo(fifo)
    program = Program(
        "program", python("-c", script, str(count), str(fifo)), tmp_path, f"{tmp_path}:program", min_backoff=0.01
    )
    await program.start()
    assert await asyncio.to_thread(fifo.read_text) == "up"
    assert count.read_text() == "3"
    await program.stop()
    assert program.pid is None
    assert marked(tmp_path) == []


@pytest.mark.parametrize("what", ["secrets", "pods"])
async def test_operators_account_cannot_read_secrets_or_make_pods(tmp_path: Path, what: str) -> None:
    async with in_process(tmp_path, operator=False) as machine:
        account = machine.cluster.get("serviceaccounts", ACCOUNT, SYSTEM_NAMESPACE)
        token, _ = machine.server.tokens.issue(account, 3600)
        user = machine.server.tokens.authenticate(f"Bearer {token}")
        rules = Authorizer(machine.cluster)
        verb = {"secrets": "get", "pods": "create"}[what]
        assert not rules.allows(user, verb, "", what, "default")
        assert rules.allows(user, "create", "batch", "jobs", "default")
