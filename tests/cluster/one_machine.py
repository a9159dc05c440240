"""The one-machine API server, its controllers and what Helm needs, in a thread: `make test` has no real cluster."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from srlm_local.jobcontroller.controller import JobController
from srlm_local.kinds import bootstrap
from srlm_local.kinds.table import new_cluster
from support.applying_server import ApplyingServer


@contextmanager
def one_machine(folder: Path) -> Iterator[Path]:
    """Path of the administrator's kubeconfig."""
    kubeconfig = folder / "kubeconfig"
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    ready = threading.Event()
    problems: list[BaseException] = []

    async def serve() -> None:
        cluster = new_cluster()
        server = await ApplyingServer(cluster).start()
        bootstrap.prepare(cluster)
        tasks = [*bootstrap.start(cluster), asyncio.create_task(JobController(cluster).run())]
        server.write_kubeconfig(kubeconfig)
        ready.set()
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        problems.extend(r for r in results if isinstance(r, Exception))
        await server.stop()

    def work() -> None:
        try:
            loop.run_until_complete(serve())
        except BaseException as problem:
            problems.append(problem)
        finally:
            ready.set()
            loop.close()

    thread = threading.Thread(target=work, name="one-machine API server")
    thread.start()
    ready.wait(60)
    try:
        yield kubeconfig
    finally:
        if thread.is_alive():
            loop.call_soon_threadsafe(stop.set)
        thread.join(30)
        for problem in problems:
            raise problem
