"""A keyed work queue: one reconcile at a time for a run, any number of events coalesced into the next one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from srlm_operator.errors import ApiError, OperatorError

from .index import Key

log = logging.getLogger(__name__)
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 30.0

Handler = Callable[[Key], Awaitable[float | None]]


class KeyedQueue:
    """Calls `handler(key)`; a returned number asks for another call after so many seconds."""

    def __init__(self, handler: Handler, workers: int) -> None:
        self._handler = handler
        self._workers = workers
        self._ready: asyncio.Queue[Key] = asyncio.Queue()
        self._queued: set[Key] = set()
        self._busy: set[Key] = set()
        self._again: set[Key] = set()
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._failures: dict[Key, int] = {}

    def add(self, key: Key) -> None:
        """Have the key handled soon; once, however often it is added before."""
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        if key in self._busy:
            self._again.add(key)
        elif key not in self._queued:
            self._queued.add(key)
            self._ready.put_nowait(key)

    def add_later(self, key: Key, seconds: float) -> None:
        """Have the key handled after a while, unless it is added before."""
        loop = asyncio.get_running_loop()
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        self._timers[key] = loop.call_later(max(0.0, seconds), self.add, key)

    @property
    def length(self) -> int:
        """Keys that wait to be handled."""
        return len(self._queued)

    @property
    def active(self) -> int:
        """Keys that are being handled."""
        return len(self._busy)

    @property
    def idle(self) -> bool:
        """Whether nothing is waiting or being handled (timers aside)."""
        return not self._queued and not self._busy

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._workers):
                    group.create_task(self._work())
        finally:
            for timer in self._timers.values():
                timer.cancel()

    async def _work(self) -> None:
        while True:
            key = await self._ready.get()
            self._queued.discard(key)
            self._busy.add(key)
            pause: float | None
            try:
                pause = await self._handler(key)
                self._failures.pop(key, None)
            except Exception as problem:
                pause = self._failed(key, problem)
            finally:
                self._busy.discard(key)
            if key in self._again:
                self._again.discard(key)
                self.add(key)
            elif pause is not None:
                self.add_later(key, pause)

    def _failed(self, key: Key, problem: Exception) -> float:
        """A reconcile that failed is tried again with growing pauses; it must never end the worker."""
        count = self._failures.get(key, 0)
        self._failures[key] = count + 1
        name = "/".join(key)
        if isinstance(problem, ApiError | OperatorError):
            log.warning("%s: %s", name, problem)
        else:
            log.exception("%s: reconcile failed", name)
        return float(min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(count, 10)))
