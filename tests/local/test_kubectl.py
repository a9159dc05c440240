"""The real kubectl works against the API server: everything here is a command that a user types."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from srlm_local.http.server import ApiServer
from srlm_local.kinds import bootstrap
from srlm_local.kinds.table import new_cluster
from srlm_local.store.cluster import Cluster

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")

ROOT = Path(__file__).parents[2]
CRD: dict[str, Any] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "things.example.com"},
    "spec": {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"plural": "things", "singular": "thing", "kind": "Thing", "shortNames": ["th"]},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "additionalPrinterColumns": [
                    {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
                    {"name": "Phase", "type": "string", "jsonPath": ".status.phase"},
                ],
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {
                                "type": "object",
                                "description": "What the thing shall be.",
                                "properties": {
                                    "size": {"type": "integer", "maximum": 9, "default": 1},
                                    "title": {"type": "string"},
                                },
                            },
                            "status": {"type": "object", "properties": {"phase": {"type": "string"}}},
                        },
                    }
                },
            }
        ],
    },
}
THING: dict[str, Any] = {
    "apiVersion": "example.com/v1",
    "kind": "Thing",
    "metadata": {"name": "t"},
    "spec": {"size": 2},
}
JOB: dict[str, Any] = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"name": "j"},
    "spec": {
        "suspend": True,
        "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "example.com/i:1"}]}},
    },
}


class Kubectl:
    """Runs kubectl with the kubeconfig of one server; manifests are passed on standard input."""

    def __init__(self, cluster: Cluster, kubeconfig: Path) -> None:
        self.cluster = cluster
        self._kubeconfig = kubeconfig

    async def start(self, *arguments: str, editor: str = "") -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            "kubectl",
            f"--kubeconfig={self._kubeconfig}",
            f"--cache-dir={self._kubeconfig.parent / 'cache'}",
            *arguments,
            env={**os.environ, "KUBE_EDITOR": editor},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )

    async def fails(self, command: str, manifest: dict[str, Any] | None = None) -> str:
        code, text = await self._run(command, manifest)
        assert code != 0, text
        return text

    async def __call__(self, command: str, manifest: dict[str, Any] | None = None) -> str:
        code, text = await self._run(command, manifest)
        assert code == 0, text
        return text

    async def _run(self, command: str, manifest: dict[str, Any] | None) -> tuple[int | None, str]:
        process = await self.start(*command.split())
        async with asyncio.timeout(60):
            out, _ = await process.communicate(json.dumps(manifest).encode() if manifest else None)
        return process.returncode, out.decode()


@pytest.fixture
async def kubectl(tmp_path: Path) -> AsyncIterator[Kubectl]:
    cluster = new_cluster(seed=1)
    server = await ApiServer(cluster).start()
    bootstrap.prepare(cluster)
    server.write_kubeconfig(tmp_path / "kubeconfig.json")
    tasks = bootstrap.start(cluster)
    yield Kubectl(cluster, tmp_path / "kubeconfig.json")
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await server.stop()


async def test_custom_resources_from_definition_to_deletion(kubectl: Kubectl) -> None:
    await kubectl("create -f -", CRD)
    await kubectl("wait --for=condition=Established crd/things.example.com --timeout=30s")
    assert "created" in await kubectl("apply -f -", THING)
    assert "unchanged" in await kubectl("apply -f -", THING)
    assert "configured" in await kubectl("apply -f -", {**THING, "spec": {"size": 3}})
    rows = (await kubectl("get th")).splitlines()
    assert [line.split() for line in rows] == [["NAME", "SIZE", "PHASE"], ["t", "3"]]
    assert "What the thing shall be." in await kubectl("explain thing.spec")
    assert "Size:  3" in await kubectl("describe thing t")
    await kubectl('patch thing t --subresource=status --type=merge -p {"status":{"phase":"Done"}}')
    await kubectl("wait thing/t --for=jsonpath={.status.phase}=Done --timeout=30s")
    await kubectl("label thing t colour=red")
    assert (await kubectl("get things -l colour=red -o name")).strip() == "thing.example.com/t"
    await kubectl("delete thing t")
    await kubectl("delete crd things.example.com")
    # kubectl remembers discovery for a while and finds out when it asks.
    assert "the server could not find the requested resource" in await kubectl.fails("get things")


async def test_invalid_and_unknown_fields_are_told(kubectl: Kubectl) -> None:
    await kubectl("create -f -", CRD)
    text = await kubectl.fails("apply -f -", {**THING, "spec": {"size": 10}})
    assert "spec.size: Invalid value: 10: spec.size in body should be less than or equal to 9" in text
    text = await kubectl.fails("apply -f -", {**THING, "spec": {"sise": 1}})
    assert 'unknown field "spec.sise"' in text
    text = await kubectl("apply --validate=warn -f -", {**THING, "spec": {"sise": 1}})
    assert 'Warning: unknown field "spec.sise"' in text


async def test_server_side_apply_is_refused_with_advice(kubectl: Kubectl) -> None:
    await kubectl("create -f -", CRD)
    assert "works" in await kubectl.fails("apply --server-side -f -", THING)
    assert "created" in await kubectl("apply -f -", THING)


async def test_editing_and_json_patches(kubectl: Kubectl) -> None:
    await kubectl("create -f -", CRD)
    await kubectl("apply -f -", THING)
    await kubectl('patch thing t --type=json -p [{"op":"replace","path":"/spec/size","value":5}]')
    assert kubectl.cluster.get("things.example.com", "t", "default")["spec"] == {"size": 5}
    process = await kubectl.start("edit", "thing", "t", editor="sed -i /size:/s/5/7/")
    out, _ = await process.communicate()
    assert "edited" in out.decode()
    assert kubectl.cluster.get("things.example.com", "t", "default")["spec"] == {"size": 7}


async def test_the_projects_own_definition_and_samples(kubectl: Kubectl) -> None:
    text = await kubectl.fails(f"apply -f {ROOT / 'crds' / 'samples'}")
    assert "ensure CRDs are installed first" in text
    definition = ROOT / "crds" / "selfrewarding.dev_selfrewardingruns.yaml"
    await kubectl(f"apply -f {definition}")
    await kubectl("wait --for=condition=Established crd/selfrewardingruns.selfrewarding.dev --timeout=30s")
    before = kubectl.cluster.version
    await kubectl(f"apply -f {definition}")
    assert kubectl.cluster.version == before, "the same again changes nothing"
    assert "created" in await kubectl(f"apply -f {ROOT / 'crds' / 'samples'}")
    before = kubectl.cluster.version
    assert "configured" not in await kubectl(f"apply -f {ROOT / 'crds' / 'samples'}")
    assert kubectl.cluster.version == before
    assert "PHASE" in await kubectl("get srr")
    assert "iterations" in await kubectl("explain srr.spec")


async def test_jobs_and_pods(kubectl: Kubectl) -> None:
    await kubectl("apply -f -", JOB)
    changed = {**JOB, "spec": {**JOB["spec"], "parallelism": 2}}
    assert "configured" in await kubectl("apply -f -", changed)
    text = await kubectl.fails("apply -f -", {**JOB, "spec": {**JOB["spec"], "completions": 3}})
    assert "field is immutable" in text
    assert "Parallelism:" in await kubectl("describe job j")
    assert (await kubectl("get job j")).splitlines()[1].split()[:3] == ["j", "Running", "0/1"]
    await kubectl("delete job j")
    await kubectl("run p --image=example.com/i:1 --restart=Never")
    assert "Pending" in await kubectl("get pods")
    assert "NODE" in await kubectl("get pods -o wide")
    assert "Service Account:  default" in await kubectl("describe pod p")
    await kubectl("delete pod p")
    assert kubectl.cluster.find("pods", "p", "default") is None


async def test_logs_are_those_of_the_reader(kubectl: Kubectl) -> None:
    asked: list[dict[str, str]] = []

    def read(pod: dict[str, Any], query: dict[str, str]) -> str:
        asked.append(query)
        return f"log of {pod['metadata']['name']}\n"

    kubectl.cluster.log_reader = read
    await kubectl("run p --image=example.com/i:1 --restart=Never")
    kubectl.cluster.bind("p", "default", "node")
    assert await kubectl("logs p --tail=5 --timestamps") == "log of p\n"
    assert asked == [{"container": "p", "tailLines": "5", "timestamps": "true"}]
    assert "container other is not valid for pod p" in await kubectl.fails("logs p -c other")


async def test_a_watch_shows_changes_as_they_happen(kubectl: Kubectl) -> None:
    kubectl.cluster.create("configmaps", {"metadata": {"name": "old"}}, "default")
    process = await kubectl.start("get", "configmaps", "-w", "--output-watch-events", "-o", "name")
    assert process.stdout is not None
    seen: list[str] = []
    async with asyncio.timeout(60):
        while "configmap/old" not in "".join(seen):
            seen.append((await process.stdout.readline()).decode())
        kubectl.cluster.create("configmaps", {"metadata": {"name": "new"}}, "default")
        assert "configmap/new" in (await process.stdout.readline()).decode()
    process.terminate()
    await process.wait()


async def test_commands_that_send_protobuf(kubectl: Kubectl) -> None:
    await kubectl("create namespace other")
    await kubectl("create configmap c -n other --from-literal=a=b")
    await kubectl("create secret generic s -n other --from-literal=password=x")
    assert kubectl.cluster.get("configmaps", "c", "other")["data"] == {"a": "b"}
    assert kubectl.cluster.get("secrets", "s", "other")["data"] == {"password": "eA=="}
    assert "kubectl apply -f -" in await kubectl.fails("create serviceaccount robot -n other")
    await kubectl("delete namespace other")
    assert kubectl.cluster.find("configmaps", "c", "other") is None


async def test_versions_resources_and_health(kubectl: Kubectl) -> None:
    assert "v1.36" in await kubectl("version")
    listed = await kubectl("api-resources --verbs=list -o name")
    assert {"pods", "jobs.batch", "leases.coordination.k8s.io", "roles.rbac.authorization.k8s.io"} <= set(
        listed.split()
    )
    assert await kubectl("get --raw /readyz") == "ok"
