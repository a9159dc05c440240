"""API server, Job controller and scripted pods in this process; the operator in one of its own, as it is deployed.

Pods run until `let_go`, so that a benchmark decides when a stage ends. Times are taken where objects are stored.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zlib import crc32

import psutil
from aiohttp import web

from srlm_contract.tasks import StageTask
from srlm_local import provision
from srlm_local.http.server import ApiServer
from srlm_local.jobcontroller.controller import JobController
from srlm_local.kinds import bootstrap
from srlm_local.kinds.table import new_cluster
from srlm_local.podrunner.status import NODE as MACHINE
from srlm_local.store.cluster import Cluster
from srlm_local.store.errors import ApiError
from srlm_local.store.storage import Change
from srlm_local.store.values import copy
from support.builders import manifest_spec
from support.cluster.harness import SHORT
from support.stage_script import Ending, FakeStages

Object = dict[str, Any]
Run = tuple[str, str]
"""Namespace and name."""
JOBS = 3
"""Jobs of an iteration of the shortest loop: prompts with answers and verdicts, pairs, train."""
WRITES = ("POST", "PUT", "PATCH", "DELETE")
LIMIT_SECONDS = 300
RUNS = "selfrewardingruns.selfrewarding.dev"
RUN, NODE = "selfrewarding.dev/run", "selfrewarding.dev/node"


class CountingServer(ApiServer):
    """Counts the requests of clients. What runs in this process does not come this way."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self.calls: Counter[str] = Counter()
        self.writes: list[str] = []
        """Method and path of each, in order."""

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.calls[request.method] += 1
        if request.method in WRITES:
            self.writes.append(f"{request.method} {request.path}")
        return await super()._handle(request)


@dataclass
class StoredPods:
    """Pods that are scripted where objects are stored: they cost neither requests nor the operator's time."""

    cluster: Cluster
    stages: FakeStages

    def _step(self, pod: Object) -> None:
        if "deletionTimestamp" in pod["metadata"]:
            if pod.get("status", {}).get("phase") == "Running":
                self._end(pod, Ending(143))  # as a kubelet does before it lets the pod go
            self.cluster.delete("pods", pod["metadata"]["name"], pod["metadata"]["namespace"], grace_period=0)
            return
        phase = pod.get("status", {}).get("phase", "Pending")
        if phase in ("Succeeded", "Failed"):
            return
        if not pod["spec"].get("nodeName"):
            self.cluster.bind(pod["metadata"]["name"], pod["metadata"]["namespace"], MACHINE)
        elif phase == "Pending":
            self._write(pod, "Running", {"running": {"startedAt": self._now()}})

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
class HeldPods(StoredPods):
    """Pods that run until they are let go. Looks at what changed only: ten thousand pods may lie around."""

    free: set[str] = field(default_factory=set)
    """Nodes whose pods end by themselves."""

    async def run(self) -> None:
        watcher = self.cluster.storage.watcher(self.cluster.version)
        try:
            while True:
                await watcher.wait()
                newest = {(c.namespace, c.name): c for c in watcher.poll() if c.resource == "pods"}
                for change in newest.values():
                    if change.type != "DELETED":
                        with suppress(ApiError):
                            self._forward(copy(change.object))
        finally:
            watcher.close()

    def _forward(self, pod: Object) -> None:
        if pod.get("status", {}).get("phase") != "Running" or "deletionTimestamp" in pod["metadata"]:
            self._step(pod)
        elif pod["metadata"]["labels"].get(NODE) in self.free:
            self.end(pod)

    def end(self, pod: Object) -> None:
        env = {e["name"]: e.get("value") for e in pod["spec"]["containers"][0]["env"]}
        index = int(pod["metadata"].get("annotations", {}).get("batch.kubernetes.io/job-completion-index", 0))
        self._end(pod, self.stages.run(StageTask.model_validate_json(env["SRLM_TASK"] or ""), index))

    def kill(self, pod: Object) -> None:
        """As when its node is drained: killed, and marked as disrupted."""
        mark = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "drained"}
        conditions = [*pod["status"].get("conditions", ()), mark]
        self._end({**pod, "status": {**pod["status"], "conditions": conditions}}, Ending(137))


@dataclass
class Moments:
    """When a Job of a run finished and when the next one was stored."""

    finished: dict[Run, float] = field(default_factory=dict)
    reactions: dict[Run, asyncio.Future[float]] = field(default_factory=dict)
    running: dict[Run, Object] = field(default_factory=dict)
    """The pod of a run that runs now."""

    def saw(self, change: Change) -> None:
        run = (change.namespace, (change.object["metadata"].get("labels") or {}).get(RUN, ""))
        if change.resource == "pods":
            if change.type != "DELETED" and change.object.get("status", {}).get("phase") == "Running":
                self.running[run] = change.object
        elif change.resource == "jobs.batch":
            if change.type == "ADDED":
                waiting = self.reactions.get(run)
                if waiting is not None and run in self.finished and not waiting.done():
                    waiting.set_result(time.perf_counter() - self.finished[run])
            elif _complete(change.object) and not _complete(change.previous):
                self.finished[run] = time.perf_counter()


def _complete(job: Object | None) -> bool:
    conditions = (job or {}).get("status", {}).get("conditions") or ()
    return any(c["type"] == "Complete" and c["status"] == "True" for c in conditions)


@dataclass
class Bench:
    """One cluster with its operator."""

    cluster: Cluster
    server: CountingServer
    pods: HeldPods
    moments: Moments
    folder: Path
    operator: asyncio.subprocess.Process

    @property
    def process(self) -> psutil.Process:
        return psutil.Process(self.operator.pid)

    def cpu_seconds(self) -> float:
        times = self.process.cpu_times()
        return float(times.user + times.system)

    def resident_mib(self) -> float:
        return float(self.process.memory_info().rss / 2**20)

    def add_namespace(self, name: str) -> None:
        """With the account that pods run as, which a controller that does not run here would create."""
        self.cluster.create("namespaces", {"metadata": {"name": name}}, "")
        self.cluster.create("serviceaccounts", {"metadata": {"name": "default"}}, name)

    def apply(self, run: Run, iterations: int, shards: int = 1) -> None:
        """A run of the shortest loop; each of them computes something of its own."""
        seed = crc32("/".join(run).encode()) >> 1
        changes = SHORT | {"iterations": iterations, "generation": {"shards": shards}, "seed": seed}
        body = {
            "apiVersion": "selfrewarding.dev/v1alpha1",
            "kind": "SelfRewardingRun",
            "metadata": {"namespace": run[0], "name": run[1]},
            "spec": manifest_spec(**changes),
        }
        self.cluster.create(RUNS, body, run[0])

    async def until(self, what: Callable[[], bool], name: str) -> None:
        changed = asyncio.Event()
        self.cluster.storage.attach(changed)
        try:
            async with asyncio.timeout(LIMIT_SECONDS):
                while not what():
                    changed.clear()
                    await changed.wait()
        except TimeoutError:
            log = (self.folder / "operator.log").read_text(encoding="utf-8")[-2000:]
            raise AssertionError(f"{name}: not reached in {LIMIT_SECONDS} s; the operator's log ends: {log}") from None
        finally:
            self.cluster.storage.detach(changed)

    def waits(self, run: Run) -> bool:
        """Whether a pod of the run is running and held."""
        pod = self.moments.running.get(run)
        return pod is not None and pod["metadata"]["labels"].get(NODE) not in self.pods.free

    async def transition(self, run: Run) -> float:
        """Ends the running stage of a run. Seconds from its Job's completion to the next stage's Job."""
        await self.until(lambda: self.waits(run), f"a running pod of {run}")
        reaction: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self.moments.reactions[run] = reaction
        self.moments.finished.pop(run, None)
        self.let_go(run)
        try:
            return await asyncio.wait_for(reaction, LIMIT_SECONDS)
        finally:
            del self.moments.reactions[run]

    def let_go(self, run: Run) -> None:
        pod = self.moments.running.pop(run)["metadata"]
        self.pods.end(self.cluster.get("pods", pod["name"], pod["namespace"]))

    async def quiet(self, seconds: float = 0.5) -> None:
        """Waits until no request has come for a while: what follows a transition belongs to it."""
        last = -1
        while last != len(self.server.writes):
            last = len(self.server.writes)
            await asyncio.sleep(seconds)


@asynccontextmanager
async def bench(folder: Path) -> AsyncIterator[Bench]:
    """A cluster, and `srlm operator` with its usual settings but for the port of its metrics."""
    cluster = new_cluster()
    server = CountingServer(cluster)
    await server.start()
    bootstrap.prepare(cluster)
    provision.install(cluster, {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"})
    account = cluster.get("serviceaccounts", provision.ACCOUNT, provision.SYSTEM_NAMESPACE)
    token, _ = server.tokens.issue(account, 3600 * 24)
    server.write_kubeconfig(folder / "kubeconfig", token, provision.SYSTEM_NAMESPACE)
    pods, moments = HeldPods(cluster, FakeStages()), Moments()
    cluster.storage.hooks.append(moments.saw)
    tasks = [asyncio.create_task(JobController(cluster).run()), asyncio.create_task(pods.run())]
    with (folder / "operator.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "srlm_cli", "operator", "--local", "--health-port", "0",
            env=os.environ | {"KUBECONFIG": str(folder / "kubeconfig")}, stdout=log, stderr=log,
        )  # fmt: skip
    found = Bench(cluster, server, pods, moments, folder, process)
    try:
        yield found
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.stop()
