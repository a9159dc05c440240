"""The operator against the one-machine API server over real HTTP, with pods that end by script.

Real: API server, RBAC, CRD, Job controller, Kopf, our client. Scripted: what happens inside the pods.
"""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from srlm_contract.tasks import StageTask
from srlm_local import provision
from srlm_local.http.server import ApiServer
from srlm_local.jobcontroller import sync
from srlm_local.jobcontroller.controller import JobController
from srlm_local.kinds import bootstrap
from srlm_local.kinds.table import new_cluster
from srlm_local.podrunner.status import NODE
from srlm_local.store.cluster import Cluster
from srlm_local.store.errors import ApiError
from srlm_operator.process import Operator
from srlm_operator.settings import Settings
from support import kubelet
from support.builders import manifest_spec
from support.stage_script import Ending, FakeStages

RUNS = "selfrewardingruns.selfrewarding.dev"
JOBS = "jobs.batch"
Object = dict[str, Any]
#: The shortest loop: no EFT, no evaluation.
SHORT: Object = {
    "iterations": 1,
    "seedData": {"uri": "hf://org/data", "eft": {"enabled": False}},
    "evaluation": {"enabled": False},
}
LIMIT_SECONDS = 90


@dataclass
class ScriptedPods:
    """Starts and ends every pod as `FakeStages` says; `hold` keeps pods of a node running."""

    cluster: Cluster
    stages: FakeStages
    held: set[str] = field(default_factory=set)
    waiting: dict[str, Object] = field(default_factory=dict)
    """Container state `waiting` of the pods of a node, instead of running."""
    folder: Path | None = None
    """When given, pods start only once a real kubelet would start them: see `kubelet`."""
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        watcher = self.cluster.storage.watcher(self.cluster.version)
        try:
            while True:
                for pod in self.cluster.list("pods"):
                    with suppress(ApiError):
                        self._step(pod)
                changed = asyncio.create_task(watcher.wait())
                poked = asyncio.create_task(self._wake.wait())
                await asyncio.wait({changed, poked}, return_when=asyncio.FIRST_COMPLETED)
                for task in (changed, poked):
                    task.cancel()
                self._wake.clear()
                watcher.poll()
        finally:
            watcher.close()

    def release(self, node: str) -> None:
        self.held.discard(node)
        self.waiting.pop(node, None)
        self._wake.set()

    def break_pod(self, job: str, index: int, exit_code: int) -> None:
        """The container of one pod of a Job ends at once."""
        for pod in self.cluster.list("pods"):
            if pod["metadata"]["name"].startswith(f"{job}-{index}-"):
                self._end(pod, Ending(exit_code))

    def _step(self, pod: Object) -> None:
        labels = pod["metadata"]["labels"]
        node = labels.get("selfrewarding.dev/node", "")
        if "deletionTimestamp" in pod["metadata"]:
            if pod.get("status", {}).get("phase") == "Running":
                self._end(pod, Ending(143))  # as a kubelet does before it lets the pod go
            self.cluster.delete("pods", pod["metadata"]["name"], pod["metadata"]["namespace"], grace_period=0)
            return
        phase = pod.get("status", {}).get("phase", "Pending")
        if phase in ("Succeeded", "Failed"):
            return
        if node in self.waiting:
            self._write(pod, "Pending", {"waiting": self.waiting[node]})
        elif self.folder is not None and phase == "Pending" and kubelet.blocked(self.cluster, pod, self.folder):
            return
        elif not pod["spec"].get("nodeName"):
            self.cluster.bind(pod["metadata"]["name"], pod["metadata"]["namespace"], NODE)
        elif phase == "Pending":
            self._write(pod, "Running", {"running": {"startedAt": self._now()}})
        elif node not in self.held:
            env = {e["name"]: e.get("value") for e in pod["spec"]["containers"][0]["env"]}
            task = StageTask.model_validate_json(env["SRLM_TASK"] or "")
            index = int(pod["metadata"]["annotations"].get("batch.kubernetes.io/job-completion-index", 0))
            self._end(pod, self.stages.run(task, index))

    def _end(self, pod: Object, ending: Ending) -> None:
        ended = {
            "exitCode": ending.exit_code,
            "reason": ending.reason or ("Completed" if ending.exit_code == 0 else "Error"),
            "message": ending.message,
            "startedAt": self._now(),
            "finishedAt": self._now(),
        }
        self._write(pod, "Failed" if ending.exit_code else "Succeeded", {"terminated": ended})

    def _write(self, pod: Object, phase: str, state: Object) -> None:
        container = {"name": "stage", "image": "x", "imageID": "", "ready": False, "restartCount": 0, "state": state}
        status = {**pod.get("status", {}), "phase": phase, "containerStatuses": [container]}
        if status == pod.get("status"):
            return
        self.cluster.update("pods", {**pod, "status": status}, subresource="status")

    def _now(self) -> str:
        return self.cluster.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class Wire:
    """A cluster with the operator's account, and the operator when it is started."""

    cluster: Cluster
    server: ApiServer
    pods: ScriptedPods
    folder: Path
    settings: Settings
    operator: Operator | None = None
    _task: asyncio.Task[None] | None = None
    _stop: asyncio.Event | None = None

    async def start_operator(self) -> None:
        self.operator = Operator(self.settings)
        self._stop = asyncio.Event()
        self._task = asyncio.create_task(self.operator.run(self._stop))
        ready = asyncio.create_task(self.operator.ready.wait())
        await asyncio.wait({ready, self._task}, timeout=LIMIT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if self._task.done():
            ready.cancel()
            self._task.result()

    async def stop_operator(self) -> None:
        if self._task is not None and self._stop is not None:
            self._stop.set()
            await self._task
        self.operator = self._task = None

    async def kill_operator(self) -> None:
        """Without any farewell."""
        assert self._task is not None
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        self.operator = self._task = None

    def apply(self, name: str = "run", namespace: str = "default", **changes: Any) -> Object:
        """Create a run."""
        body = {
            "apiVersion": "selfrewarding.dev/v1alpha1",
            "kind": "SelfRewardingRun",
            "metadata": {"name": name, "namespace": namespace},
            "spec": manifest_spec(**changes),
        }
        return self.cluster.create(RUNS, body, namespace)

    def edit(self, changes: Mapping[str, Any], name: str = "run") -> None:
        self.cluster.patch(RUNS, name, {"spec": dict(changes)}, "default")

    def status(self, name: str = "run") -> Object:
        found = self.cluster.find(RUNS, name, "default")
        return {} if found is None else found.get("status", {})

    def condition(self, kind: str, name: str = "run") -> Object:
        conditions = self.status(name).get("conditions", [])
        return next((c for c in conditions if c["type"] == kind and c["status"] == "True"), {})

    def reported(self, name: str = "run") -> bool:
        """Whether the run has ended and its report is there."""
        status = self.status(name)
        return bool(status.get("report", {}).get("end")) and status["reportStage"]["state"] == "Succeeded"

    def jobs(self) -> list[Object]:
        return self.cluster.list(JOBS)

    def nodes(self) -> list[str]:
        """`<iteration>/<node>` of all Jobs there are."""
        labels = [job["metadata"]["labels"] for job in self.jobs()]
        return [f"{x['selfrewarding.dev/iteration']}/{x['selfrewarding.dev/node']}" for x in labels]

    async def until(self, what: Callable[[], Any]) -> Any:
        """Wait until `what` gives something true after some change in the cluster."""
        watcher = self.cluster.storage.watcher(self.cluster.version)
        try:
            async with asyncio.timeout(LIMIT_SECONDS):
                while not (found := what()):
                    await watcher.wait()
                    watcher.poll()
                return found
        except TimeoutError:
            state = json.dumps(self.status(), indent=1)[-4000:]
            pytest.fail(f"not reached in {LIMIT_SECONDS} s; status: {state}; Jobs: {self.nodes()}")
        finally:
            watcher.close()


@asynccontextmanager
async def wire(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, strict: bool = False, **settings: Any
) -> AsyncIterator[Wire]:
    """Cluster, API server and Job controller; start the operator yourself.

    strict: pods start only when what they name exists and a node has what they ask for.
    """
    cluster = new_cluster()
    server = ApiServer(cluster)
    await server.start()
    bootstrap.prepare(cluster)
    provision.install(cluster, {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"})
    account = cluster.get("serviceaccounts", provision.ACCOUNT, provision.SYSTEM_NAMESPACE)
    token, _ = server.tokens.issue(account, 3600)
    server.write_kubeconfig(folder / "kubeconfig", token, provision.SYSTEM_NAMESPACE)
    monkeypatch.setenv("KUBECONFIG", str(folder / "kubeconfig"))
    pods = ScriptedPods(cluster, FakeStages(), folder=folder / "pods" if strict else None)
    monkeypatch.setattr(sync, "RETRY_SECONDS", 0.2)  # of the Job controller, for pods it could not create
    tasks = [
        *bootstrap.start(cluster),
        asyncio.create_task(JobController(cluster).run()),
        asyncio.create_task(pods.run()),
    ]
    quick = {"health_port": 0, "progress_seconds": 3600, "local": True}
    found = Wire(cluster, server, pods, folder, Settings(**(quick | settings)))
    try:
        yield found
    finally:
        await found.stop_operator()
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        await server.stop()
        # What libraries left is reported here. Elsewhere Python 3.11 may trip over it: a traceback that is written in
        # the middle of ast.parse makes that fail with "recursion depth mismatch".
        gc.collect()
        for result in results:
            if isinstance(result, Exception):
                raise result
