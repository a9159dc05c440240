"""Decides which Job to look at when; frees orphaned pods; removes finished Jobs after their TTL."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

from srlm_local.jobcontroller import policies
from srlm_local.jobcontroller.backoff import Backoff
from srlm_local.jobcontroller.pods import FINALIZER, tracked
from srlm_local.jobcontroller.sync import Pass
from srlm_local.store.clock import parse_time
from srlm_local.store.cluster import Cluster
from srlm_local.store.errors import ApiError
from srlm_local.store.storage import Change
from srlm_local.store.values import copy

Object = dict[str, Any]
Key = tuple[str, str]
log = logging.getLogger(__name__)
JOBS = "jobs.batch"


class JobController:
    """All Jobs of `cluster`. `run` works until cancelled; a restart forgets nothing but back-offs."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._backoffs: dict[str, Backoff] = {}
        self._timers: dict[Key, asyncio.Task[None]] = {}
        self._due: dict[Key, None] = {}
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Watches Jobs and pods and brings every Job forward."""
        watcher = self.cluster.storage.watcher(self.cluster.version)
        self.cluster.storage.attach(self._wake)
        for job in self.cluster.list(JOBS):
            self._enqueue(job["metadata"]["namespace"], job["metadata"]["name"])
        for pod in self.cluster.list("pods"):
            self._pod_seen(pod)
        try:
            while True:
                self._wake.clear()
                for change in watcher.poll():
                    self._seen(change)
                while self._due:
                    key = next(iter(self._due))
                    del self._due[key]
                    self._sync(key)
                    for change in watcher.poll():
                        self._seen(change)
                    await asyncio.sleep(0)
                await self._wake.wait()
        finally:
            watcher.close()
            self.cluster.storage.detach(self._wake)
            for timer in self._timers.values():
                timer.cancel()

    def _seen(self, change: Change) -> None:
        if change.resource == JOBS:
            self._enqueue(change.namespace, change.name)
            if change.type == "DELETED":
                self._backoffs.pop(change.object["metadata"]["uid"], None)
                self._forget_timer((change.namespace, change.name))
                self._free_pods(change.namespace)
        elif change.resource == "pods":
            self._pod_seen(change.object)
            if change.previous is not None:
                self._pod_seen(change.previous)

    def _pod_seen(self, pod: Object) -> None:
        owner = _controller(pod)
        if owner is not None:
            self._enqueue(pod["metadata"]["namespace"], owner["name"])
        if tracked(pod) and (owner is None or self._owner(pod, owner) is None):
            self._free(pod)

    def _owner(self, pod: Object, owner: Object) -> Object | None:
        job = self.cluster.find(JOBS, owner["name"], pod["metadata"]["namespace"])
        return job if job is not None and job["metadata"]["uid"] == owner["uid"] else None

    def _free_pods(self, namespace: str) -> None:
        for pod in self.cluster.storage.list("pods", namespace):
            if tracked(pod):
                self._pod_seen(pod)

    def _free(self, pod: Object) -> None:
        """Takes the finalizer from a pod whose Job is gone, or going: nobody will count it."""
        metadata = pod["metadata"]
        current = self.cluster.find("pods", metadata["name"], metadata["namespace"])
        if current is None or current["metadata"]["uid"] != metadata["uid"] or not tracked(current):
            return
        left = [name for name in current["metadata"]["finalizers"] if name != FINALIZER]
        patch = {"metadata": {"finalizers": left or None}}
        self.cluster.patch("pods", metadata["name"], patch, metadata["namespace"])

    def _enqueue(self, namespace: str, name: str) -> None:
        self._due[(namespace, name)] = None
        self._wake.set()

    def _enqueue_in(self, key: Key, seconds: float) -> None:
        self._forget_timer(key)
        self._timers[key] = asyncio.create_task(self._later(key, seconds))

    def _forget_timer(self, key: Key) -> None:
        if timer := self._timers.pop(key, None):
            timer.cancel()

    async def _later(self, key: Key, seconds: float) -> None:
        await self.cluster.clock.sleep(seconds)
        self._timers.pop(key, None)
        self._enqueue(*key)

    def _sync(self, key: Key) -> None:
        job = self.cluster.find(JOBS, key[1], key[0])
        if job is None:
            return
        # Filtered before they are copied: finished pods of other Jobs stay around for a day.
        pods = [copy(pod) for pod in self.cluster.storage.list("pods", key[0]) if _owned(pod, job)]
        if "deletionTimestamp" in job["metadata"]:
            for pod in pods:
                if tracked(pod):
                    self._free(pod)
            return
        if policies.finished(job):
            self._backoffs.pop(job["metadata"]["uid"], None)
            self._expire(key, job)
            return
        uid = job["metadata"]["uid"]
        one = Pass(self.cluster, job, pods, self._backoffs.get(uid, Backoff()))
        try:
            self._backoffs[uid] = one.run()
        except ApiError as error:
            log.warning("Job %s/%s: %s", *key, error)
            self._enqueue_in(key, 1.0)
            return
        if one.again is not None:
            self._enqueue_in(key, one.again)

    def _expire(self, key: Key, job: Object) -> None:
        ttl = job["spec"].get("ttlSecondsAfterFinished")
        end = policies.find(job, "Complete") or policies.find(job, "Failed")
        if ttl is None or end is None:
            return
        left = ttl - (self.cluster.clock.now() - parse_time(end["lastTransitionTime"])).total_seconds()
        if left > 0:
            self._enqueue_in(key, left)
            return
        with contextlib.suppress(ApiError):  # somebody was faster
            self.cluster.delete(JOBS, key[1], key[0], propagation="Foreground", uid=job["metadata"]["uid"])


def _controller(pod: Object) -> Object | None:
    for owner in pod["metadata"].get("ownerReferences") or []:
        if owner.get("controller") and owner["kind"] == "Job":
            return dict(owner)
    return None


def _owned(pod: Object, job: Object) -> bool:
    owner = _controller(pod)
    return owner is not None and owner["uid"] == job["metadata"]["uid"]
