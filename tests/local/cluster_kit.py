"""Builders and waits for tests of the one-machine cluster: everything waits for a change, nothing sleeps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from srlm_local.kinds import bootstrap, table
from srlm_local.podrunner.runner import PodRunner
from srlm_local.store.clock import Clock
from srlm_local.store.cluster import Cluster

Object = dict[str, Any]
LIMIT_SECONDS = 30
RUNNING: set[asyncio.Task[None]] = set()
"""Runners whose failure ends every wait."""


def pod(name: str = "p", script: str = "pass", *, container: Object | None = None, **spec: Any) -> Object:
    """A pod whose container `main` runs a Python script."""
    main = {
        "name": "main",
        "image": "example.com/image:1",
        "command": ["python", "-c", script],
        **(container or {}),
    }
    return {
        "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "containers": [main],
            **spec,
        },
    }


def job(name: str, **spec: Any) -> Object:
    """A Job of one pod that nobody runs."""
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "example.com/image:1"}]}}
    return {"metadata": {"name": name}, "spec": {"template": template, **spec}}


def new_cluster(clock: Clock | None = None) -> Cluster:
    """An empty cluster with the namespaces that every cluster has."""
    cluster = table.new_cluster(clock=clock, seed=1)
    bootstrap.prepare(cluster)
    return cluster


async def until(cluster: Cluster, what: Callable[[], Any]) -> Any:
    """Waits until `what` gives something true after some change in the cluster."""
    watcher = cluster.storage.watcher(cluster.version)
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            while not (found := what()):
                for task in RUNNING:
                    if task.done():
                        task.result()
                await watcher.wait(1.0)
                watcher.poll()
            return found
    finally:
        watcher.close()


def ended(cluster: Cluster, name: str = "p", namespace: str = "default") -> Object | None:
    """The pod once its phase is final."""
    found = cluster.find("pods", name, namespace)
    return found if found and found["status"]["phase"] in ("Succeeded", "Failed") else None


def terminated(found: Object) -> Object:
    """How the first container ended."""
    state: Object = found["status"]["containerStatuses"][0]["state"]["terminated"]
    return state


def waiting(cluster: Cluster, name: str = "p") -> Object:
    """What the first container waits for; empty when it does not."""
    statuses = cluster.get("pods", name, "default")["status"].get("containerStatuses") or [{"state": {}}]
    state: Object = statuses[0]["state"].get("waiting", {})
    return state


@asynccontextmanager
async def node(cluster: Cluster, folder: Path, cores: int = 2) -> AsyncIterator[PodRunner]:
    """A pod runner on `folder`; at the end its processes are gone."""
    runner = PodRunner(cluster, folder, cores=cores)
    task = asyncio.create_task(runner.run())
    RUNNING.add(task)
    try:
        yield runner
    finally:
        RUNNING.discard(task)
        task.cancel()
        await asyncio.wait({task})
