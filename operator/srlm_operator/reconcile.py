"""One reconcile: observe → plan → apply, in that order."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime

from .cluster.apply import Applier
from .cluster.client import Client
from .cluster.index import Key, World
from .cluster.observe import Observer
from .cluster.views import ParsedRuns
from .errors import NotReady
from .metrics.operator import Metrics
from .plan.plan import plan
from .settings import Settings

log = logging.getLogger(__name__)
#: Plans in a row for one reconcile: one, and further ones that know what the API refused.
_ROUNDS = 4


def utc_now() -> datetime:
    return datetime.now(UTC)


class Reconciler:
    """Brings runs one step nearer to what their spec says."""

    def __init__(
        self,
        client: Client,
        world: World,
        settings: Settings,
        metrics: Metrics,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._world, self._settings, self._metrics, self._clock = world, settings, metrics, clock
        self._runs = ParsedRuns(settings)
        self._observer = Observer(client, world, clock, settings, self._runs)
        self._applier = Applier(client, world, clock)
        self._applier.on_created, self._applier.on_deleted = metrics.job_created, metrics.job_deleted
        self._applier.on_status = metrics.observe_plan

    async def reconcile(self, key: Key) -> float | None:
        """One step for the run `key`. Returns seconds after which to look again, None to wait for events.

        Raises ApiError when the API does not answer.
        """
        began = time.monotonic()
        try:
            return await self._step(key)
        except Exception as problem:
            self._metrics.reconcile_failed(problem)
            raise
        finally:
            self._metrics.reconciled(time.monotonic() - began)

    async def _step(self, key: Key) -> float | None:
        for _ in range(_ROUNDS):
            obj = self._world.run(key)
            if obj is None:
                self._forget(key)
                return None
            run = self._runs.parse(obj)
            observed = await self._observer.observe(run)
            found = plan(run, observed, self._clock(), self._settings)
            try:
                settled = await self._applier.apply(run, found)
            except NotReady as reason:
                log.debug("%s: %s", "/".join(key), reason)
                continue
            if self._world.run(key) is None:
                self._forget(key)
            if settled:
                return found.requeue_after
        return 1.0

    def _forget(self, key: Key) -> None:
        self._runs.forget(key)
        self._metrics.forget(key)
