"""The chart on the API server under test: every object is accepted, and Helm installs, upgrades and uninstalls it."""

from __future__ import annotations

import asyncio
from typing import Any

import helm_python as helm
import pytest

from charts import chart_kit as kit
from srlm_operator.cluster.client import Resource
from support.cluster.admin import RIGHTS
from support.cluster.harness import SHORT, Harness

pytestmark = pytest.mark.e2e
#: Kinds that come with the Prometheus operator, and the definition of runs, which is there already.
LEFT_OUT = {"ServiceMonitor", "PrometheusRule", "CustomResourceDefinition"}
PLACES = RIGHTS | {
    "Deployment": Resource("apps", "v1", "deployments"),
    "PodDisruptionBudget": Resource("policy", "v1", "poddisruptionbudgets"),
    "NetworkPolicy": Resource("networking.k8s.io", "v1", "networkpolicies"),
    "Service": Resource("", "v1", "services"),
    "ConfigMap": Resource("", "v1", "configmaps"),
}


@pytest.mark.parametrize("name", kit.VALUES_FILES)
async def test_every_object_of_a_rendering_is_accepted(h: Harness, name: str) -> None:
    values = kit.values_of(name)
    if values.get("watchNamespaces"):
        values["watchNamespaces"] = [h.namespace]
    refused = []
    for obj in kit.manifests(values, h.namespace):
        if obj["kind"] not in LEFT_OUT:
            where = "" if obj["kind"].startswith("Cluster") else h.namespace
            obj = {**obj, "metadata": {**obj["metadata"]} | ({"namespace": where} if where else {})}
            if message := await h.admin.dry_run(PLACES[obj["kind"]], where, obj):
                refused.append(message)
    assert refused == []


async def test_helm_installs_upgrades_and_uninstalls(h: Harness) -> None:
    # Nothing outside this namespace: no cluster role, and not the definition.
    values: dict[str, Any] = {"watchNamespaces": [h.namespace], "crds": {"install": False}}
    config = helm.Config(kubeconfig_path=h.admin.kubeconfig, namespace=h.namespace)
    release = "srlm"

    async def act(action: Any, *arguments: Any) -> Any:
        return await asyncio.to_thread(action, *arguments, timeout=60)

    async def deployments() -> list[dict[str, Any]]:
        return (await h.admin.list(PLACES["Deployment"], h.namespace)).items

    try:
        done = await act(config.install, str(kit.CHART), release, values)
        assert (done["status"], done["revision"]) == ("deployed", 1)
        (deployment,) = await deployments()
        run = await h.create(**SHORT)
        done = await act(config.upgrade, str(kit.CHART), release, values | {"replicas": 2})
        assert (done["status"], done["revision"]) == ("deployed", 2)
        (again,) = await deployments()
        assert (again["metadata"]["uid"], again["spec"]["replicas"]) == (deployment["metadata"]["uid"], 2)
        await act(config.uninstall, release)
        assert await deployments() == []
        assert (await h.get())["metadata"]["uid"] == run["metadata"]["uid"]
    finally:
        config.close()
