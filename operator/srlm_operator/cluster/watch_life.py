"""Whether the watches are alive: when each of them last had an answer or an event.

Kopf keeps a watch for runs, Jobs and pods in every namespace that is served. A watch can go silent without anybody
noticing: its task ended, its connection leads nowhere, its requests hang. Each is asked for anew well within the
time allowed (`kopf_settings`), so the answer to that request shows that a quiet watch is a live one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from types import SimpleNamespace

import aiohttp
from yarl import URL

Watch = tuple[str, str]
"""Plural name of the resource, and the namespace; empty for the whole cluster."""


class WatchLife:
    """Remembers when every watch last showed life. Written by Kopf's thread, read by ours."""

    def __init__(
        self, resources: Iterable[str], namespaces: Iterable[str], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """namespaces: those that are watched one by one; none for the whole cluster at once."""
        self._clock = clock
        self._watches = [(resource, ns) for resource in resources for ns in tuple(namespaces) or ("",)]
        self._seen: dict[Watch, float] = {}
        self._listed: set[Watch] = set()
        self._answered: set[Watch] = set()
        self.on_new_watch: Callable[[], None] = lambda: None
        """Called in Kopf's thread when a watch goes on from a new listing: no event tells what was deleted before."""

    def begin(self, left_out: Collection[str] = ()) -> None:
        """The watches are started now, but for those of the namespaces left out."""
        self._answered.clear()
        self._seen = dict.fromkeys((watch for watch in self._watches if watch[1] not in left_out), self._clock())

    @property
    def running(self) -> bool:
        """Whether the API server has answered the request for every watch since `begin`."""
        return bool(self._seen) and self._answered.issuperset(self._seen)

    def seen(self, resource: str, namespace: str) -> None:
        """A sign of life from the watch that covers the namespace. Others than ours are left out."""
        for watch in ((resource, namespace), (resource, "")):
            if watch in self._seen:
                self._seen[watch] = self._clock()

    def ages(self) -> Mapping[str, float]:
        """Seconds since the last sign of life, by resource: those of its quietest watch. Nothing before `begin`."""
        now = self._clock()
        ages: dict[str, float] = {}
        for (resource, _), moment in list(self._seen.items()):
            ages[resource] = max(ages.get(resource, 0.0), now - moment)
        return ages

    def problem(self, limit: float) -> str:
        """What liveness should say: which watches have been silent for longer than `limit` seconds; or nothing."""
        silent = [f"{resource} ({age:.0f} s)" for resource, age in sorted(self.ages().items()) if age > limit]
        return f"no sign of life from the watch of {', '.join(silent)}; the limit is {limit:.0f} s" if silent else ""

    def trace(self) -> aiohttp.TraceConfig:
        """Notes the answers to watch requests of an aiohttp session."""
        config = aiohttp.TraceConfig()

        async def answered(
            _: aiohttp.ClientSession, __: SimpleNamespace, params: aiohttp.TraceRequestEndParams
        ) -> None:
            if params.response.status == 200:
                self.answered(params.url)

        config.on_request_end.append(answered)
        return config

    def answered(self, url: URL) -> None:
        """The API server has answered Kopf's request for a listing or a watch."""
        *front, resource = url.path.strip("/").split("/")
        watch = (resource, front[-1] if front[-2:-1] == ["namespaces"] else "")
        if watch not in self._seen:
            return
        if url.query.get("watch") != "true":
            self._listed.add(watch)
            return
        self._seen[watch] = self._clock()
        self._answered.add(watch)
        if watch in self._listed:
            self._listed.discard(watch)
            self.on_new_watch()
