"""One operator process: leader election, health, events in, keyed queue, workers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import Any

from .cluster.client import Client, load_configuration
from .cluster.index import World
from .cluster.leader import LeaderElection
from .cluster.progress_poll import ProgressPoll
from .cluster.queue import KeyedQueue
from .cluster.resync import Resync
from .errors import ApiError
from .metrics.health import serve
from .metrics.operator import Metrics
from .reconcile import Reconciler
from .settings import Settings
from .watches import Watches, WatchEvent

log = logging.getLogger(__name__)


class Operator:
    """One operator process."""

    def __init__(self, settings: Settings, context: str | None = None) -> None:
        self.settings = settings
        self.configuration = load_configuration(context)
        self.client = Client(self.configuration)
        self.world = World()
        self.metrics = Metrics(settings.metrics_runs)
        self.client.on_write = self.metrics.api_write
        self.client.on_error = self.metrics.api_error
        self.reconciler = Reconciler(self.client, self.world, settings, self.metrics)
        self.queue = KeyedQueue(self.reconciler.reconcile, settings.workers)
        self.resync = Resync(self.client, self.world, settings.namespaces, self.queue.add)
        self.ready = asyncio.Event()
        self._leading = False
        self.watches = Watches(self.configuration, settings)
        self.life = self.watches.life
        self.resync.on_restored = self.watches.renew
        self._lost = 0
        self._returned = ""
        self._following: asyncio.Task[None] | None = None
        self.metrics.watch_machinery(
            queued=lambda: self.queue.length,
            active=lambda: self.queue.active,
            problem=self.problem,
            watches=lambda: {resource: time.time() - age for resource, age in self.life.ages().items()},
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set, the lease is lost or a watch ends for good.

        Raises LeadershipLost, and what ended the watches. An API server that does not answer at the start, or
        refuses every namespace, is waited for.
        """
        async with self.client, contextlib.AsyncExitStack() as stack:
            if self.settings.health_port:
                server = await serve(
                    self.settings.health_host,
                    self.settings.health_port,
                    self.metrics,
                    self.problem,
                    # A standby is ready too: a rollout must not wait for the lease.
                    lambda: not self._leading or self.life.running,
                )
                stack.push_async_callback(server.cleanup)
            leader = LeaderElection(self.client, self.settings) if self.settings.leader_elect else None
            if leader is not None:
                if not await leader.acquire(stop):
                    return
                stack.push_async_callback(leader.release)
            self._leading = True
            self.metrics.leader.set(1)
            stack.callback(self.metrics.leader.set, 0)
            await self._serve(stop, leader)

    async def _serve(self, stop: asyncio.Event, leader: LeaderElection | None) -> None:
        """Work until `stop` is set or a task ends by itself. The Lease is renewed from the first listing on."""
        tasks: list[asyncio.Task[Any]] = [asyncio.create_task(stop.wait(), name="stop")]
        if leader is not None:
            tasks.append(asyncio.create_task(leader.keep(), name="leader"))
        filled = asyncio.create_task(self._fill(stop), name="fill")
        try:
            done, _ = await asyncio.wait([filled, *tasks], return_when=asyncio.FIRST_COMPLETED)
            if done == {filled} and filled.exception() is None:
                tasks += self._begin()
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (filled, *tasks):
                task.cancel()
            await asyncio.gather(filled, *tasks, return_exceptions=True)
        for ended in done:
            if not ended.cancelled() and ended.exception() is not None:
                raise ended.exception()  # type: ignore[misc]  # checked in the line above

    def _begin(self) -> list[asyncio.Task[Any]]:
        """Everything that runs once the first listing is there."""
        poll = ProgressPoll(self.client, self.world, self.settings.progress_seconds, self.queue.add)
        new_watch = asyncio.Event()
        self._following = asyncio.create_task(self._follow(new_watch), name="watches")
        self.ready.set()
        log.info("operator is running")
        if self.settings.pod_security != "Restricted":
            log.warning(
                "podSecurity is %s: whoever may create runs can have pods with what that level allows",
                self.settings.pod_security,
            )
        return [
            self._following,
            asyncio.create_task(self.queue.run(), name="queue"),
            asyncio.create_task(poll.run(), name="progress"),
            asyncio.create_task(self._keep_comparing(new_watch), name="resync"),
        ]

    async def _fill(self, stop: asyncio.Event) -> None:
        """List everything once; wait for an API server that is not there yet."""
        pause = 0.2
        while not stop.is_set():
            try:
                await self.resync.fill()
                return
            except ApiError as problem:
                log.warning("waiting for the API server: %s", problem)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await stop.wait()
                pause = min(pause * 2, 10)

    async def _follow(self, new_watch: asyncio.Event) -> None:
        """Events into the indexes, and the runs they touch into the queue."""
        async with contextlib.aclosing(self.watches.events(self.resync.served, new_watch.set)) as events:
            async for event in events:
                self._take(event)

    def _take(self, event: WatchEvent) -> None:
        key = self.world.feed(event.kind, event.object, deleted=event.deleted)
        if key is not None:
            self.queue.add(key)

    async def _keep_comparing(self, new_watch: asyncio.Event) -> None:
        """Listings from time to time, and whenever a watch has begun anew."""
        while True:
            with contextlib.suppress(TimeoutError):
                # Not wait_for: in Python 3.11 it forgets a cancellation that comes together with the event.
                async with asyncio.timeout(self.settings.resync_seconds):
                    await new_watch.wait()
            try:
                if new_watch.is_set():
                    new_watch.clear()
                    await self.resync.repair()
                else:
                    self._lost = await self.resync.compare()
                    self._returned = await self.resync.returned()
            except ApiError as problem:
                log.warning("resync: %s", problem)

    def problem(self) -> str:
        """What liveness reports: why the process should be started anew; or nothing, as on standby."""
        if self._following is not None and self._following.done():
            return "the watches have ended"
        if self._lost:
            return f"the watches are silent: {self._lost} changes came without an event"
        if self._returned:
            return f"namespace {self._returned} can be served now: a new start takes it up"
        return self.life.problem(self.settings.watch_silence_seconds)
