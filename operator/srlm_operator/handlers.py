"""The shell around the reconciler, and the only file that imports Kopf: events in, keyed queue, workers.

Nothing but `on.event` handlers: they write no annotation and no finalizer, and a missed event costs time, never
correctness. Kopf's own persistence, posting and peering stay unused.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from typing import Any

import kopf

from . import names
from .client import Client, bearer, load_configuration
from .errors import ApiError
from .health import serve
from .leader import LeaderElection
from .metrics import Metrics
from .progress_poll import ProgressPoll
from .queue import KeyedQueue
from .reconcile import Reconciler
from .resync import Resync
from .settings import Settings
from .world import Kind, World

log = logging.getLogger(__name__)


class Operator:
    """One operator process."""

    def __init__(self, settings: Settings, context: str | None = None) -> None:
        self.settings = settings
        self.configuration = load_configuration(context)
        self.client = Client(self.configuration)
        self.world = World()
        self.metrics = Metrics()
        self.client.on_write = lambda verb, resource: self.metrics.api_writes.labels(verb, resource).inc()
        self.reconciler = Reconciler(self.client, self.world, settings, self.metrics)
        self.queue = KeyedQueue(self.reconciler.reconcile, settings.workers)
        self.resync = Resync(self.client, self.world, settings.namespaces, self.queue.add)
        self.ready = asyncio.Event()
        self._lost = 0
        self._watches: asyncio.Future[None] | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set, the lease is lost or a watch ends for good.

        Raises OperatorError when the API refuses the operator at the start.
        """
        async with self.client, contextlib.AsyncExitStack() as stack:
            if self.settings.health_port:
                server = await serve(
                    self.settings.health_host,
                    self.settings.health_port,
                    self.metrics,
                    self._problem,
                    # A standby is ready too: a rollout must not wait for the lease.
                    lambda: True,
                )
                stack.push_async_callback(server.cleanup)
            leader = LeaderElection(self.client, self.settings) if self.settings.leader_elect else None
            if leader is not None:
                if not await leader.acquire(stop):
                    return
                stack.push_async_callback(leader.release)
            self.metrics.leader.set(1)
            await self._serve(stop, leader)

    async def _serve(self, stop: asyncio.Event, leader: LeaderElection | None) -> None:
        await self._fill(stop)
        if stop.is_set():
            return
        poll = ProgressPoll(self.client, self.world, self.settings.progress_seconds, self.queue.add)
        stopping = threading.Event()
        self._watches = self._watch(stopping)
        tasks: list[asyncio.Future[Any]] = [
            asyncio.create_task(self.queue.run(), name="queue"),
            asyncio.create_task(poll.run(), name="progress"),
            asyncio.create_task(self._keep_comparing(), name="resync"),
            asyncio.create_task(stop.wait(), name="stop"),
        ]
        if leader is not None:
            tasks.append(asyncio.create_task(leader.keep(), name="leader"))
        self.ready.set()
        log.info("operator is running")
        try:
            everything = [self._watches, *tasks]
            done, _ = await asyncio.wait(everything, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.set()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.wait([self._watches], timeout=5)
        for ended in done:
            if not ended.cancelled() and ended.exception() is not None:
                raise ended.exception()  # type: ignore[misc]  # checked in the line above

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
                    await asyncio.wait_for(stop.wait(), pause)
                pause = min(pause * 2, 10)

    async def _keep_comparing(self) -> None:
        while True:
            await asyncio.sleep(self.settings.resync_seconds)
            try:
                self._lost = await self.resync.compare()
            except ApiError as problem:
                log.warning("resync: %s", problem)
            self.metrics.watch_silent.set(1 if self._lost else 0)

    def _problem(self) -> str:
        """What liveness reports."""
        if self._watches is not None and self._watches.done():
            return "the watches have ended"
        return f"the watches are silent: {self._lost} changes came without an event" if self._lost else ""

    def _watch(self, stopping: threading.Event) -> asyncio.Future[None]:
        """Kopf in a thread with a loop of its own: in ours it would take the signals and end all our tasks.

        The future is done when the watches are.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        registry = kopf.OperatorRegistry()
        self._register(registry, loop)

        def finish(problem: BaseException | None) -> None:
            if done.cancelled():
                return
            if problem is None:
                done.set_result(None)
            else:
                done.set_exception(problem)

        async def watch() -> None:
            await kopf.operator(
                registry=registry,
                settings=kopf_settings(self.settings),
                clusterwide=not self.settings.namespaces,
                namespaces=self.settings.namespaces,
                standalone=True,
                stop_flag=stopping,
            )
            # TLS connections that were closed still need the loop to say goodbye.
            await asyncio.sleep(0.25)

        def work() -> None:
            problem: BaseException | None = None
            try:
                asyncio.run(watch())
            except BaseException as error:
                problem = error
            with contextlib.suppress(RuntimeError):  # our loop may be closed by now
                loop.call_soon_threadsafe(finish, problem)

        threading.Thread(target=work, name="kopf", daemon=True).start()
        return done

    def _register(self, registry: kopf.OperatorRegistry, loop: asyncio.AbstractEventLoop) -> None:
        c = self.configuration

        @kopf.on.login(registry=registry)
        def login(**_: Any) -> kopf.ConnectionInfo:
            token = bearer(c)
            scheme, _blank, secret = token.partition(" ")
            return kopf.ConnectionInfo(
                server=c.host,
                ca_path=c.ssl_ca_cert or None,
                insecure=not c.verify_ssl,
                scheme=scheme or None,
                token=secret or None,
                certificate_path=c.cert_file or None,
                private_key_path=c.key_file or None,
            )

        labels = {names.LABEL_RUN_UID: kopf.PRESENT}

        @kopf.on.event(names.GROUP, names.VERSION, names.PLURAL, registry=registry)
        async def on_run(event: kopf.RawEvent, **_: Any) -> None:
            loop.call_soon_threadsafe(self._feed, "runs", event)

        @kopf.on.event("batch", "v1", "jobs", labels=labels, registry=registry)
        async def on_job(event: kopf.RawEvent, **_: Any) -> None:
            loop.call_soon_threadsafe(self._feed, "jobs", event)

        @kopf.on.event("", "v1", "pods", labels=labels, registry=registry)
        async def on_pod(event: kopf.RawEvent, **_: Any) -> None:
            loop.call_soon_threadsafe(self._feed, "pods", event)

    def _feed(self, kind: Kind, event: kopf.RawEvent) -> None:
        self.metrics.last_event.set(time.time())
        key = self.world.feed(kind, event["object"], deleted=event["type"] == "DELETED")
        if key is not None:
            self.queue.add(key)


def kopf_settings(settings: Settings) -> kopf.OperatorSettings:
    """Own prefixes everywhere, nothing posted, no peering; watches ask for our Jobs and pods only."""
    found = kopf.OperatorSettings()
    found.posting.enabled = False
    found.scanning.disabled = bool(settings.namespaces)
    found.peering.standalone = True
    found.persistence.finalizer = f"{names.GROUP}/unused"
    found.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=names.GROUP, v1=False)
    found.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=names.GROUP, v1=False)
    found.persistence.consistency_timeout = 0
    found.execution.default_backoff = 1
    found.queueing.idle_timeout = 1
    found.networking.error_backoffs = (0.2, 0.5, 1, 2, 5)
    found.watching.reconnect_backoff = 0.2
    for resource in ("jobs.batch", "pods"):
        found.watching.label_selectors[resource] = names.LABEL_RUN_UID
    return found
