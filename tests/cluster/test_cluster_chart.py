"""The chart on the API server under test: every object is accepted, and Helm installs, upgrades and uninstalls it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import helm_python as helm
import pytest

from charts import chart_kit as kit
from cluster.admin import RIGHTS
from cluster.bench import SHORT, Bench
from srlm_operator.cluster.client import RUNS, Resource

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
async def test_every_object_of_a_rendering_is_accepted(b: Bench, name: str) -> None:
    values = kit.values_of(name)
    if values.get("watchNamespaces"):
        values["watchNamespaces"] = [b.namespace]
    refused = []
    for obj in kit.manifests(values, b.namespace):
        if obj["kind"] not in LEFT_OUT:
            where = "" if obj["kind"].startswith("Cluster") else b.namespace
            obj = {**obj, "metadata": {**obj["metadata"]} | ({"namespace": where} if where else {})}
            if message := await b.admin.dry_run(PLACES[obj["kind"]], where, obj):
                refused.append(message)
    assert refused == []


async def test_helm_installs_upgrades_and_uninstalls(b: Bench, cluster: Path) -> None:
    # Nothing outside this namespace: no cluster role, and not the definition.
    values: dict[str, Any] = {"watchNamespaces": [b.namespace], "crds": {"install": False}}
    config = helm.Config(kubeconfig_path=cluster, namespace=b.namespace)
    release = "srlm"

    async def act(action: Any, *arguments: Any) -> Any:
        return await asyncio.to_thread(action, *arguments, timeout=60)

    async def deployments() -> list[dict[str, Any]]:
        return (await b.admin.list(PLACES["Deployment"], b.namespace)).items

    try:
        done = await act(config.install, str(kit.CHART), release, values)
        assert (done["status"], done["revision"]) == ("deployed", 1)
        (deployment,) = await deployments()
        run = await b.create(**SHORT)
        done = await act(config.upgrade, str(kit.CHART), release, values | {"replicas": 2})
        assert (done["status"], done["revision"]) == ("deployed", 2)
        (again,) = await deployments()
        assert (again["metadata"]["uid"], again["spec"]["replicas"]) == (deployment["metadata"]["uid"], 2)
        await act(config.uninstall, release)
        assert await deployments() == []
        assert (await b.admin.get(RUNS, b.namespace, "run"))["metadata"]["uid"] == run["metadata"]["uid"]
    finally:
        config.close()
