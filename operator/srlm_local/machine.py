"""The one-machine cluster, put together: API server, controllers, pod runner, object store, operator.

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
    s3/                 what SeaweedFS keeps: accounts.json, data/
    logs/               operator.log, s3.log
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from srlm_contract.errors import StageFailure
from srlm_local import pause, provision, s3
from srlm_local.http.server import ApiServer
from srlm_local.jobcontroller.controller import JobController
from srlm_local.kinds import bootstrap
from srlm_local.kinds.table import new_cluster
from srlm_local.podrunner.runner import PodRunner
from srlm_local.ports import free_port, is_free
from srlm_local.processes import kill_marked
from srlm_local.programs import Program, python
from srlm_local.s3 import Account, ObjectStore, SeaweedFS, StoreError
from srlm_local.store.clock import Clock, SystemClock
from srlm_local.store.cluster import Cluster
from srlm_local.store.journal import Journal, JournalDamaged

BUCKET = "self-rewarding"
TOKEN_SECONDS = 10 * 365 * 24 * 3600


class MachineError(Exception):
    """The cluster cannot start; the message says why and what to do."""


@dataclass(frozen=True)
class Settings:
    """What stays the same over restarts of a folder: runs name their store in their spec."""

    port: int
    s3_port: int
    admin_token: str
    access_key: str
    secret_key: str
    s3_endpoint: str = ""
    """Of the store that somebody named; empty for SeaweedFS."""
    s3_bucket: str = BUCKET


@dataclass
class Machine:
    """A running cluster."""

    folder: Path
    settings: Settings
    cluster: Cluster
    server: ApiServer
    s3: ObjectStore
    operator: Program | None
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def kubeconfig(self) -> Path:
        """For kubectl and clients, with all rights."""
        return self.folder / "kubeconfig"

    @property
    def storage(self) -> dict[str, Any]:
        """`spec.storage` for runs in namespace default; add a prefix to `uri` to keep runs apart."""
        return self.s3.spec(provision.SECRET)

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
    s3_endpoint: str | None = None,
    s3_bucket: str | None = None,
    cores: int | None = None,
    clock: Clock | None = None,
) -> AsyncIterator[Machine]:
    """Starts the cluster of `folder`; when the context ends, no process of it is left.

    port, s3_port: None keeps those of the last start, or takes free ones. s3_endpoint, s3_bucket: a store to use in
    place of SeaweedFS, with the keys of the environment; None keeps that of the last start. cores: CPU slots for pods.
    Raises MachineError when another instance has the folder, a port is taken or the store takes no objects.
    """
    folder = _made(folder)
    async with AsyncExitStack() as stack:
        stack.enter_context(_lock(folder))
        owner = f"{folder}:"
        kill_marked(owner)
        stack.callback(kill_marked, owner)
        settings = _settings(folder, port, s3_port, s3_endpoint, s3_bucket)
        machine = await _assemble(folder, settings, clock or SystemClock(), cores, stack)
        if operator:
            await _start_operator(machine, restart_operator, stack)
        yield machine


async def _assemble(
    folder: Path, settings: Settings, clock: Clock, cores: int | None, stack: AsyncExitStack
) -> Machine:
    (folder / "logs").mkdir(exist_ok=True)
    store = await _start_store(folder, settings, stack)
    _remember(folder, settings)
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
    bootstrap.prepare(cluster)
    provision.install(cluster, store.credentials)
    machine = Machine(folder, settings, cluster, server, store, None)
    machine.tasks = [
        *bootstrap.start(cluster),
        asyncio.create_task(JobController(cluster).run(), name="Job controller"),
        asyncio.create_task(PodRunner(cluster, folder / "node", cores=cores).run(), name="pod runner"),
        asyncio.create_task(pause.keep(alive, clock), name="heartbeat"),
    ]
    stack.push_async_callback(_cancel, machine.tasks)
    server.write_kubeconfig(machine.kubeconfig)
    (folder / "storage.json").write_text(json.dumps(machine.storage, indent=1) + "\n")
    return machine


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _start_store(folder: Path, settings: Settings, stack: AsyncExitStack) -> ObjectStore:
    """SeaweedFS, started, or the store that somebody named; either takes objects now."""
    try:
        if settings.s3_endpoint:
            store = s3.named(settings.s3_endpoint, settings.s3_bucket)
            await asyncio.to_thread(s3.write_once, store.open(attempts=2))
            return store
        if not is_free(settings.s3_port):
            raise _taken("the S3 server", settings.s3_port, "--s3-port")
        account = Account(settings.access_key, settings.secret_key)
        server = SeaweedFS(folder / "s3", settings.s3_port, BUCKET, (account,))
        program = Program(
            "s3",
            server.command(),
            folder / "logs",
            f"{folder}:s3",
            server.environ,
            alone=True,
            cwd=server.folder,
            stop_seconds=s3.STOP_SECONDS,
        )
        await program.start()
        stack.push_async_callback(program.stop)
        await asyncio.to_thread(s3.wait_until_writable, server.store, lambda: program.ended is None)
    except StoreError as error:
        raise MachineError(str(error)) from error
    except StageFailure as error:
        raise MachineError(f"the store of --s3-endpoint {settings.s3_endpoint}: {error}") from error
    return server.store


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
        "SRLM_STORAGE_URI": f"{machine.storage['uri']}/{{namespace}}",
        "SRLM_STORAGE_ENDPOINT_URL": machine.storage["endpointUrl"],
        "SRLM_STORAGE_ADDRESSING_STYLE": machine.storage["addressingStyle"],
        "SRLM_STORAGE_CREDENTIALS_SECRET": provision.SECRET,
        "SRLM_LOCAL": "true",
        "SRLM_CACHE_HOST_PATH": os.environ.get("SRLM_CACHE_HOST_PATH", str(cache)),
        "SRLM_HEALTH_PORT": os.environ.get("SRLM_HEALTH_PORT", "0"),
        "SRLM_HEALTH_HOST": "127.0.0.1",
    }
    argv = python("-m", "srlm_cli", "operator")
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


def _settings(
    folder: Path, port: int | None, s3_port: int | None, s3_endpoint: str | None, s3_bucket: str | None
) -> Settings:
    """What is asked for, else what the folder remembers, else new."""
    if s3_endpoint and s3_port:
        raise MachineError("--s3-port is the port of a store that is started, --s3-endpoint names another: give one")
    path = folder / "settings.json"
    known: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    if not s3_endpoint and not s3_port:
        s3_endpoint = known.get("s3_endpoint", "")
    if s3_bucket and not s3_endpoint:
        raise MachineError("--s3-bucket is a bucket of the store that --s3-endpoint names: give both")
    return Settings(
        port=port or known.get("port") or free_port(),
        s3_port=s3_port or known.get("s3_port") or free_port(),
        admin_token=known.get("admin_token") or secrets.token_urlsafe(32),
        access_key=known.get("access_key") or f"LOCAL{secrets.token_hex(8).upper()}",
        secret_key=known.get("secret_key") or secrets.token_urlsafe(30),
        s3_endpoint=s3_endpoint or "",
        s3_bucket=s3_bucket or (known.get("s3_bucket") if s3_endpoint else None) or BUCKET,
    )


def _remember(folder: Path, settings: Settings) -> None:
    path = folder / "settings.json"
    path.touch(mode=0o600)
    path.write_text(json.dumps(settings.__dict__, indent=1) + "\n")


def _taken(what: str, port: int, option: str, error: OSError | None = None) -> MachineError:
    why = f" ({error.strerror})" if error else ""
    return MachineError(f"{what} cannot listen on port {port}{why}: free it, or choose another one with {option}")
