"""The one-machine cluster, put together: API server, controllers, pod runner, S3 server, operator.

    async with up(Path(".srlm")) as machine:
        machine.kubeconfig, machine.storage, machine.cluster
        await machine.wait()              # until something in it fails

Everything it knows lies in the folder; started again on the same folder it goes on where it was:

    lock                one instance a folder
    settings.json       ports and keys, made at the first start
    kubeconfig          the administrator's; operator.kubeconfig: the operator's own, with its rights only
    storage.json        `spec.storage` for runs in namespace default
    state/              journal of the API server's objects
    node/               folders and logs of pods, persistent volume claims
    s3/                 objects of the S3 server
    logs/               operator.log, s3.log
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from srlm_local import pause, provision
from srlm_local.http.server import ApiServer
from srlm_local.jobcontroller.controller import JobController
from srlm_local.kinds import bootstrap
from srlm_local.kinds.table import new_cluster
from srlm_local.podrunner.runner import PodRunner
from srlm_local.ports import free_port
from srlm_local.processes import kill_marked
from srlm_local.programs import Program, python
from srlm_local.s3.auth import Account, save_accounts
from srlm_local.store.clock import Clock, SystemClock
from srlm_local.store.cluster import Cluster
from srlm_local.store.journal import Journal, JournalDamaged

BUCKET = "self-rewarding"
TOKEN_SECONDS = 10 * 365 * 24 * 3600
S3_START_SECONDS = 30.0


class MachineError(Exception):
    """The cluster cannot start; the message says why and what to do."""


@dataclass(frozen=True)
class Settings:
    """What stays the same over restarts of a folder: runs name the S3 port in their spec."""

    port: int
    s3_port: int
    admin_token: str
    access_key: str
    secret_key: str


@dataclass
class Machine:
    """A running cluster."""

    folder: Path
    settings: Settings
    cluster: Cluster
    server: ApiServer
    s3: Program
    operator: Program | None
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def kubeconfig(self) -> Path:
        """For kubectl and clients, with all rights."""
        return self.folder / "kubeconfig"

    @property
    def storage(self) -> dict[str, Any]:
        """`spec.storage` for runs in namespace default; add a prefix to `uri` to keep runs apart."""
        return {
            "uri": f"s3://{BUCKET}",
            "endpointUrl": f"http://127.0.0.1:{self.settings.s3_port}",
            "region": "us-east-1",
            "addressingStyle": "Path",
            "credentialsSecretRef": {"name": provision.SECRET},
        }

    async def wait(self) -> None:
        """Returns never, but raises what made a part of the cluster fail."""
        done, _ = await asyncio.wait(self.tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
            raise MachineError(f"{task.get_name()} ended")


@asynccontextmanager
async def up(
    folder: Path,
    *,
    operator: bool = True,
    restart_operator: bool = True,
    port: int | None = None,
    s3_port: int | None = None,
    cores: int | None = None,
    clock: Clock | None = None,
) -> AsyncIterator[Machine]:
    """Starts the cluster of `folder`; when the context ends, no process of it is left.

    port, s3_port: None keeps those of the last start, or takes free ones. cores: CPU slots for pods.
    Raises MachineError when another instance has the folder or a port is taken.
    """
    folder = _made(folder)
    async with AsyncExitStack() as stack:
        stack.enter_context(_lock(folder))
        owner = f"{folder}:"
        kill_marked(owner)
        stack.callback(kill_marked, owner)
        settings = _settings(folder, port, s3_port)
        machine = await _assemble(folder, settings, clock or SystemClock(), cores, stack)
        if operator:
            await _start_operator(machine, restart_operator, stack)
        yield machine


async def _assemble(
    folder: Path, settings: Settings, clock: Clock, cores: int | None, stack: AsyncExitStack
) -> Machine:
    (folder / "logs").mkdir(exist_ok=True)
    s3 = await _start_s3(folder, settings, stack)
    cluster = new_cluster(clock=clock)
    try:
        journal = Journal.open(folder / "state", cluster)
    except JournalDamaged as error:
        raise MachineError(str(error)) from error
    stack.callback(journal.close)
    alive = folder / "alive"
    pause.resume(alive, cluster)
    server = ApiServer(cluster, admin_token=settings.admin_token)
    try:
        await server.start(port=settings.port)
    except OSError as error:
        raise _taken("the API server", settings.port, "--port", error) from error
    stack.push_async_callback(server.stop)
    bootstrap.prepare(cluster, server.authority)
    provision.install(cluster, (settings.access_key, settings.secret_key))
    machine = Machine(folder, settings, cluster, server, s3, None)
    machine.tasks = [
        *bootstrap.start(cluster, server.authority),
        asyncio.create_task(JobController(cluster).run(), name="Job controller"),
        asyncio.create_task(_pod_runner(server, folder, cores).run(), name="pod runner"),
        asyncio.create_task(pause.keep(alive, clock), name="heartbeat"),
    ]
    stack.push_async_callback(_cancel, machine.tasks)
    server.write_kubeconfig(machine.kubeconfig)
    (folder / "storage.json").write_text(json.dumps(machine.storage, indent=1) + "\n")
    return machine


def _pod_runner(server: ApiServer, folder: Path, cores: int | None) -> PodRunner:
    return PodRunner(server.cluster, folder / "node", cores=cores, issue_token=server.tokens.issue)


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _start_s3(folder: Path, settings: Settings, stack: AsyncExitStack) -> Program:
    accounts = folder / "s3-accounts.json"
    save_accounts(accounts, {settings.access_key: Account(settings.secret_key)})
    arguments = ["--root", str(folder / "s3"), "--accounts", str(accounts), "--bucket", BUCKET]
    argv = python("-m", "srlm_local.s3", "--port", str(settings.s3_port), *arguments)
    s3 = Program("s3", argv, folder / "logs", f"{folder}:s3")
    if _answers(settings.s3_port):
        raise _taken("the S3 server", settings.s3_port, "--s3-port")
    await s3.start()
    stack.push_async_callback(s3.stop)
    deadline = asyncio.get_running_loop().time() + S3_START_SECONDS
    while not _answers(settings.s3_port):
        if asyncio.get_running_loop().time() > deadline:
            raise MachineError(f"the S3 server did not start within {S3_START_SECONDS:.0f} s; see {s3.log}")
        await asyncio.sleep(0.05)
    return s3


async def _start_operator(machine: Machine, restart: bool, stack: AsyncExitStack) -> None:
    account = machine.cluster.get("serviceaccounts", provision.ACCOUNT, provision.SYSTEM_NAMESPACE)
    token, _ = machine.server.tokens.issue(account, TOKEN_SECONDS)
    kubeconfig = machine.folder / "operator.kubeconfig"
    machine.server.write_kubeconfig(kubeconfig, token, provision.SYSTEM_NAMESPACE)
    cache = machine.folder / "model-cache"
    cache.mkdir(exist_ok=True)
    env = {
        "KUBECONFIG": str(kubeconfig),
        # Runs may leave storage out, in namespaces that have the Secret: `default` has it.
        "SRLM_STORAGE_URI": f"s3://{BUCKET}/{{namespace}}",
        "SRLM_STORAGE_ENDPOINT_URL": machine.storage["endpointUrl"],
        "SRLM_STORAGE_ADDRESSING_STYLE": machine.storage["addressingStyle"],
        "SRLM_STORAGE_CREDENTIALS_SECRET": provision.SECRET,
        "SRLM_LOCAL": "true",
        "SRLM_CACHE_HOST_PATH": os.environ.get("SRLM_CACHE_HOST_PATH", str(cache)),
        "SRLM_HEALTH_PORT": os.environ.get("SRLM_HEALTH_PORT", "0"),
        "SRLM_HEALTH_HOST": "127.0.0.1",
    }
    argv = python("-m", "srlm_operator.cli", "operator")
    machine.operator = Program("operator", argv, machine.folder / "logs", f"{machine.folder}:operator", env, restart)
    await machine.operator.start()
    stack.push_async_callback(machine.operator.stop)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder.resolve()


def _lock(folder: Path) -> TextIO:
    """Holds the folder until closed, or until this process ends in any way."""
    file = (folder / "lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        raise MachineError(
            f"a cluster already runs on {folder} (process {holder}): stop it, or choose another folder with --folder"
        ) from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def _settings(folder: Path, port: int | None, s3_port: int | None) -> Settings:
    path = folder / "settings.json"
    known: dict[str, Any] = {}
    if path.exists():
        known = json.loads(path.read_text())
    settings = Settings(
        port=port or known.get("port") or free_port(),
        s3_port=s3_port or known.get("s3_port") or free_port(),
        admin_token=known.get("admin_token") or secrets.token_urlsafe(32),
        access_key=known.get("access_key") or f"LOCAL{secrets.token_hex(8).upper()}",
        secret_key=known.get("secret_key") or secrets.token_urlsafe(30),
    )
    path.touch(mode=0o600, exist_ok=True)
    path.write_text(json.dumps(settings.__dict__, indent=1) + "\n")
    return settings


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _taken(what: str, port: int, option: str, error: OSError | None = None) -> MachineError:
    why = f" ({error.strerror})" if error else ""
    return MachineError(f"{what} cannot listen on port {port}{why}: free it, or choose another one with {option}")
