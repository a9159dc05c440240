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
from collections.abc import Callable, Mapping
from typing import Any

import aiohttp
import kopf

from . import names
from .client import JOBS, PODS, RUNS, Client, bearer, load_configuration, ssl_context
from .errors import ApiError
from .health import serve
from .leader import LeaderElection
from .metrics import Metrics
from .progress_poll import ProgressPoll
from .queue import KeyedQueue
from .reconcile import Reconciler
from .resync import Resync
from .settings import Settings
from .watch_life import WatchLife
from .world import Kind, World

log = logging.getLogger(__name__)
_RESOURCES: Mapping[Kind, str] = {"runs": RUNS.plural, "jobs": JOBS.plural, "pods": PODS.plural}


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
        self.life = WatchLife(_RESOURCES.values(), settings.namespaces)
        self._lost = 0
        self._returned = ""
        self._watches: asyncio.Future[None] | None = None
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
        await self._fill(stop)
        if stop.is_set():
            return
        poll = ProgressPoll(self.client, self.world, self.settings.progress_seconds, self.queue.add)
        stopping = threading.Event()
        loop, new_watch = asyncio.get_running_loop(), asyncio.Event()
        self.life.on_new_watch = lambda: _tell(loop, new_watch.set)
        self.life.begin(self.resync.left_out)
        self._watches = self._watch(stopping)
        tasks: list[asyncio.Future[Any]] = [
            asyncio.create_task(self.queue.run(), name="queue"),
            asyncio.create_task(poll.run(), name="progress"),
            asyncio.create_task(self._keep_comparing(new_watch), name="resync"),
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
                    async with asyncio.timeout(pause):
                        await stop.wait()
                pause = min(pause * 2, 10)

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
        if self._watches is not None and self._watches.done():
            return "the watches have ended"
        if self._lost:
            return f"the watches are silent: {self._lost} changes came without an event"
        if self._returned:
            return f"namespace {self._returned} can be served now: a new start takes it up"
        return self.life.problem(self.settings.watch_silence_seconds)

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
                namespaces=self.resync.served,
                standalone=True,
                # Kopf would ask for the user's name, and the user of a container has none. The type is not exported.
                identity=names.MANAGER,  # type: ignore[arg-type]
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
            _tell(loop, finish, problem)

        threading.Thread(target=work, name="kopf", daemon=True).start()
        return done

    def _register(self, registry: kopf.OperatorRegistry, loop: asyncio.AbstractEventLoop) -> None:
        c = self.configuration

        @kopf.on.login(registry=registry)
        async def login(**_: Any) -> kopf.AiohttpSession:
            # Kopf closes the session, and asks for another one when its token is refused.
            token = bearer(c)
            session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=ssl_context(c), limit=0),
                headers={"User-Agent": names.MANAGER} | ({"Authorization": token} if token else {}),
                trust_env=True,
                trace_configs=[self.life.trace()],
            )
            return kopf.AiohttpSession(server=c.host, aiohttp_session=session)

        labels = {names.LABEL_RUN_UID: kopf.PRESENT}

        @kopf.on.event(names.GROUP, names.VERSION, names.PLURAL, registry=registry)
        async def on_run(event: kopf.RawEvent, **_: Any) -> None:
            _tell(loop, self._feed, "runs", event)

        @kopf.on.event("batch", "v1", "jobs", labels=labels, registry=registry)
        async def on_job(event: kopf.RawEvent, **_: Any) -> None:
            _tell(loop, self._feed, "jobs", event)

        @kopf.on.event("", "v1", "pods", labels=labels, registry=registry)
        async def on_pod(event: kopf.RawEvent, **_: Any) -> None:
            _tell(loop, self._feed, "pods", event)

    def _feed(self, kind: Kind, event: kopf.RawEvent) -> None:
        self.life.seen(_RESOURCES[kind], event["object"]["metadata"].get("namespace", ""))
        key = self.world.feed(kind, event["object"], deleted=event["type"] == "DELETED")
        if key is not None:
            self.queue.add(key)


def _tell(loop: asyncio.AbstractEventLoop, call: Callable[..., object], *arguments: object) -> None:
    """Call something in our loop from Kopf's thread; our loop may be closed by now."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(call, *arguments)


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
    # Asked for anew four times within the silence that liveness allows; a server that sends bookmarks would keep
    # a watch open for many minutes.
    quarter = settings.watch_silence_seconds / 4
    found.watching.server_timeout = max(1, int(quarter))
    found.watching.inactivity_timeout = min(found.watching.inactivity_timeout, quarter)
    for resource in ("jobs.batch", "pods"):
        found.watching.label_selectors[resource] = names.LABEL_RUN_UID
    return found
