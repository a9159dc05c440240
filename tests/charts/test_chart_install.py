"""Install, upgrade and uninstall with Helm itself against the one-machine API server."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import helm_python as helm
import pytest

from charts import chart_kit as kit
from srlm_local.kinds import bootstrap
from srlm_local.kinds.table import new_cluster
from srlm_local.store.cluster import Cluster
from srlm_operator.crd.definition import custom_resource_definition
from support.cluster.machine import ApplyingServer

pytestmark = pytest.mark.e2e

RUNS = "selfrewardingruns.selfrewarding.dev"
DEFINITIONS = "customresourcedefinitions.apiextensions.k8s.io"
RUN = {
    "apiVersion": "selfrewarding.dev/v1alpha1",
    "kind": "SelfRewardingRun",
    "metadata": {"name": "run", "namespace": "default"},
    "spec": {
        "baseModel": {"uri": "hf://org/base"},
        "storage": {"uri": "s3://bucket/prefix"},
        "seedData": {"uri": "hf://org/data"},
    },
}


@pytest.fixture
async def served() -> AsyncIterator[tuple[Cluster, helm.Config]]:
    """A cluster, and Helm connected to it."""
    cluster = new_cluster(seed=1)
    bootstrap.prepare(cluster)
    server = await ApplyingServer(cluster).start()
    tasks = bootstrap.start(cluster)
    config = helm.Config(kubeconfig_content=json.dumps(server.kubeconfig()), namespace=kit.NAMESPACE)
    try:
        yield cluster, config
    finally:
        config.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.stop()


async def act(action: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Helm blocks; the API server goes on in this thread's loop."""
    return await asyncio.to_thread(action, *arguments, timeout=60, **options)


def named(cluster: Cluster, resource: str) -> set[str]:
    return {obj["metadata"]["name"] for obj in cluster.list(resource)}


async def until(cluster: Cluster, what: Callable[[], bool]) -> None:
    """Wait until `what` holds after some change in the cluster."""
    watcher = cluster.storage.watcher(cluster.version)
    try:
        async with asyncio.timeout(30):
            while not what():
                await watcher.wait(1.0)
                watcher.poll()
    finally:
        watcher.close()


async def test_install_upgrade_uninstall(served: tuple[Cluster, helm.Config]) -> None:
    cluster, config = served
    chart = str(kit.CHART)

    done = await act(config.install, chart, "srlm", {}, create_namespace=True)
    assert (done["status"], done["revision"]) == ("deployed", 1)
    assert "The next three commands" in done["notes"]
    (deployment,) = cluster.list("deployments.apps")
    assert deployment["metadata"]["name"] == "srlm-self-rewarding-operator"
    before = cluster.get(DEFINITIONS, RUNS)
    run = cluster.create(RUNS, RUN, "default")

    values = kit.values_of("production")
    # Their kinds come with the Prometheus operator, which is not here.
    values["metrics"] |= {"serviceMonitor": {"enabled": False}, "prometheusRule": {"enabled": False}}
    values["networkPolicy"]["stagePods"]["namespaces"] = ["default"]
    done = await act(config.upgrade, chart, "srlm", values)
    assert (done["status"], done["revision"]) == ("deployed", 2)
    # A new name: Helm removes the objects of the old one.
    (deployment,) = cluster.list("deployments.apps")
    assert (deployment["metadata"]["name"], deployment["spec"]["replicas"]) == ("sro", 2)
    assert named(cluster, "poddisruptionbudgets.policy") == {"sro"}
    assert named(cluster, "networkpolicies.networking.k8s.io") == {"sro", "sro-stages"}
    after = cluster.get(DEFINITIONS, RUNS)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["metadata"]["annotations"]["argocd.argoproj.io/sync-options"] == "ServerSideApply=true"

    done = await act(config.uninstall, "srlm")
    assert f"[CustomResourceDefinition] {RUNS}" in done["info"]
    assert cluster.list("deployments.apps") == cluster.list("networkpolicies.networking.k8s.io") == []
    assert not {name for name in named(cluster, "clusterroles.rbac.authorization.k8s.io") if "sro" in name}
    assert cluster.get(DEFINITIONS, RUNS)["metadata"]["uid"] == before["metadata"]["uid"]
    assert cluster.get(RUNS, "run", "default")["metadata"]["uid"] == run["metadata"]["uid"]

    # A later installation takes over what was kept.
    done = await act(config.install, chart, "srlm", {})
    assert done["status"] == "deployed"
    assert cluster.get(RUNS, "run", "default")["metadata"]["uid"] == run["metadata"]["uid"]


async def test_a_definition_that_is_there_is_left_alone_until_it_is_handed_over(
    served: tuple[Cluster, helm.Config],
) -> None:
    cluster, config = served
    cluster.create(DEFINITIONS, custom_resource_definition())
    done = await act(config.install, str(kit.CHART), "srlm", {}, create_namespace=True)
    assert done["status"] == "deployed"
    assert "was there before this release" in done["notes"]
    before = cluster.get(DEFINITIONS, RUNS)["metadata"]
    done = await act(config.upgrade, str(kit.CHART), "srlm", {})
    assert "was there before this release" in done["notes"]
    assert cluster.get(DEFINITIONS, RUNS)["metadata"] == before

    # As the README says it.
    text = (kit.CHART / "README.md").read_text(encoding="utf-8")
    for verb, field in (("label", "labels"), ("annotate", "annotations")):
        (pairs,) = re.findall(rf"\$ kubectl {verb} crd {RUNS} (.+)", text)
        values = dict(pair.split("=") for pair in pairs.split())
        cluster.patch(DEFINITIONS, RUNS, {"metadata": {field: values}})
    done = await act(config.upgrade, str(kit.CHART), "srlm", {})
    assert "was there before this release" not in done["notes"]
    after = cluster.get(DEFINITIONS, RUNS)["metadata"]
    assert (after["uid"], after["annotations"]["helm.sh/resource-policy"]) == (before["uid"], "keep")


@pytest.mark.parametrize("left_out", [False, True], ids=["installed", "left out for a while"])
async def test_a_definition_without_its_annotations_is_not_deleted(
    served: tuple[Cluster, helm.Config], left_out: bool
) -> None:
    """As `kubectl replace` with the file of an older version leaves it."""
    cluster, config = served
    await act(config.install, str(kit.CHART), "srlm", {}, create_namespace=True)
    before = cluster.get(DEFINITIONS, RUNS)
    run = cluster.create(RUNS, RUN, "default")
    if left_out:
        await act(config.upgrade, str(kit.CHART), "srlm", {"crds": {"install": False}})
    cluster.patch(DEFINITIONS, RUNS, {"metadata": {"annotations": None, "labels": None}})
    assert "annotations" not in cluster.get(DEFINITIONS, RUNS)["metadata"]

    for _ in range(2):
        done = await act(config.upgrade, str(kit.CHART), "srlm", {"crds": {"install": True}})
        after = cluster.get(DEFINITIONS, RUNS)["metadata"]
        assert after["uid"] == before["metadata"]["uid"]
        assert cluster.get(RUNS, "run", "default")["metadata"]["uid"] == run["metadata"]["uid"]
        assert ("was there before this release" in done["notes"]) == left_out
    assert (after.get("annotations", {}).get("meta.helm.sh/release-name") == "srlm") != left_out


async def test_a_release_that_leaves_its_definition_to_others_does_not_delete_it(
    served: tuple[Cluster, helm.Config],
) -> None:
    """Also where the annotation is gone that has Helm keep it."""
    cluster, config = served
    await act(config.install, str(kit.CHART), "srlm", {}, create_namespace=True)
    before = cluster.get(DEFINITIONS, RUNS)
    run = cluster.create(RUNS, RUN, "default")
    cluster.patch(DEFINITIONS, RUNS, {"metadata": {"annotations": {"helm.sh/resource-policy": None}}})

    for once_more in (True, False, False):
        done = await act(config.upgrade, str(kit.CHART), "srlm", {"crds": {"install": False}})
        after = cluster.get(DEFINITIONS, RUNS)["metadata"]
        assert (after["uid"], after["annotations"]["helm.sh/resource-policy"]) == (before["metadata"]["uid"], "keep")
        assert cluster.get(RUNS, "run", "default")["metadata"]["uid"] == run["metadata"]["uid"]
        assert ("written it once more" in done["notes"]) == once_more


async def test_runs_with_a_finalizer_are_let_go_by_hand_without_the_operator(
    served: tuple[Cluster, helm.Config],
) -> None:
    """As the README says it: nothing is stuck for good."""
    cluster, config = served
    await act(config.install, str(kit.CHART), "srlm", {}, create_namespace=True)
    for name in ("plain", "cleaning"):
        meta = {"name": name, "namespace": "default"}
        meta |= {"finalizers": ["selfrewarding.dev/cleanup"]} if name == "cleaning" else {}
        cluster.create(RUNS, RUN | {"metadata": meta}, "default")
    await act(config.uninstall, "srlm")
    assert named(cluster, RUNS) == {"plain", "cleaning"}

    cluster.delete(DEFINITIONS, RUNS)
    await until(cluster, lambda: named(cluster, RUNS) == {"cleaning"})
    terminating = cluster.get(DEFINITIONS, RUNS)["status"]["conditions"]
    assert any(c["type"] == "Terminating" and c["status"] == "True" for c in terminating)
    cluster.patch(RUNS, "cleaning", {"metadata": {"finalizers": None}}, "default")
    await until(cluster, lambda: cluster.find(DEFINITIONS, RUNS) is None)


async def test_namespaced_installation(served: tuple[Cluster, helm.Config]) -> None:
    cluster, config = served
    for name in ("team-a", "team-b"):
        cluster.create("namespaces", {"metadata": {"name": name}})
    roles = named(cluster, "clusterroles.rbac.authorization.k8s.io")
    values = kit.values_of("namespaced") | {"crds": {"install": True}}
    done = await act(config.install, str(kit.CHART), "srlm", values, create_namespace=True)
    assert done["status"] == "deployed"
    assert named(cluster, "clusterroles.rbac.authorization.k8s.io") == roles
    where = {role["metadata"]["namespace"] for role in cluster.list("roles.rbac.authorization.k8s.io")}
    assert where == {"team-a", "team-b"}
