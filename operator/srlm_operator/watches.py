"""Watches: events of runs, Jobs and pods, by Kopf. The only file that imports it.

Nothing but `on.event` handlers: they write no annotation and no finalizer, and a missed event costs time, never
correctness. Kopf's own persistence, posting and peering stay unused.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from typing import Any, NamedTuple

import aiohttp
import kopf
from kubernetes.client import Configuration

from srlm_operator import names
from srlm_operator.cluster.client import JOBS, PODS, RUNS, bearer, ssl_context
from srlm_operator.cluster.index import Kind
from srlm_operator.cluster.watch_life import WatchLife
from srlm_operator.settings import Settings

_RESOURCES: Mapping[Kind, str] = {"runs": RUNS.plural, "jobs": JOBS.plural, "pods": PODS.plural}


class WatchEvent(NamedTuple):
    """What the API server told of one object."""

    kind: Kind
    object: dict[str, Any]
    deleted: bool


class _Ended(NamedTuple):
    problem: BaseException | None


class Watches:
    """Watches of everything the operator follows."""

    def __init__(self, configuration: Configuration, settings: Settings) -> None:
        self._configuration = configuration
        self._settings = settings
        self.life = WatchLife(_RESOURCES.values(), settings.namespaces)
        self._arrived: asyncio.Queue[WatchEvent | _Ended] = asyncio.Queue()
        self._renewed = False

    async def events(self, namespaces: Collection[str], on_new_watch: Callable[[], None]) -> AsyncGenerator[WatchEvent]:
        """Events until the watches end. Close the iterator to end them.

        namespaces: those to watch one by one, when the settings name any. on_new_watch: called when a watch goes on
        from a new listing, as no event tells what was deleted before it. Raises what ended the watches.
        """
        while True:
            self._renewed = False
            async with contextlib.aclosing(self._until_ended(namespaces, on_new_watch)) as events:
                async for event in events:
                    yield event
            if not self._renewed:
                return

    def renew(self) -> None:
        """Begin the watches anew, each with a listing. Kopf goes on from the last version it saw, whatever happened."""
        self._renewed = True
        self._arrived.put_nowait(_Ended(None))

    async def _until_ended(
        self, namespaces: Collection[str], on_new_watch: Callable[[], None]
    ) -> AsyncGenerator[WatchEvent]:
        loop = asyncio.get_running_loop()
        arrived = self._arrived = asyncio.Queue()

        def tell(call: Callable[..., object], *arguments: object) -> None:
            with contextlib.suppress(RuntimeError):  # our loop may be closed by now
                loop.call_soon_threadsafe(call, *arguments)

        stopping = threading.Event()
        registry = kopf.OperatorRegistry()
        self._register(registry, lambda event: tell(arrived.put_nowait, event))
        self.life.on_new_watch = lambda: tell(on_new_watch)
        self.life.begin(set(self._settings.namespaces) - set(namespaces))
        ended = loop.create_future()

        def work() -> None:
            problem: BaseException | None = None
            try:
                asyncio.run(self._watch(registry, namespaces, stopping))
            except BaseException as error:
                problem = error
            tell(arrived.put_nowait, _Ended(problem))
            tell(ended.set_result, None)

        # In a thread with a loop of its own: in ours Kopf would take the signals and end all our tasks.
        threading.Thread(target=work, name="kopf", daemon=True).start()
        try:
            while not isinstance(event := await arrived.get(), _Ended):
                self.life.seen(_RESOURCES[event.kind], event.object["metadata"].get("namespace", ""))
                yield event
            if event.problem is not None:
                raise event.problem
        finally:
            stopping.set()
            await asyncio.wait([ended], timeout=5)

    async def _watch(
        self, registry: kopf.OperatorRegistry, namespaces: Collection[str], stopping: threading.Event
    ) -> None:
        await kopf.operator(
            registry=registry,
            settings=kopf_settings(self._settings),
            clusterwide=not self._settings.namespaces,
            namespaces=namespaces,
            standalone=True,
            # Kopf would ask for the user's name, and the user of a container has none. The type is not exported.
            identity=names.MANAGER,  # type: ignore[arg-type]
            stop_flag=stopping,
        )
        # TLS connections that were closed still need the loop to say goodbye.
        await asyncio.sleep(0.25)

    def _register(self, registry: kopf.OperatorRegistry, tell: Callable[[WatchEvent], None]) -> None:
        c = self._configuration

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
            tell(_watch_event("runs", event))

        @kopf.on.event("batch", "v1", "jobs", labels=labels, registry=registry)
        async def on_job(event: kopf.RawEvent, **_: Any) -> None:
            tell(_watch_event("jobs", event))

        @kopf.on.event("", "v1", "pods", labels=labels, registry=registry)
        async def on_pod(event: kopf.RawEvent, **_: Any) -> None:
            tell(_watch_event("pods", event))


def _watch_event(kind: Kind, event: kopf.RawEvent) -> WatchEvent:
    return WatchEvent(kind, dict(event["object"]), deleted=event["type"] == "DELETED")


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
