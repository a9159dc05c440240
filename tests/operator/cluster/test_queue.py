"""The keyed queue: one at a time for a key, coalesced, failures do not end it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from srlm_operator.cluster.queue import Handler, KeyedQueue
from srlm_operator.errors import Unavailable

A, B = ("ns", "a"), ("ns", "b")


@asynccontextmanager
async def running(handler: Handler, workers: int = 2) -> AsyncIterator[KeyedQueue]:
    queue = KeyedQueue(handler, workers)
    task = asyncio.create_task(queue.run())
    try:
        yield queue
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_events_during_a_reconcile_make_one_more() -> None:
    calls: list[str] = []
    inside, go, twice = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def handler(key: tuple[str, str]) -> None:
        calls.append(key[1])
        inside.set()
        if len(calls) == 2:
            twice.set()
        await go.wait()

    async with running(handler) as queue:
        queue.add(A)
        await inside.wait()
        for _ in range(10):
            queue.add(A)
        assert calls == ["a"]  # never two at a time for one run
        go.set()
        await twice.wait()
    assert calls == ["a", "a"]


async def test_different_runs_work_side_by_side() -> None:
    together = asyncio.Barrier(3)  # both handlers and this test

    async def handler(_: tuple[str, str]) -> None:
        await together.wait()

    async with running(handler) as queue:
        queue.add(A)
        queue.add(B)
        async with asyncio.timeout(5):
            await together.wait()


async def test_a_failed_reconcile_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    calls = 0
    done = asyncio.Event()

    async def handler(_: tuple[str, str]) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise Unavailable("the API server sleeps")
        if calls == 2:
            raise KeyError("a bug")
        done.set()

    async with running(handler) as queue:
        queue.add(A)
        async with asyncio.timeout(5):
            await done.wait()
    assert "the API server sleeps" in caplog.text
    assert "KeyError" in caplog.text


async def test_an_event_comes_before_the_timer() -> None:
    times: list[float] = []
    once, twice = asyncio.Event(), asyncio.Event()

    async def handler(_: tuple[str, str]) -> float | None:
        times.append(asyncio.get_running_loop().time())
        once.set()
        if len(times) == 2:
            twice.set()
        return 3600

    async with running(handler) as queue:
        queue.add(A)
        async with asyncio.timeout(5):
            await once.wait()
            queue.add(A)
            await twice.wait()
