"""A floor for throughput: a transfer that crawls is ended, so that another connection can do better.

Time limits of the HTTP library speak of silence, and a connection that gives a few bytes now and then is never silent.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from botocore.exceptions import BotoCoreError
from urllib3.exceptions import HTTPError

from srlm_contract.errors import StoreUnavailable

#: Most bytes of one read from a connection: the HTTP library copies what it reads, and small copies stay in the cache.
PIECE_BYTES = 512 * 1024
FIRST_PIECE_BYTES = 16 * 1024
SMALLEST_PIECE_BYTES = 1024
#: Bytes a second of one connection; up to eight of them share a network.
SLOWEST = 4 * 1024
#: Seconds over which the floor counts.
PATIENCE = 60.0

BROKEN_OFF = (BotoCoreError, HTTPError, OSError)
"""An answer whose body ends before its end."""
Clock = Callable[[], float]
"""Seconds from some moment on."""


class TooSlow(StoreUnavailable):
    """A connection stayed below the floor."""


class Pace:
    """Counts the bytes of one connection."""

    def __init__(self, uri: str, clock: Clock = time.monotonic) -> None:
        self.slow: TooSlow | None = None
        """What was raised."""
        self._uri, self._clock = uri, clock
        self._began = self._last = clock()
        self._bytes = 0

    def moved(self, count: int) -> float:
        """Bytes that went by since the last call; returns bytes a second of these. Raises TooSlow."""
        now = self._clock()
        speed = count / max(now - self._last, 1e-6)
        self._last, self._bytes = now, self._bytes + count
        seconds = now - self._began
        if seconds >= PATIENCE:
            if self._bytes < SLOWEST * seconds:
                self.slow = TooSlow(
                    f"the transfer of {self._uri} crawls: {self._bytes} bytes in {seconds:.0f} s, and {SLOWEST} a "
                    "second are the least; check the network to the store, and its load"
                )
                raise self.slow
            self._began, self._bytes = now, 0
        return speed


def read_body(body: Any, view: memoryview, pace: Pace) -> int:
    """Fills `view` from the body of an answer; returns the bytes that arrived before it ended, broke off or crawled.

    A read waits until all it asked for is there, so a slow connection is asked for what it gives in about a second.
    """
    size, done = FIRST_PIECE_BYTES, 0
    with suppress(TooSlow, *BROKEN_OFF):
        while done < len(view) and (count := body.readinto(view[done : done + size])):
            done += count
            size = max(SMALLEST_PIECE_BYTES, int(min(PIECE_BYTES, pace.moved(count))))
    return done


class PacedBody:
    """A request's body, sent block by block: who asks for the next block has sent the last one."""

    def __init__(self, data: bytes | memoryview, uri: str, clock: Clock = time.monotonic) -> None:
        self._view = memoryview(data)
        self._place = 0
        self._new_pace = partial(Pace, uri, clock)
        self._pace: Pace | None = None

    def __len__(self) -> int:
        return len(self._view)

    def read(self, size: int | None = None) -> bytes:
        """Raises TooSlow."""
        self._pace = self._pace or self._new_pace()
        block = self._view[self._place :] if size is None or size < 0 else self._view[self._place : self._place + size]
        self._place += len(block)
        self._pace.moved(len(block))
        return block.tobytes()

    def tell(self) -> int:
        return self._place

    def seek(self, place: int, whence: int = 0) -> int:
        """Back to the beginning before a request is sent, or sent again: its time begins anew."""
        self._pace = None
        self._place = place + (0, self._place, len(self._view))[whence]
        return self._place
