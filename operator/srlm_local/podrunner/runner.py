"""The node: binds pending pods to itself, runs them, ends them when they are deleted."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path
from typing import Any

from srlm_local.podrunner import logs, status, volumes
from srlm_local.podrunner.scheduler import cpu_cores, gang, machine_cores, startable
from srlm_local.podrunner.worker import PodWorker
from srlm_local.processes import kill_marked
from srlm_local.store.cluster import Cluster
from srlm_local.store.errors import ApiError
from srlm_local.store.events import record
from srlm_local.store.storage import Change

Object = dict[str, Any]
log = logging.getLogger(__name__)
ENDED = ("Succeeded", "Failed")
WAKING = ("secrets", "configmaps")
"""Changes of these may let a container start that could not be configured."""


class PodRunner:
    """Runs all pods of `cluster`; their folders lie under `folder`.

    cores: CPU slots, by default the cores of the machine. Every process is marked with the folder's path,
    so that a runner started again on the same folder first ends what a killed one left behind.
    """

    def __init__(self, cluster: Cluster, folder: Path, *, cores: int | None = None) -> None:
        self.cluster = cluster
        self.folder = folder.resolve()
        self.cores = cores or machine_cores()
        self._workers: dict[str, PodWorker] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        cluster.log_reader = self._read_log

    async def run(self) -> None:
        """Runs pods until cancelled; then all their processes are ended, their statuses left as they are."""
        (self.folder / "pods").mkdir(parents=True, exist_ok=True)
        kill_marked(f"{self.folder}:")
        self._recover()
        watcher = self.cluster.storage.watcher(self.cluster.version)
        try:
            for pod in self.cluster.list("pods"):
                self._seen(pod)
            self._schedule()
            while True:
                await watcher.wait()
                pods_changed = False
                for change in watcher.poll():
                    if change.resource == "pods":
                        pods_changed = True
                        if change.type == "DELETED":
                            self._gone(change.object)
                        else:
                            self._seen(change.object)
                    elif change.resource == "persistentvolumeclaims":
                        pods_changed = True
                        self._bind_claim(change)
                    elif change.resource in WAKING:
                        for worker in self._workers.values():
                            worker.changed()
                if pods_changed:
                    self._schedule()
        finally:
            watcher.close()
            await self._end_all()

    async def _end_all(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        kill_marked(f"{self.folder}:")

    def _recover(self) -> None:
        """Pods that ran when the cluster was killed are lost; their folders stay for their logs."""
        for pod in self.cluster.list("pods", fields=f"spec.nodeName={status.NODE}"):
            current = pod.get("status") or {}
            started = any("waiting" not in s["state"] for s in current.get("containerStatuses") or [])
            if current.get("phase") not in ENDED and started:
                gone = status.lost(pod, self.cluster.timestamp())
                pod = self.cluster.update("pods", {**pod, "status": gone}, subresource="status")
                self._record(pod, "Warning", "NodeLost", pod["status"]["message"])
            if pod["metadata"].get("deletionTimestamp"):
                self._remove(pod)
        known = {pod["metadata"]["uid"] for pod in self.cluster.list("pods")}
        for path in (self.folder / "pods").iterdir():
            if path.name not in known:
                volumes.remove(path)

    def _seen(self, pod: Object) -> None:
        """Takes notice of a pod that is there: one to end, or one bound to this node that nobody runs yet."""
        metadata = pod["metadata"]
        worker = self._workers.get(metadata["uid"])
        ended = (pod.get("status") or {}).get("phase") in ENDED
        if worker is not None:
            if metadata.get("deletionTimestamp"):
                worker.stop(float(metadata.get("deletionGracePeriodSeconds") or 0))
        elif pod["spec"].get("nodeName") == status.NODE and not ended:
            self._start(pod)

    def _gone(self, pod: Object) -> None:
        worker = self._workers.get(pod["metadata"]["uid"])
        if worker is not None:
            worker.stop(0)
        else:
            volumes.remove(self._pod_folder(pod))

    def _schedule(self) -> None:
        """Binds the pods whose turn it is; a bound pod comes back as a change and is started."""
        pods = self.cluster.storage.list("pods")  # read only: no copies
        taken = {
            p["metadata"]["uid"]: cpu_cores(p, self.cores)
            for p in pods
            if p["spec"].get("nodeName") == status.NODE and (p.get("status") or {}).get("phase") not in ENDED
        }
        for uid, worker in self._workers.items():
            if worker.idle:  # one that waits for a Secret must not keep the others from working
                taken.pop(uid, None)
            else:  # deleted, but its processes still run
                taken.setdefault(uid, cpu_cores(worker.pod, self.cores))
        pending = [
            p for p in pods if not p["spec"].get("nodeName") and (p.get("status") or {}).get("phase") not in ENDED
        ]
        reasons = {p["metadata"]["uid"]: self._claims_missing(p) for p in pending}
        fitting = [p for p in pending if not reasons[p["metadata"]["uid"]]]
        gangs = [gang(p) for p in pods if p["metadata"]["uid"] in taken]
        for pod in startable(fitting, taken, self.cores, gangs):
            metadata = pod["metadata"]
            self.cluster.bind(metadata["name"], metadata["namespace"], status.NODE)
            message = f"Successfully assigned {metadata['namespace']}/{metadata['name']} to {status.NODE}"
            self._record(pod, "Normal", "Scheduled", message, component="default-scheduler")
        for pod in pending:
            if why := reasons[pod["metadata"]["uid"]]:
                self._hold(pod, why)

    def _claims_missing(self, pod: Object) -> str:
        namespace = pod["metadata"]["namespace"]
        for volume in pod["spec"].get("volumes") or []:
            name = (volume.get("persistentVolumeClaim") or {}).get("claimName")
            if name and self.cluster.find("persistentvolumeclaims", name, namespace) is None:
                return f'0/1 nodes are available: persistentvolumeclaim "{name}" not found.'
        return ""

    def _bind_claim(self, change: Change) -> None:
        """Every claim is a folder of this machine, so it is bound as soon as it is there."""
        if change.type == "ADDED":
            status_patch = {"status": {"phase": "Bound"}}
            self.cluster.patch(
                "persistentvolumeclaims", change.name, status_patch, change.namespace, subresource="status"
            )

    def _hold(self, pod: Object, message: str) -> None:
        current = pod.get("status") or {}
        if any(c["type"] == "PodScheduled" and c.get("message") == message for c in current.get("conditions") or []):
            return
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
        condition["lastTransitionTime"] = self.cluster.timestamp()
        changed = {**pod, "status": status.with_condition(current, condition)}
        self.cluster.update("pods", changed, subresource="status")
        self._record(pod, "Warning", "FailedScheduling", message, component="default-scheduler")

    def _start(self, pod: Object) -> None:
        uid = pod["metadata"]["uid"]
        folder = self._pod_folder(pod)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

        def event(kind: str, reason: str, message: str) -> None:
            self._record(pod, kind, reason, message)

        owner = f"{self.folder}:{uid}"
        claims, loop = self.folder / "claims", asyncio.get_running_loop()
        worker = PodWorker(self.cluster, pod, folder, claims, owner, event, lambda: loop.call_soon(self._schedule))
        self._workers[uid] = worker
        self._tasks[uid] = asyncio.create_task(self._work(worker), name=f"pod {pod['metadata']['name']}")
        if pod["metadata"].get("deletionTimestamp"):
            worker.stop(0)

    async def _work(self, worker: PodWorker) -> None:
        name = worker.pod["metadata"]["name"]
        try:
            await worker.run()
        except Exception:
            log.exception("running pod %s failed", name)
            raise
        finally:
            del self._workers[worker.uid], self._tasks[worker.uid]
        pod = self.cluster.find("pods", name, worker.pod["metadata"]["namespace"])
        if pod is None or pod["metadata"]["uid"] != worker.uid:
            volumes.remove(worker.folder)
        elif pod["metadata"].get("deletionTimestamp"):
            self._remove(pod)
        self._schedule()

    def _remove(self, pod: Object) -> None:
        """What a kubelet does last: the object goes, unless finalizers keep it."""
        metadata = pod["metadata"]
        with contextlib.suppress(ApiError):
            self.cluster.delete("pods", metadata["name"], metadata["namespace"], grace_period=0, uid=metadata["uid"])

    def _pod_folder(self, pod: Object) -> Path:
        return self.folder / "pods" / str(pod["metadata"]["uid"])

    def _read_log(self, pod: Object, query: dict[str, str]) -> Any:
        return logs.read_log(pod, query, self._pod_folder(pod), self.cluster.clock.now())

    def _record(self, pod: Object, kind: str, reason: str, message: str, component: str = "kubelet") -> None:
        host = status.NODE if component == "kubelet" else ""
        record(self.cluster, pod, kind, reason, message, component, host=host)
