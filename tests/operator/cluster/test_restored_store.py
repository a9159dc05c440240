"""The API server's store comes back from a backup: its versions have gone back, and no watch that goes on tells."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from srlm_local import provision
from srlm_local.http.server import ApiServer
from srlm_local.kinds import bootstrap
from srlm_local.kinds.table import new_cluster
from srlm_local.store.cluster import Cluster
from srlm_operator.process import Operator
from srlm_operator.settings import Settings
from support.builders import manifest_spec

RUNS = "selfrewardingruns.selfrewarding.dev"
Backup = tuple[int, list[tuple[str, str, str, dict[str, Any]]]]


def backup(cluster: Cluster) -> Backup:
    return cluster.version, [
        (rt.name, obj["metadata"].get("namespace", ""), obj["metadata"]["name"], copy.deepcopy(obj))
        for rt in cluster.registry.all()
        for obj in cluster.storage.list(rt.name)
    ]


async def until(cluster: Cluster, what: Any) -> None:
    watcher = cluster.storage.watcher(cluster.version)
    async with asyncio.timeout(60):
        while not what():
            await watcher.wait()
            watcher.poll()
    watcher.close()


@pytest.fixture
async def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cluster]:
    """API server, and the rights of the operator; nobody makes pods for Jobs."""
    cluster = new_cluster()
    server = ApiServer(cluster)
    await server.start()
    bootstrap.prepare(cluster)
    provision.install(cluster, {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"})
    account = cluster.get("serviceaccounts", provision.ACCOUNT, provision.SYSTEM_NAMESPACE)
    token, _ = server.tokens.issue(account, 3600)
    server.write_kubeconfig(tmp_path / "kubeconfig", token, provision.SYSTEM_NAMESPACE)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    yield cluster
    await server.stop()


async def test_runs_whose_version_went_back_are_followed_again(cluster: Cluster) -> None:
    def create(name: str) -> None:
        kind = {"apiVersion": "selfrewarding.dev/v1alpha1", "kind": "SelfRewardingRun"}
        body = {**kind, "metadata": {"name": name, "namespace": "default"}, "spec": manifest_spec()}
        cluster.create(RUNS, body, "default")

    def edit(**changes: Any) -> None:
        cluster.patch(RUNS, "run", {"spec": changes}, "default")

    def phase() -> str:
        return str(cluster.get(RUNS, "run", "default").get("status", {}).get("phase", ""))

    operator = Operator(Settings(health_port=0, progress_seconds=3600, local=True))
    stop = asyncio.Event()
    task = asyncio.create_task(operator.run(stop))
    create("run")
    await until(cluster, lambda: phase() == "Running")
    saved = backup(cluster)
    for seed in range(20):
        edit(seed=seed + 1)
    create("later")
    await until(cluster, lambda: cluster.get(RUNS, "later", "default").get("status"))
    await until(cluster, lambda: operator.world.run(("default", "run")) == cluster.get(RUNS, "run", "default"))

    cluster.storage.restore(*saved)
    edit(suspend=True)
    assert operator.world.run(("default", "later")) is not None
    assert await operator.resync.compare() == 0
    await until(cluster, lambda: phase() == "Suspended")

    # From here on the watches tell again: no comparison is asked for.
    edit(suspend=False)
    await until(cluster, lambda: phase() == "Running")
    assert operator.world.run(("default", "later")) is None, "the listing is over, as a watch has begun"
    assert operator.problem() == ""
    stop.set()
    await task


async def test_a_status_that_conflicts_has_the_run_read_again(cluster: Cluster) -> None:
    """The run itself needs no listing: its next write finds out."""
    kind = {"apiVersion": "selfrewarding.dev/v1alpha1", "kind": "SelfRewardingRun"}
    body = {**kind, "metadata": {"name": "run", "namespace": "default"}, "spec": manifest_spec(suspend=True)}
    operator = Operator(Settings(health_port=0, progress_seconds=3600, local=True))
    run = cluster.create(RUNS, body, "default")
    operator.world.feed("runs", {**run, "metadata": {**run["metadata"], "resourceVersion": "99999"}})
    async with operator.client:
        await operator.reconciler.reconcile(("default", "run"))
    assert cluster.get(RUNS, "run", "default")["status"]["phase"] == "Suspended"
