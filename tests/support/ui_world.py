"""Runs made by hand behind the pages of `srlm ui`, without a cluster."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from srlm_cli.answers import Samples, read_samples, sources
from srlm_cli.runs import NoSuchRun
from srlm_cli.ui.command import serving
from srlm_cli.ui.source import Pace, Series, Source, read_series, trained
from srlm_contract.artifacts.store import Store
from srlm_contract.status import RunStatus
from srlm_operator.errors import OperatorError
from srlm_operator.values import Run
from support.builders import run
from support.report_world import MadeRun


@dataclass
class MadeSource:
    """What the pages ask for, from runs in memory; a test may change them meanwhile."""

    made: dict[str, Run] = field(default_factory=dict)
    stores: dict[str, Store] = field(default_factory=dict)
    paces: list[Pace] = field(default_factory=list)
    broken: OperatorError | None = None
    """Why no store can be read."""

    def add(self, name: str, world: MadeRun, status: RunStatus | None = None) -> None:
        self.made[name] = run(status or world.status, spec_=world.spec, name=name)
        self.stores[name] = world.world.store

    hangs: bool = False
    """No store answers."""

    async def runs(self) -> list[Run]:
        return list(self.made.values())

    async def run(self, namespace: str, name: str) -> Run:
        if namespace != "team" or name not in self.made:
            raise NoSuchRun(f"run {name} does not exist in namespace {namespace}")
        return self.made[name]

    async def samples(self, run: Run, model: str | None, most: int) -> Samples | None:
        if self.hangs:
            await asyncio.Event().wait()
        return read_samples(self._store(run), sources(run.status, model), most)

    async def training(self, run: Run) -> Mapping[str, Series]:
        stages = trained(run.status)
        return {name: read_series(self._store(run), stage) for name, stage in stages.items()}

    def pace(self, run: Run) -> Sequence[Pace]:
        return self.paces

    def _store(self, run: Run) -> Store:
        if self.broken is not None:
            raise self.broken
        return self.stores[run.name]


@contextmanager
def served(source: Source) -> Iterator[str]:
    """The pages, served from a thread of their own; gives the address with the key."""
    ready, over = threading.Event(), threading.Event()
    addresses: list[str] = []

    async def serve() -> None:
        async with serving(source) as address:
            addresses.append(address)
            ready.set()
            await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert ready.wait(30)
        yield addresses[0]
    finally:
        over.set()
        thread.join(30)
