"""Events are forgotten after an hour, as in a real cluster, so that a long-lived one does not grow."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from srlm_local.clock import parse_time

if TYPE_CHECKING:
    from srlm_local.cluster import Cluster

Object = dict[str, Any]
KEPT = timedelta(hours=1)
EVERY_SECONDS = 300.0


class EventExpiry:
    """Deletes events that nobody repeated for an hour."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def run(self) -> None:
        while True:
            await self._cluster.clock.sleep(EVERY_SECONDS)
            self.sync()

    def sync(self) -> None:
        """One round over all events."""
        oldest = self._cluster.clock.now() - KEPT
        for event in self._cluster.storage.list("events"):
            meta = event["metadata"]
            times = (event.get("lastTimestamp"), (event.get("series") or {}).get("lastObservedTime"))
            last = max(parse_time(moment) for moment in (*times, meta["creationTimestamp"]) if moment)
            if last < oldest:
                self._cluster.delete("events", meta["name"], meta["namespace"])
