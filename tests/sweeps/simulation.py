"""The operator in a world without sockets, where time jumps to the next thing that happens.

Real: plans, index, queue, listings, the client's errors; object store, Job controller and garbage collection of the
one-machine cluster. Not here: Kopf, leases and HTTP, which `tests/operator/wire` has. A whole run takes a second, and
the same story with the same faults is the same to the last write.
"""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

import aiohttp
from kubernetes.client import Configuration

from srlm_local.http.routing import parse
from srlm_local.jobcontroller.controller import JobController
from srlm_local.kinds import bootstrap
from srlm_local.kinds.definitions import CRDS
from srlm_local.kinds.table import new_cluster
from srlm_local.podrunner.status import NODE
from srlm_local.store.cluster import Cluster
from srlm_local.store.deletion import DeleteOptions
from srlm_local.store.errors import ApiError
from srlm_local.store.resources import ResourceType
from srlm_local.store.storage import FIRST_VERSION, Change
from srlm_operator.cluster.client import Client
from srlm_operator.cluster.index import Kind, World
from srlm_operator.cluster.queue import KeyedQueue
from srlm_operator.cluster.resync import Resync
from srlm_operator.crd.definition import API_VERSION, KIND, custom_resource_definition
from srlm_operator.metrics.operator import Metrics
from srlm_operator.names import LABEL_RUN_UID
from srlm_operator.reconcile import Reconciler
from srlm_operator.settings import Settings
from support.builders import manifest_spec
from support.cluster.pods import INDEX, task_of
from support.stage_script import Ending, FakeStages
from sweeps.jumping import LoopClock
from sweeps.record import JOBS, NAMESPACE, PODS, RUNS, Object, Record, node_id

T = TypeVar("T")
STAGE_SECONDS, RESTART_SECONDS, LAG_SECONDS, LATE_SECONDS = 2, 5, 1, 31
_KINDS: Mapping[str, Kind] = {RUNS: "runs", JOBS: "jobs", PODS: "pods"}

Blow = Literal["crash-before", "crash-after", "error", "answer-lost", "overtaken", "refused"]
"""To a write of the operator: it dies before it or after it, the API server answers 500, the answer is lost after the
write was done, somebody else changes the object first, or a quota refuses it."""
Loss = Literal["drop", "delay"]
"""Of a watch event: it never comes, or after all that happens in the next half minute."""


@dataclass
class Faults:
    """What goes wrong, by the number of the write or the event since the beginning."""

    writes: dict[int, Blow] = field(default_factory=dict)
    events: dict[int, Loss] = field(default_factory=dict)
    back: int = 0
    """A new life of the operator plans with what was there so many versions earlier, until a second later the watches
    tell what happened since."""
    met: int = 0
    """Those that have happened."""


@dataclass(frozen=True)
class Answer:
    """As the client reads it from HTTP."""

    status: int
    body: Object

    async def text(self, errors: str) -> str:
        return json.dumps(self.body)


@dataclass
class StoreSession:
    """The HTTP session of an operator's client that ends in the object store."""

    sim: Simulation
    version: int | None = None
    """Listings are as old as this."""

    @asynccontextmanager
    async def request(
        self, method: str, url: str, *, data: bytes | None, params: Mapping[str, str] | None, **_: object
    ) -> AsyncIterator[Answer]:
        body = json.loads(data) if data else {}
        path = urlsplit(url).path
        do = partial(self._do, method, path, body, params or {})
        yield do() if method == "GET" else await self.sim.write(method, path, do)

    def _do(self, method: str, path: str, body: Object, query: Mapping[str, str]) -> Answer:
        route, cluster = parse(method, path, watch=False), self.sim.cluster
        assert route is not None
        rt = cluster.registry.find(route.group, route.version, route.plural)
        assert rt is not None
        try:
            match route.verb:
                case "get":
                    found: Object = cluster.get(rt, route.name, route.namespace)
                case "list":
                    found = self._list(rt, route.namespace, query)
                case "create":
                    found = cluster.create(rt, body, route.namespace)
                case "patch":
                    found = cluster.patch(rt, route.name, body, route.namespace, subresource=route.subresource)
                case "delete":
                    wanted = body["preconditions"]
                    uid, version = wanted.get("uid"), wanted.get("resourceVersion")
                    options = DeleteOptions(propagation=body["propagationPolicy"], uid=uid, version=version)
                    found, _ = cluster.delete(rt, route.name, route.namespace, options)
                case verb:
                    raise AssertionError(f"{verb} {path}")
        except ApiError as problem:
            return Answer(problem.code, problem.body())
        return Answer(200, found)

    def _list(self, rt: ResourceType, namespace: str, query: Mapping[str, str]) -> Object:
        cluster = self.sim.cluster
        match = cluster.predicate(rt, query.get("labelSelector", ""), query.get("fieldSelector", ""))
        version = self.version or cluster.version
        items = [obj for obj in cluster.storage.list_at(rt.name, namespace, version) if match(obj)]
        return {"metadata": {"resourceVersion": str(version)}, "items": items}


@dataclass
class Simulation:
    """A cluster with one namespace, the operator, pods that end by script, and what goes wrong."""

    cluster: Cluster
    clock: LoopClock
    faults: Faults
    record: Record
    settings: Settings = field(default_factory=lambda: Settings(namespaces=(NAMESPACE,)))
    stages: FakeStages = field(default_factory=FakeStages)
    committing: bool = False
    """Whether pods that are told to end have got somewhere in their chain."""
    held: set[str] = field(default_factory=set)
    """`<iteration>/<node>` whose pods keep running."""
    written: list[str] = field(default_factory=list)
    """Method and path of every write of the operator."""
    told: list[bool] = field(default_factory=list)
    """Of every event of its watches, whether a person did it to a run."""
    lives: int = 0
    _died: asyncio.Event = field(default_factory=asyncio.Event)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def writes(self) -> int:
        return len(self.written)

    @property
    def events(self) -> int:
        return len(self.told)

    # ---- the operator

    async def operate(self) -> None:
        """Lives of the operator, one after the other."""
        old: int | None = None
        while True:
            self.lives += 1
            async with asyncio.TaskGroup() as group:
                life = group.create_task(self._live(old))
                await self._died.wait()
                life.cancel()
            self._died.clear()
            await asyncio.sleep(RESTART_SECONDS)
            old = max(self.cluster.version - self.faults.back, FIRST_VERSION + 1) if self.faults.back else None

    async def _live(self, old: int | None) -> None:
        session = StoreSession(self, old)
        client, world = Client(Configuration()), World()
        client._session = session  # type: ignore[assignment]
        reconciler = Reconciler(client, world, self.settings, Metrics(), self.clock.now)
        queue = KeyedQueue(reconciler.reconcile, workers=self.settings.workers)
        resync = Resync(client, world, self.settings.namespaces, queue.add)
        watcher = self.cluster.storage.watcher(old or self.cluster.version)
        await resync.fill()
        session.version = None

        def take(change: Change) -> None:
            key = world.feed(_KINDS[change.resource], change.object, deleted=change.type == "DELETED")
            if key is not None:
                queue.add(key)

        async def follow() -> None:
            await asyncio.sleep(LAG_SECONDS if old else 0)
            while True:
                for change in watcher.poll():
                    ours = LABEL_RUN_UID in (change.object["metadata"].get("labels") or {})
                    if change.resource in _KINDS and (ours or change.resource == RUNS):
                        self._deliver(change, take)
                await watcher.wait()

        async def compare() -> None:
            while True:
                await asyncio.sleep(self.settings.resync_seconds)
                await resync.compare()

        try:
            async with asyncio.TaskGroup() as group:
                for task in (queue.run(), follow(), compare()):
                    group.create_task(task)
        finally:
            watcher.close()

    def _deliver(self, change: Change, take: Callable[[Change], None]) -> None:
        self.told.append(change.resource == RUNS and _intent(change.object) != _intent(change.previous))
        match self.faults.events.get(self.events):
            case "delay":
                self.faults.met += 1
                self.record.note_loss(change)
                asyncio.get_running_loop().call_later(LATE_SECONDS, take, change)
            case "drop":
                self.faults.met += 1
                self.record.note_loss(change)
            case None:
                take(change)

    async def write(self, method: str, path: str, do: Callable[[], Answer]) -> Answer:
        """A write of the operator, unless something goes wrong."""
        self.written.append(f"{method} {path}")
        blow = self.faults.writes.get(self.writes)
        self.faults.met += blow is not None
        match blow:
            case "crash-before":
                await self._die()
            case "error":
                return Answer(500, {"message": "etcd has no leader"})
            case "overtaken" if method != "POST":
                self._touch(path)
            case "refused" if method == "POST" and path.endswith("/jobs"):
                return Answer(403, {"reason": "Forbidden", "message": "jobs are forbidden: exceeded quota: small"})
        doomed = self._at(path) if method == "DELETE" else None
        answer = do()
        if doomed is not None and answer.status == 200:
            self.record.note_deletion(doomed)
        if blow == "crash-after":
            await self._die()
        if blow == "answer-lost":
            raise aiohttp.ServerDisconnectedError
        return answer

    def _address(self, path: str) -> tuple[ResourceType, str, str]:
        """Type, name and namespace of the object at an address."""
        route = parse("GET", path, watch=False)
        assert route is not None
        rt = self.cluster.registry.find(route.group, route.version, route.plural)
        assert rt is not None
        return rt, route.name, route.namespace

    def _at(self, path: str) -> Object | None:
        rt, name, namespace = self._address(path)
        return self.cluster.storage.get(rt.name, namespace, name)

    def _touch(self, path: str) -> None:
        """Somebody else writes the object at an address."""
        rt, name, namespace = self._address(path)
        marks = {"metadata": {"annotations": {"example.com/written": str(self.writes)}}}
        with suppress(ApiError):
            self.cluster.patch(rt, name, marks, namespace)

    async def _die(self) -> None:
        self.restart()
        await asyncio.Event().wait()

    def restart(self) -> None:
        """The operator dies now, and lives again after a while."""
        self._died.set()

    # ---- pods

    async def kubelet(self) -> None:
        """Runs every pod as the stages say."""
        async with asyncio.TaskGroup() as group:
            seen: set[str] = set()
            while True:
                self._changed.clear()
                pods = self.objects(PODS)
                for pod in pods:
                    if pod["metadata"]["uid"] not in seen:
                        group.create_task(self._run(pod["metadata"]["name"]))
                    elif "deletionTimestamp" in pod["metadata"]:
                        self._remove(pod)
                seen = {pod["metadata"]["uid"] for pod in pods}
                await self._changed.wait()

    async def _run(self, name: str) -> None:
        with suppress(ApiError):  # it was deleted meanwhile
            self.cluster.bind(name, NAMESPACE, NODE)
            self._show(name, "Running", {"running": {"startedAt": self.cluster.timestamp()}})
            await asyncio.sleep(STAGE_SECONDS)
            pod = self.cluster.get(PODS, name, NAMESPACE)
            await self.until(lambda: node_id(pod) not in self.held)
            pod = self.cluster.get(PODS, name, NAMESPACE)
            if "deletionTimestamp" not in pod["metadata"]:
                index = int(pod["metadata"]["annotations"].get(INDEX, 0))
                self._end(name, self.stages.run(task_of(pod), index))

    def _remove(self, pod: Object) -> None:
        """As a kubelet does: the container ends before the pod goes."""
        name = pod["metadata"]["name"]
        with suppress(ApiError):
            if pod["status"].get("phase") == "Running":
                task, index = task_of(pod), int(pod["metadata"]["annotations"].get(INDEX, 0))
                links = self.writes % (len(task.chain) + 1)
                here = self.committing and task.chain
                self._end(name, self.stages.interrupt(task, index, links) if here else Ending(143))
            self.cluster.delete(PODS, name, NAMESPACE, grace_period=0)

    def _end(self, name: str, ending: Ending) -> None:
        status = self.cluster.get(PODS, name, NAMESPACE)["status"]
        begun = status["containerStatuses"][0]["state"]["running"]["startedAt"]
        ended = {
            "startedAt": begun,
            "exitCode": ending.exit_code,
            "reason": ending.reason or ("Completed" if ending.exit_code == 0 else "Error"),
            "message": ending.message,
            "finishedAt": self.cluster.timestamp(),
        }
        self._show(name, "Failed" if ending.exit_code else "Succeeded", {"terminated": ended})

    def _show(self, name: str, phase: str, state: Object) -> None:
        container = {"name": "stage", "image": "x", "imageID": "", "ready": False, "restartCount": 0, "state": state}
        status = {"phase": phase, "containerStatuses": [container]}
        self.cluster.patch(PODS, name, {"status": status}, NAMESPACE, subresource="status")

    def evict(self, pod: Object) -> None:
        """As a drain or a preemption does: a condition says why, and the pod has to go."""
        name = pod["metadata"]["name"]
        why = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "drained"}
        conditions = [*(pod["status"].get("conditions") or ()), {**why, "lastTransitionTime": self.cluster.timestamp()}]
        self.cluster.patch(PODS, name, {"status": {"conditions": conditions}}, NAMESPACE, subresource="status")
        self.cluster.delete(PODS, name, NAMESPACE)

    # ---- the person

    def objects(self, kind: str) -> list[Object]:
        """As they are stored, to look at."""
        return self.cluster.storage.list(kind, NAMESPACE)

    async def until(self, what: Callable[[], T]) -> T:
        """Wait until `what` gives something true after some change."""
        changed = asyncio.Event()
        self.cluster.storage.attach(changed)
        try:
            while not (found := what()):
                changed.clear()
                await changed.wait()
            return found
        finally:
            self.cluster.storage.detach(changed)

    def create(self, name: str = "run", **changes: Any) -> None:
        body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}, "spec": manifest_spec(**changes)}
        self.cluster.create(RUNS, body, NAMESPACE)

    def edit(self, changes: Object, name: str = "run") -> None:
        """Merge into the spec."""
        self.cluster.patch(RUNS, name, {"spec": changes}, NAMESPACE)

    def annotate(self, marks: Mapping[str, str], name: str = "run") -> None:
        self.cluster.patch(RUNS, name, {"metadata": {"annotations": dict(marks)}}, NAMESPACE)

    def delete(self, name: str = "run") -> None:
        self.cluster.delete(RUNS, name, NAMESPACE, propagation="Background")

    def remove_job(self, job: Object) -> None:
        """By hand, with its pods."""
        self.cluster.delete(JOBS, job["metadata"]["name"], NAMESPACE, propagation="Background")

    def release(self, node: str) -> None:
        self.held.discard(node)
        self.annotate({"example.com/released": node})

    def status(self, name: str = "run") -> Object:
        found: Object = (self.cluster.storage.get(RUNS, NAMESPACE, name) or {}).get("status", {})
        return found

    def reported(self, name: str = "run") -> bool:
        """Whether the run has ended and its report is there."""
        status = self.status(name)
        return bool(status.get("report", {}).get("end")) and status["reportStage"]["state"] == "Succeeded"

    def running(self, node: str = "") -> list[Object]:
        """Pods that run, of a node or all."""
        pods = [pod for pod in self.objects(PODS) if node in ("", node_id(pod))]
        return [pod for pod in pods if pod["status"].get("phase") == "Running"]

    def gone(self, node: str) -> bool:
        """Whether neither Jobs nor pods of a node are there."""
        return not [obj for kind in (JOBS, PODS) for obj in self.objects(kind) if node_id(obj) == node]

    def left(self) -> list[str]:
        """Names of runs and of what belongs to runs."""
        return [obj["metadata"]["name"] for kind in (RUNS, JOBS, PODS, "services") for obj in self.objects(kind)]


def _intent(run: Object | None) -> tuple[object, bool]:
    """What a person wants of a run: its spec, and that it is there."""
    meta = run["metadata"] if run is not None else {}
    return meta.get("generation"), "deletionTimestamp" in meta


def _without_rules(value: Any) -> Any:
    """A definition without its CEL rules, which take a third of the time and have tests of their own."""
    if isinstance(value, dict):
        return {k: _without_rules(v) for k, v in value.items() if k != "x-kubernetes-validations"}
    return [_without_rules(v) for v in value] if isinstance(value, list) else value


@functools.cache
def _definition() -> Object:
    found: Object = _without_rules(custom_resource_definition())
    return found


@asynccontextmanager
async def simulation(faults: Faults | None = None, seed: int = 1) -> AsyncIterator[Simulation]:
    """An empty cluster with an operator; to be used in a JumpingLoop. Fails if any part of it has failed."""
    clock = LoopClock()
    cluster = new_cluster(clock=clock, seed=seed)
    bootstrap.prepare(cluster)
    cluster.create("namespaces", {"metadata": {"name": NAMESPACE}})
    cluster.create("serviceaccounts", {"metadata": {"name": "default"}}, NAMESPACE)
    cluster.create(CRDS, _definition())
    record = Record(cluster.storage, clock.now)
    sim = Simulation(cluster, clock, faults or Faults(), record)
    cluster.storage.hooks.append(record.note)
    cluster.storage.attach(sim._changed)
    tasks = [*bootstrap.start(cluster)]
    tasks += [asyncio.create_task(what) for what in (JobController(cluster).run(), sim.kubelet(), sim.operate())]
    try:
        yield sim
    finally:
        ended = [task for task in tasks if task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for task in ended:
            task.result()  # what broke is the cause of all else
    assert record.wrong == []
