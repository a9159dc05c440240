"""The programs of the one-machine cluster that are processes of their own: SeaweedFS and operator.

They run under the pod runner's supervisor, so they end with the cluster, however it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from srlm_local.podrunner.containers import Launch, Outcome, RunningContainer
from srlm_local.processes import OWNER_VARIABLE

log = logging.getLogger(__name__)
STOP_SECONDS = 10.0
MIN_BACKOFF_SECONDS = 1.0
MAX_BACKOFF_SECONDS = 60.0


@dataclass
class Program:
    """A program that is started again when it ends, as a Deployment would, unless `restart` is False."""

    name: str
    argv: list[str]
    folder: Path
    owner: str
    env: Mapping[str, str] = field(default_factory=dict)
    """Added to the environment of this process."""
    restart: bool = True
    min_backoff: float = MIN_BACKOFF_SECONDS
    alone: bool = False
    """`env` is the whole environment."""
    cwd: Path | None = None
    """None: that of this process."""
    stop_seconds: float = STOP_SECONDS

    def __post_init__(self) -> None:
        self._running: RunningContainer | None = None
        self._task: asyncio.Task[None] | None = None
        self._started = asyncio.Event()
        self.ended: Outcome | None = None
        """How it ended last; None as long as it never has."""

    @property
    def log(self) -> Path:
        """Its output, a line each: `<seconds since the epoch> F <line>`."""
        return self.folder / f"{self.name}.log"

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._running.pid if self._running else None

    async def start(self) -> None:
        """Starts it and keeps it running; returns once its process is there."""
        self._task = asyncio.create_task(self._keep(), name=self.name)
        started = asyncio.create_task(self._started.wait())
        await asyncio.wait({self._task, started}, return_when=asyncio.FIRST_COMPLETED)
        started.cancel()

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL when it takes longer than `stop_seconds`; no process is left after this."""
        if self._task is None:
            return
        self.restart = False
        if self._running is not None:
            self._running.terminate()
        done, _ = await asyncio.wait({self._task}, timeout=self.stop_seconds)
        if not done:
            if self._running is not None:
                self._running.kill()
            else:
                self._task.cancel()
            await asyncio.wait({self._task})

    async def _keep(self) -> None:
        backoff = self.min_backoff
        while True:
            begun = asyncio.get_running_loop().time()
            self.ended = outcome = await self._once()
            if not self.restart:
                return
            if asyncio.get_running_loop().time() - begun > MAX_BACKOFF_SECONDS:
                backoff = self.min_backoff
            why = outcome.error or f"exit code {outcome.exit_code}"
            log.warning("%s ended (%s), starts again in %.0f s; log: %s", self.name, why, backoff, self.log)
            await asyncio.sleep(backoff)
            backoff = min(backoff * 2, MAX_BACKOFF_SECONDS)
            if not self.restart:
                return

    async def _once(self) -> Outcome:
        inherited = {} if self.alone else os.environ
        env = {**inherited, **self.env, OWNER_VARIABLE: self.owner, "PYTHONUNBUFFERED": "1"}
        result = self.folder / f"{self.name}.json"
        with contextlib.suppress(FileNotFoundError):
            result.unlink()
        launch = Launch(self.argv, env, self.cwd or Path.cwd(), self.log, result, self.owner)
        self._running = await RunningContainer.start(launch)
        self._started.set()
        try:
            return await self._running.wait()
        finally:
            await self._running.close()
            self._running = None


def python(*arguments: str) -> list[str]:
    """argv for a module of this environment."""
    return [sys.executable, *arguments]
