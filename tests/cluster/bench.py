"""One test's share of the cluster: a namespace, the chart's account with its rights, pods by script, the operator.

The operator is a process of its own, as in its image, and speaks to the API server as the chart's service account and
through a proxy that writes down every request.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any

from charts import chart_kit
from cluster.admin import NAMESPACES, RIGHTS, Admin, Object
from cluster.proxy import Proxy
from cluster.scripted_pods import SCHEDULER, ScriptedPods
from cluster.target import LABEL, remove_namespace, remove_rights
from cluster.view import View, viewing
from srlm_operator.cluster.client import RUNS
from srlm_operator.names import API_VERSION, KIND, LABEL_ITERATION, LABEL_NODE
from support.builders import manifest_spec

#: The shortest loop: no EFT, no evaluation.
SHORT: Object = {
    "iterations": 1,
    "seedData": {"uri": "hf://org/data", "eft": {"enabled": False}},
    "evaluation": {"enabled": False},
}
_ACCOUNT = "operator"


@dataclass
class Bench:
    """Everything in one namespace; `settings` are the operator's, as environment variables without SRLM_."""

    admin: Admin
    namespace: str
    view: View
    pods: ScriptedPods
    proxy: Proxy
    folder: Path
    settings: Mapping[str, str]
    process: subprocess.Popen[bytes] | None = None
    lives: int = 0
    path: tuple[Path, ...] = ()
    """Folders in front of the operator's import path: another version of it."""

    # ---- the operator

    def start(self) -> None:
        """Start a process of the operator."""
        self.lives += 1
        environ = {k: v for k, v in os.environ.items() if not k.startswith("SRLM_")}
        environ |= {f"SRLM_{name}": value for name, value in self.settings.items()}
        environ["KUBECONFIG"] = str(self.folder / "operator.kubeconfig")
        environ["PYTHONPATH"] = os.pathsep.join(str(folder) for folder in self.path)
        with self._log.open("ab") as log:
            command = [sys.executable, "-m", "srlm_cli", "operator"]
            self.process = subprocess.Popen(command, env=environ, stdout=log, stderr=log, cwd=self.folder)

    async def stop(self, number: int = signal.SIGTERM) -> None:
        """End the operator as a rollout does (SIGTERM), or as a node that loses power (SIGKILL)."""
        if self.process is None:
            return
        process, self.process = self.process, None
        process.send_signal(number)
        code = await asyncio.to_thread(process.wait, 60)
        wanted = -signal.SIGKILL if number == signal.SIGKILL else 0
        assert code == wanted, f"the operator ended with {code}\n{self.log()}"

    @property
    def _log(self) -> Path:
        return self.folder / f"operator-{self.lives}.log"

    def log(self) -> str:
        """The end of what the operator said."""
        return self._log.read_text(encoding="utf-8")[-6000:] if self.lives else ""

    # ---- runs

    def manifest(self, name: str = "run", **changes: Any) -> Object:
        """A run; `changes` replace whole sections of the spec."""
        template = {"podTemplate": {"spec": {"schedulerName": SCHEDULER}}}
        return {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": manifest_spec(**(template | changes)),
        }

    async def create(self, name: str = "run", **changes: Any) -> Object:
        return await self.admin.create(RUNS, self.namespace, self.manifest(name, **changes))

    async def edit(self, changes: Mapping[str, Any], name: str = "run") -> None:
        """Merge into the spec."""
        await self.admin.merge(RUNS, self.namespace, name, {"spec": dict(changes)})

    async def delete(self, name: str = "run") -> None:
        await self.admin.delete(RUNS, self.namespace, name)

    def run(self, name: str = "run") -> Object:
        return self.view.objects["runs"].get(name, {})

    def status(self, name: str = "run") -> Object:
        found: Object = self.run(name).get("status", {})
        return found

    def condition(self, kind: str, name: str = "run") -> Object:
        """The condition if it holds, or nothing."""
        conditions = self.status(name).get("conditions", [])
        return next((c for c in conditions if c["type"] == kind and c["status"] == "True"), {})

    def jobs(self, node: str = "", iteration: int | None = None) -> list[Object]:
        """Jobs there are, oldest first."""
        found = sorted(self.view.objects["jobs"].values(), key=lambda job: int(job["metadata"]["resourceVersion"]))
        labels = [(job, job["metadata"]["labels"]) for job in found]
        return [
            job
            for job, label in labels
            if node in ("", label[LABEL_NODE]) and iteration in (None, int(label[LABEL_ITERATION]))
        ]

    def record(self, node: str, iteration: int = -1) -> Object:
        """What status says of a stage, of the last iteration by default."""
        iterations = self.status().get("iterations", [])
        stages = iterations[iteration]["stages"] if iterations else []
        return next((stage for stage in stages if stage["name"] == node), {})

    async def until(self, what: Any, seconds: float = 90) -> Any:
        """Wait until `what` gives something true after some change in the namespace."""

        def checked() -> Any:
            assert self.process is None or self.process.poll() is None, f"the operator has ended\n{self.log()}"
            return what()

        return await self.view.until(checked, seconds)

    async def succeeded(self, name: str = "run") -> Object:
        """Wait until the run is done; its status."""
        await self.until(lambda: self.condition("Ready", name))
        return self.status(name)


@asynccontextmanager
async def bench(kubeconfig: Path, folder: Path, *, clusterwide: bool = False, **settings: str) -> AsyncIterator[Bench]:
    """A namespace with the chart's rights. At the end nothing of it is left, whatever happened."""
    namespace = f"srlm-test-{token_hex(4)}"
    watched = [] if clusterwide else [namespace]
    async with Admin(kubeconfig) as admin:
        labels = {LABEL: namespace, "pod-security.kubernetes.io/enforce": "restricted"}
        await admin.create(NAMESPACES, "", {"metadata": {"name": namespace, "labels": labels}})
        proxy = Proxy(admin.configuration)
        try:
            await _grant(admin, namespace, watched)
            await proxy.start()
            token = await admin.token(namespace, _ACCOUNT)
            proxy.kubeconfig(folder / "operator.kubeconfig", token, namespace)
            environment = _environment(namespace, watched) | settings
            async with viewing(admin, namespace) as view:
                pods = ScriptedPods(view)
                found = Bench(admin, namespace, view, pods, proxy, folder, environment)
                async with _running(pods):
                    try:
                        yield found
                    finally:
                        await found.stop(signal.SIGKILL) if found.process else None
            assert proxy.refused() == [], "the chart's rights are not enough"
        finally:
            await proxy.stop()
            await remove_rights(admin, f"{LABEL}={namespace}")
            await remove_namespace(admin, namespace)


def _environment(namespace: str, watched: list[str]) -> dict[str, str]:
    return {
        "NAMESPACES": ",".join(watched),
        "HEALTH_PORT": "0",
        "PROGRESS_SECONDS": "3600",
        "REFUSED_RETRY_SECONDS": "0.2",
        "LEASE_NAMESPACE": namespace,
        "LEASE_NAME": _ACCOUNT,
        "LEASE_SECONDS": "5",
    }


async def _grant(admin: Admin, namespace: str, watched: list[str]) -> None:
    """Account, roles and bindings as the chart renders them, with a label by which they are found again."""
    values = {
        "fullnameOverride": _ACCOUNT,
        "watchNamespaces": watched,
        # The cluster's own roles stay as they are.
        "rbac": {"aggregateToDefaultRoles": False},
    }
    for obj in chart_kit.manifests(values, namespace):
        if obj["kind"] in RIGHTS:
            where = "" if obj["kind"].startswith("Cluster") else namespace
            assert obj["metadata"].get("namespace", "") == where, "nothing outside the test's namespace"
            labels = {**obj["metadata"]["labels"], LABEL: namespace}
            obj["metadata"] = {**obj["metadata"], "labels": labels}
            await admin.create(RIGHTS[obj["kind"]], where, obj)


@asynccontextmanager
async def _running(pods: ScriptedPods) -> AsyncIterator[None]:
    task = asyncio.create_task(pods.run(), name="scripted pods")
    try:
        yield
    finally:
        ended = task.done()
        task.cancel()
        result = (await asyncio.gather(task, return_exceptions=True))[0]
        if ended and isinstance(result, Exception):
            raise result
