"""One test's share of a cluster: a namespace, the chart's account with its rights, pods by script, the operator.

The cluster is the one-machine one in the test's own event loop, or that of a kubeconfig. The operator runs in the
test's process, which is fast, or as a process of its own, as in its image. Either way it speaks to the API server as
the chart's service account and through a proxy that writes down every request and may break some. Everything else
goes through the API, so that a test runs on both.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest

from charts import chart_kit
from srlm_operator.cluster.client import JOBS, RUNS, Resource
from srlm_operator.crd.definition import API_VERSION, KIND
from srlm_operator.names import LABEL_ITERATION, LABEL_NODE, LABEL_RUN
from srlm_operator.process import Operator
from srlm_operator.settings import Settings
from support.builders import manifest_spec
from support.cluster.admin import NAMESPACES, RIGHTS, Admin, Object
from support.cluster.faults import FaultProxy
from support.cluster.kubelet import KINDS as KUBELET_KINDS
from support.cluster.kubelet import Kubelet
from support.cluster.machine import Machine, one_machine
from support.cluster.pods import SCHEDULER, ScriptedPods
from support.cluster.target import LABEL, define, definition, gone, install, remove_namespace, remove_unscoped
from support.cluster.view import KINDS, LIMIT_SECONDS, View, viewing

#: The shortest loop: no EFT, no evaluation.
SHORT: Object = {
    "iterations": 1,
    "seedData": {"uri": "hf://org/data", "eft": {"enabled": False}},
    "evaluation": {"enabled": False},
}
_ACCOUNT = "operator"


@dataclass
class Harness:
    """Everything in one namespace; `settings` are the operator's, by the names of their fields."""

    admin: Admin
    namespace: str
    view: View
    pods: ScriptedPods
    proxy: FaultProxy
    folder: Path
    settings: dict[str, Any]
    machine: Machine | None
    """The one-machine cluster, when it is one: for tests that reach into it."""
    apart: bool
    """The operator is a process of its own."""
    process: asyncio.subprocess.Process | None = None
    operator: Operator | None = None
    lives: int = 0
    path: tuple[Path, ...] = ()
    """Folders in front of the operator's import path: another version of it."""
    defined: bool = False
    """Whether the definition of runs was changed."""
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _task: asyncio.Task[None] | None = None

    # ---- the operator

    @property
    def kubeconfig(self) -> Path:
        """The operator's."""
        return self.folder / "operator.kubeconfig"

    async def start(self) -> None:
        """Start an operator; one in this process is waited for."""
        self.lives += 1
        if self.apart:
            environ = {k: v for k, v in os.environ.items() if not k.startswith("SRLM_")}
            environ |= {f"SRLM_{name.upper()}": _text(value) for name, value in self.settings.items()}
            environ["KUBECONFIG"] = str(self.kubeconfig)
            environ["PYTHONPATH"] = os.pathsep.join(str(folder) for folder in self.path)
            with self._log.open("ab") as log:
                command = [sys.executable, "-m", "srlm_cli", "operator"]
                self.process = await asyncio.create_subprocess_exec(
                    *command, env=environ, stdout=log, stderr=log, cwd=self.folder
                )
            return
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("KUBECONFIG", str(self.kubeconfig))
            self.operator = Operator(Settings(**self.settings))
        self._stop = asyncio.Event()
        self._task = asyncio.create_task(self.operator.run(self._stop), name="operator")
        ready = asyncio.create_task(self.operator.ready.wait())
        await asyncio.wait({ready, self._task}, timeout=LIMIT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        self._check()

    async def stop(self) -> None:
        """End the operator as a rollout does."""
        if self.process is not None:
            await self._end(signal.SIGTERM, 0)
        if self._task is not None:
            self._stop.set()
            task, self._task, self.operator = self._task, None, None
            await task

    async def kill(self) -> None:
        """Without any farewell, as when a node loses power."""
        if self.process is not None:
            await self._end(signal.SIGKILL, -signal.SIGKILL)
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = self.operator = None

    async def _end(self, number: int, wanted: int) -> None:
        assert self.process is not None
        process, self.process = self.process, None
        process.send_signal(number)
        code = await asyncio.wait_for(process.wait(), 60)
        assert code == wanted, f"the operator ended with {code}\n{self.log()}"

    def _check(self) -> None:
        """Fail if the operator has ended by itself."""
        assert self.process is None or self.process.returncode is None, f"the operator has ended\n{self.log()}"
        if self._task is not None and self._task.done():
            self._task.result()
            raise AssertionError("the operator has ended")

    @property
    def _log(self) -> Path:
        return self.folder / f"operator-{self.lives}.log"

    def log(self) -> str:
        """The end of what an operator's process said."""
        return self._log.read_text(encoding="utf-8")[-6000:] if self._log.is_file() else ""

    # ---- runs

    def manifest(self, name: str = "run", **changes: Any) -> Object:
        """A run; `changes` replace whole sections of the spec."""
        spec = manifest_spec(**changes)
        template = spec.setdefault("podTemplate", {})
        spec["podTemplate"] = {**template, "spec": {"schedulerName": SCHEDULER, **template.get("spec", {})}}
        metadata = {"name": name, "namespace": self.namespace}
        return {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec}

    async def create(self, name: str = "run", **changes: Any) -> Object:
        return await self.admin.create(RUNS, self.namespace, self.manifest(name, **changes))

    async def edit(self, changes: Mapping[str, Any], name: str = "run") -> None:
        """Merge into the spec."""
        await self.admin.merge(RUNS, self.namespace, name, {"spec": dict(changes)})

    async def annotate(self, marks: Mapping[str, Any], name: str = "run") -> None:
        await self.admin.merge(RUNS, self.namespace, name, {"metadata": {"annotations": dict(marks)}})

    async def delete(self, name: str = "run") -> None:
        await self.admin.delete(RUNS, self.namespace, name)

    async def get(self, name: str = "run") -> Object:
        """The run as the API server has it just now."""
        return await self.admin.get(RUNS, self.namespace, name)

    async def forget_status(self, name: str = "run") -> None:
        """As a restore from a backup does."""
        await self.admin.merge(RUNS, self.namespace, name, {"status": None}, sub="status")

    def run(self, name: str = "run") -> Object:
        """The run as the view has it, or nothing."""
        return self.view.objects["runs"].get(name, {})

    def status(self, name: str = "run") -> Object:
        found: Object = self.run(name).get("status", {})
        return found

    def condition(self, kind: str, name: str = "run") -> Object:
        """The condition if it holds, or nothing."""
        conditions = self.status(name).get("conditions", [])
        return next((c for c in conditions if c["type"] == kind and c["status"] == "True"), {})

    def reported(self, name: str = "run") -> bool:
        """Whether the run has ended and its report is there."""
        status = self.status(name)
        return bool(status.get("report", {}).get("end")) and status["reportStage"]["state"] == "Succeeded"

    def record(self, node: str, iteration: int = -1, name: str = "run") -> Object:
        """What status says of a stage, of the last iteration by default."""
        iterations = self.status(name).get("iterations", [])
        stages = iterations[iteration]["stages"] if iterations else []
        return next((stage for stage in stages if stage["name"] == node), {})

    def keys(self, name: str = "run") -> dict[str, str]:
        """Key of every stage that status knows, by node id."""
        stages = [(n, stage) for n, i in enumerate(self.status(name).get("iterations", [])) for stage in i["stages"]]
        return {f"{n}/{stage['name']}": stage["key"] for n, stage in stages if stage.get("key")}

    def events(self, reason: str = "", name: str = "run") -> list[Object]:
        """Events about a run, oldest first."""
        found = [e for e in self.view.objects["events"].values() if e["involvedObject"]["name"] == name]
        return [e for e in found if e["involvedObject"]["kind"] == KIND and reason in ("", e["reason"])]

    async def until(self, what: Callable[[], Any], seconds: float = LIMIT_SECONDS) -> Any:
        """Wait until `what` gives something true after some change in the namespace."""

        def checked() -> Any:
            self._check()
            return what()

        return await self.view.until(checked, seconds)

    async def succeeded(self, name: str = "run") -> Object:
        """Wait until the run is done; its status."""
        await self.until(lambda: self.condition("Ready", name))
        return self.status(name)

    async def barrier(self, name: str) -> None:
        """Another run from beginning to end: whatever happened before has been handled by then."""
        await self.create(name, **SHORT)
        await self.until(lambda: self.reported(name))

    # ---- what belongs to runs

    def jobs(self, node: str = "", iteration: int | None = None, run: str = "") -> list[Object]:
        """Jobs there are, oldest first."""
        found = sorted(self.view.objects["jobs"].values(), key=lambda job: job["metadata"]["creationTimestamp"])
        return [job for job in found if _belongs(job, node, iteration, run)]

    def job(self, node: str) -> Object:
        """The newest Job of a node, or nothing."""
        return next(reversed(self.jobs(node)), {})

    def nodes(self, run: str = "") -> list[str]:
        """`<iteration>/<node>` of all Jobs there are."""
        return [node_id(job) for job in self.jobs(run=run)]

    def made(self) -> list[str]:
        """`<iteration>/<node>` of all Jobs there ever were. A name is never used twice."""
        added = [c.object for c in self.view.history if (c.kind, c.type) == ("jobs", "ADDED")]
        names = [job["metadata"]["name"] for job in added]
        assert len(names) == len(set(names)), "a Job of the same name was made again"
        return [node_id(job) for job in added if LABEL_NODE in job["metadata"]["labels"]]

    def pods_of(self, node: str) -> list[Object]:
        """Pods of a node, by name."""
        return [pod for _, pod in sorted(self.view.objects["pods"].items()) if _belongs(pod, node, None, "")]

    def running(self, node: str) -> list[Object]:
        return [pod for pod in self.pods_of(node) if pod.get("status", {}).get("phase") == "Running"]

    def left(self) -> dict[str, list[str]]:
        """Names of Jobs, pods and Services there are, by kind."""
        kinds = ("jobs", "pods", "services")
        return {kind: list(self.view.objects[kind]) for kind in kinds if self.view.objects[kind]}

    async def remove_jobs(self) -> None:
        """By hand, and wait until they are gone."""
        for job in self.jobs():
            await self.admin.remove(JOBS, self.namespace, job["metadata"]["name"])
        await self.until(lambda: not self.jobs())

    async def put(self, resource: Resource, name: str, **body: Any) -> Object:
        """Create an object of the namespace, or merge into it."""
        return await self.admin.put(resource, self.namespace, name, body)

    async def put_unscoped(self, resource: Resource, name: str, **body: Any) -> None:
        """Create an object in no namespace, which is removed at the end."""
        await self.admin.create(resource, "", {"metadata": {"name": name, "labels": {LABEL: self.namespace}}, **body})

    async def remove_namespace(self) -> None:
        """A person deletes the namespace; only with an operator that is not in it."""
        await self.admin.delete(NAMESPACES, "", self.namespace)

    async def define(self, definition: Object) -> None:
        """Change the definition of runs, until the end of the test."""
        self.defined = True
        await define(self.admin, definition)

    async def namespace_gone(self) -> None:
        await gone(self.admin, NAMESPACES, self.namespace)


def _belongs(obj: Object, node: str, iteration: int | None, run: str) -> bool:
    labels = obj["metadata"].get("labels") or {}
    if LABEL_NODE not in labels:
        return False
    at = iteration in (None, int(labels[LABEL_ITERATION]))
    return at and node in ("", labels[LABEL_NODE]) and run in ("", labels[LABEL_RUN])


def node_id(job: Object) -> str:
    """`<iteration>/<node>` of a Job."""
    labels = job["metadata"]["labels"]
    return f"{labels.get(LABEL_ITERATION)}/{labels.get(LABEL_NODE)}"


def _text(value: Any) -> str:
    """As an environment variable."""
    if isinstance(value, tuple):
        return ",".join(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


@asynccontextmanager
async def harness(
    folder: Path,
    kubeconfig: Path | None = None,
    *,
    apart: bool | None = None,
    strict: bool = False,
    clusterwide: bool = False,
    namespace: str = "team",
    **settings: Any,
) -> AsyncIterator[Harness]:
    """A namespace with the chart's rights; start the operator yourself. At the end nothing of it is left.

    kubeconfig: the administrator's, of a cluster with the definition of runs; None for a one-machine cluster.
    apart: the operator is a process of its own; by default on a kubeconfig's cluster.
    strict: pods start only when what they name exists and a node has what they ask for.
    clusterwide: the operator serves all namespaces, from one of its own.
    namespace: on a one-machine cluster; on a kubeconfig's it is a new one.
    """
    async with AsyncExitStack() as stack:
        machine = None if kubeconfig else await stack.enter_async_context(one_machine(folder))
        if machine is None:
            namespace = f"srlm-test-{token_hex(4)}"
        home = f"{namespace}-system" if clusterwide else namespace
        watched = [] if clusterwide else [namespace]
        admin = await stack.enter_async_context(Admin(kubeconfig or folder / "kubeconfig"))
        if machine is not None:
            await install(admin)
        proxy = FaultProxy(admin.configuration)
        stack.push_async_callback(proxy.stop)
        for name in {namespace, home}:
            labels = {LABEL: namespace, "pod-security.kubernetes.io/enforce": "restricted"}
            await admin.put(NAMESPACES, "", name, {"metadata": {"labels": labels}})
            if machine is None:
                stack.push_async_callback(remove_namespace, admin, name)
        if machine is None:
            stack.push_async_callback(remove_unscoped, admin, f"{LABEL}={namespace}")
        await _grant(admin, namespace, home, watched)
        await proxy.start()
        proxy.write_kubeconfig(folder / "operator.kubeconfig", await admin.token(home, _ACCOUNT), namespace)
        view = await stack.enter_async_context(viewing(admin, namespace, KINDS | (KUBELET_KINDS if strict else {})))
        pods = ScriptedPods(view, kubelet=Kubelet(view, folder / "pods") if strict else None)
        quick = {
            "namespaces": tuple(watched),
            "health_port": 0,
            "progress_seconds": 3600,
            "refused_retry_seconds": 0.2,
            "lease_namespace": home,
            "lease_name": _ACCOUNT,
            "lease_seconds": 5,
        }
        process = machine is None if apart is None else apart
        found = Harness(admin, namespace, view, pods, proxy, folder, quick | settings, machine, process)
        await stack.enter_async_context(_running(pods))
        stack.push_async_callback(found.kill)
        try:
            yield found
        finally:
            if found.defined and machine is None:
                await define(admin, definition())
        await found.stop()
        assert proxy.refused() == [], "the chart's rights are not enough"
    # What libraries left is reported here. Elsewhere Python 3.11 may trip over it: a traceback that is written in the
    # middle of ast.parse makes that fail with "recursion depth mismatch".
    gc.collect()


@functools.cache
def _rights(namespace: str, home: str, watched: tuple[str, ...]) -> list[Object]:
    """Account, roles and bindings as the chart renders them."""
    # The cluster's own roles stay as they are.
    values = {
        "fullnameOverride": _ACCOUNT,
        "watchNamespaces": list(watched),
        "rbac": {"aggregateToDefaultRoles": False},
    }
    return [obj for obj in chart_kit.manifests(values, home) if obj["kind"] in RIGHTS]


async def _grant(admin: Admin, namespace: str, home: str, watched: list[str]) -> None:
    """The chart's rights, with a label by which they are found again."""
    for obj in _rights(namespace, home, tuple(watched)):
        meta = obj["metadata"]
        where = "" if obj["kind"].startswith("Cluster") else meta["namespace"]
        assert where in ("", namespace, home), "nothing outside the test's namespaces"
        labels = {**meta["labels"], LABEL: namespace}
        await admin.create(RIGHTS[obj["kind"]], where, {**obj, "metadata": {**meta, "labels": labels}})


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
