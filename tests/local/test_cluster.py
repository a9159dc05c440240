"""The in-process API: versions, conflicts, watches, deletion, and what controllers rely on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from srlm_local.kinds import bootstrap
from srlm_local.kinds.table import new_cluster
from srlm_local.store.cluster import Cluster
from srlm_local.store.errors import ApiError
from srlm_local.store.storage import Storage
from support.virtual_clock import VirtualClock

Object = dict[str, Any]


@pytest.fixture
def cluster() -> Cluster:
    made = new_cluster(clock=VirtualClock(), seed=1)
    bootstrap.prepare(made)
    return made


def config(name: str, **metadata: Any) -> Object:
    return {"metadata": {"name": name, **metadata}}


def owner(obj: Object, *, block: bool = False) -> Object:
    reference = {"apiVersion": obj["apiVersion"], "kind": obj["kind"]}
    meta = obj["metadata"]
    return {**reference, "name": meta["name"], "uid": meta["uid"], "blockOwnerDeletion": block}


def pod(name: str) -> Object:
    return {"metadata": {"name": name}, "spec": {"containers": [{"name": "main", "image": "example.com/i:1"}]}}


async def settle() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


def test_what_comes_out_is_a_copy(cluster: Cluster) -> None:
    given = config("a", labels={"x": "1"})
    cluster.create("configmaps", given, "default")
    cluster.get("configmaps", "a", "default")["metadata"]["labels"]["x"] = "2"
    given["metadata"]["labels"]["x"] = "3"
    assert cluster.get("configmaps", "a", "default")["metadata"]["labels"] == {"x": "1"}


def test_versions_grow_and_stale_ones_conflict(cluster: Cluster) -> None:
    first = cluster.create("configmaps", config("a"), "default")
    second = cluster.update("configmaps", {**first, "data": {"k": "v"}})
    assert int(second["metadata"]["resourceVersion"]) > int(first["metadata"]["resourceVersion"])
    with pytest.raises(ApiError) as error:
        cluster.update("configmaps", {**first, "data": {"k": "w"}})
    assert (error.value.code, error.value.reason) == (409, "Conflict")


def test_an_update_without_change_writes_nothing(cluster: Cluster) -> None:
    made = cluster.create("configmaps", config("a"), "default")
    before = cluster.version
    cluster.update("configmaps", made)
    cluster.patch("configmaps", "a", {"metadata": {"labels": {}}}, "default")
    assert cluster.version == before


def test_status_and_spec_are_apart(cluster: Cluster) -> None:
    made = cluster.create("pods", pod("p"), "default")
    made["status"]["phase"] = "Running"
    assert cluster.update("pods", made)["status"]["phase"] == "Pending"
    made["spec"]["nodeName"] = "elsewhere"
    after = cluster.update("pods", made, subresource="status")
    assert after["status"]["phase"] == "Running"
    assert "nodeName" not in after["spec"]


def test_a_watch_from_a_forgotten_version_is_expired() -> None:
    cluster = new_cluster(storage=Storage(history_limit=5))
    bootstrap.prepare(cluster)
    with pytest.raises(ApiError) as error:
        cluster.storage.watcher(101)
    assert (error.value.code, error.value.reason) == (410, "Expired")


def test_pods_on_a_node_go_gracefully_others_at_once(cluster: Cluster) -> None:
    cluster.create("pods", pod("bound"), "default")
    cluster.create("pods", pod("free"), "default")
    cluster.bind("bound", "default", "node")
    left, gone = cluster.delete("pods", "bound", "default")
    assert not gone
    assert left["metadata"]["deletionGracePeriodSeconds"] == 30
    left, gone = cluster.delete("pods", "bound", "default", grace_period=5)
    assert not gone
    assert left["metadata"]["deletionGracePeriodSeconds"] == 5
    assert cluster.delete("pods", "bound", "default", grace_period=0)[1]
    assert cluster.delete("pods", "free", "default")[1]


def test_finalizers_hold_and_let_go(cluster: Cluster) -> None:
    cluster.create("configmaps", config("a", finalizers=["example.com/hold"]), "default")
    assert not cluster.delete("configmaps", "a", "default")[1]
    with pytest.raises(ApiError) as error:
        cluster.patch(
            "configmaps", "a", {"metadata": {"finalizers": ["example.com/hold", "example.com/more"]}}, "default"
        )
    assert error.value.code == 422
    cluster.patch("configmaps", "a", {"metadata": {"finalizers": None}}, "default")
    assert cluster.find("configmaps", "a", "default") is None


@pytest.mark.parametrize(("policy", "child_stays"), [("Background", False), ("Foreground", False), ("Orphan", True)])
async def test_dependents_follow_their_owner_or_do_not(cluster: Cluster, policy: str, child_stays: bool) -> None:
    tasks = bootstrap.start(cluster)
    parent = cluster.create("configmaps", config("parent"), "default")
    cluster.create("configmaps", config("child", ownerReferences=[owner(parent, block=True)]), "default")
    cluster.delete("configmaps", "parent", "default", propagation=policy)
    await settle()
    assert cluster.find("configmaps", "parent", "default") is None
    child = cluster.find("configmaps", "child", "default")
    assert (child is not None) is child_stays
    assert child is None or "ownerReferences" not in child["metadata"]
    for task in tasks:
        task.cancel()


async def test_an_owner_that_never_was_takes_its_dependents_along(cluster: Cluster) -> None:
    tasks = bootstrap.start(cluster)
    ghost = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ghost", "uid": "none"}}
    cluster.create("configmaps", config("child", ownerReferences=[owner(ghost)]), "default")
    await settle()
    assert cluster.find("configmaps", "child", "default") is None
    for task in tasks:
        task.cancel()


def test_jobs_orphan_their_pods_unless_told_otherwise(cluster: Cluster) -> None:
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "m", "image": "i"}]}}
    cluster.create("jobs.batch", {"metadata": {"name": "j"}, "spec": {"template": template}}, "default")
    left, gone = cluster.delete("jobs.batch", "j", "default")
    assert not gone
    assert left["metadata"]["finalizers"] == ["orphan"]


def test_preconditions(cluster: Cluster) -> None:
    made = cluster.create("configmaps", config("a"), "default")
    with pytest.raises(ApiError) as error:
        cluster.delete("configmaps", "a", "default", uid="other")
    assert error.value.code == 409
    assert cluster.delete("configmaps", "a", "default", uid=made["metadata"]["uid"])[1]


async def test_virtual_time_wakes_sleepers_in_order() -> None:
    clock = VirtualClock()
    woken: list[float] = []

    async def sleeper(seconds: float) -> None:
        start = clock.now()
        await clock.sleep(seconds)
        woken.append((clock.now() - start).total_seconds())

    tasks = [asyncio.create_task(sleeper(s)) for s in (30, 10, 20)]
    await settle()
    await clock.advance(25)
    assert woken == [10, 20]
    await clock.advance(25)
    assert woken == [10, 20, 30]
    await asyncio.gather(*tasks)
