"""Reads the last progress line of running pods: every few seconds, more seldom when there are very many."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from srlm_contract.progress import parse_progress
from srlm_operator import names
from srlm_operator.errors import ApiError, NotFound

from .client import Client
from .index import Key, World
from .views import pod_view

log = logging.getLogger(__name__)
#: Pods of one run that are looked at; more would cost more than the figure is worth.
_MOST_PODS = 16
#: Logs read a second, over all runs: with a thousand of them the figures get older, and not the API server busier.
_MOST_PER_SECOND = 20
#: Logs read at the same time.
_AT_ONCE = 8


class ProgressPoll:
    """Keeps `world.progress` up to date and asks for a reconcile when a figure moved."""

    def __init__(self, client: Client, world: World, seconds: float, touch: Callable[[Key], None]) -> None:
        self._client, self._world, self._seconds, self._touch = client, world, seconds, touch
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def run(self) -> None:
        """Until cancelled."""
        looked = 0
        while True:
            await asyncio.sleep(max(self._seconds, looked / _MOST_PER_SECOND))
            looked = await self.look()

    async def look(self) -> int:
        """One look at all running pods. Returns how many there were."""
        return sum(await asyncio.gather(*(self._run(obj["metadata"]) for obj in self._world.runs())))

    async def _run(self, meta: dict[str, str]) -> int:
        uid, namespace = meta["uid"], meta["namespace"]
        pods = [pod_view(obj) for obj in self._world.owned("pods", namespace, uid)]
        running = [pod.name for pod in pods if pod.phase == "Running" and not pod.deleting][:_MOST_PODS]
        found = await asyncio.gather(*(self._pod(uid, namespace, pod) for pod in running))
        if any(found):
            self._touch((namespace, meta["name"]))
        return len(running)

    async def _pod(self, uid: str, namespace: str, pod: str) -> bool:
        try:
            async with self._slots:
                text = await self._client.log_tail(namespace, pod, names.CONTAINER)
        except ApiError as problem:
            return self._not_read(uid, namespace, pod, problem)
        if pod in self._world.unread.get(uid, ()):
            self._world.unread[uid].discard(pod)
        line = parse_progress(text.splitlines())
        gone = self._world.get("pods", (namespace, pod)) is None  # meanwhile, and its figure with it
        if line is None or gone or self._world.progress[uid].get(pod) == line:
            return False
        self._world.progress[uid][pod] = line
        return True

    def _not_read(self, uid: str, namespace: str, pod: str, problem: ApiError) -> bool:
        """Nothing is said of a pod that is gone or that only starts; of the others once. Whether it is news."""
        # 400 is what the API server says of a container that has not begun.
        known = pod in self._world.unread.get(uid, ())
        gone = self._world.get("pods", (namespace, pod)) is None
        if isinstance(problem, NotFound) or problem.status == 400 or known or gone:
            log.debug("log of %s/%s: %s", namespace, pod, problem)
            return False
        log.warning("the log of %s/%s cannot be read, so its progress is not known: %s", namespace, pod, problem)
        self._world.unread[uid].add(pod)
        return True
