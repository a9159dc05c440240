"""Full listings: at the start, and from time to time to find what a lost watch event hid."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Callable

from srlm_operator import names
from srlm_operator.errors import Refused

from .client import JOBS, PODS, RUNS, Client, Listing, Resource
from .index import Key, Kind, Obj, World

log = logging.getLogger(__name__)
_KINDS: tuple[tuple[Kind, Resource, str], ...] = (
    ("runs", RUNS, ""),
    ("jobs", JOBS, names.LABEL_RUN_UID),
    ("pods", PODS, names.LABEL_RUN_UID),
)


class Resync:
    """Compares what the API has with what the watches told."""

    def __init__(self, client: Client, world: World, namespaces: tuple[str, ...], touch: Callable[[Key], None]) -> None:
        self._client, self._world, self._touch = client, world, touch
        self._namespaces: tuple[str | None, ...] = namespaces or (None,)
        self._suspects: set[tuple[Kind, str, str]] = set()
        self.left_out: tuple[str, ...] = ()
        """Namespaces that are not served, because they or the rights in them are missing."""

    @property
    def served(self) -> tuple[str, ...]:
        """Namespaces that are served; empty for the whole cluster."""
        return tuple(namespace for namespace in self._namespaces if namespace is not None)

    async def fill(self) -> None:
        """First listing: nothing is planned before it is there.

        A namespace that refuses us is left out, so that one that was deleted, or whose Role is missing, does not
        stop the others. Raises the refusal when there is nothing else to serve.
        """
        refusals: dict[str | None, Refused] = {}
        for namespace in self._namespaces:
            try:
                listings = [found async for found in self._listings(namespace)]
            except Refused as problem:
                refusals[namespace] = problem
                continue
            for kind, listing in listings:
                for obj in listing.items:
                    self._world.feed(kind, obj)
        if len(refusals) == len(self._namespaces):
            raise next(iter(refusals.values()))
        for namespace, refusal in refusals.items():
            log.error("namespace %s is not served until it can be listed: %s", namespace, refusal)
        self.left_out = tuple(namespace for namespace in refusals if namespace is not None)
        self._namespaces = tuple(namespace for namespace in self._namespaces if namespace not in refusals)
        for run in self._world.runs():
            self._touch((run["metadata"]["namespace"], run["metadata"]["name"]))

    async def returned(self) -> str:
        """A namespace that was left out and can be served now; or nothing."""
        for namespace in self.left_out:
            with contextlib.suppress(Refused):
                async for _ in self._listings(namespace):
                    pass
                return namespace
        return ""

    async def _listings(self, namespace: str | None) -> AsyncIterator[tuple[Kind, Listing]]:
        """One at a time: what is compared with a listing must not be much younger than it."""
        for kind, resource, labels in _KINDS:
            yield kind, await self._client.list(resource, namespace, labels)

    async def compare(self) -> int:
        """Repair the indexes. Returns the number of changes that no watch had told in two looks in a row.

        One look does not prove anything: an event may just be on its way.
        """
        suspects = await self.repair()
        lost = len(suspects) if self._suspects and suspects else 0
        self._suspects = suspects
        return lost

    async def repair(self) -> set[tuple[Kind, str, str]]:
        """Bring the indexes up to date with a listing. Returns what they had wrong."""
        suspects: set[tuple[Kind, str, str]] = set()
        for namespace in self._namespaces:
            async for kind, listing in self._listings(namespace):
                version = int(listing.resource_version) if listing.resource_version.isdigit() else 0
                for obj in self._world.missing(kind, listing.items):
                    suspects.add(self._correct(kind, obj, deleted=False))
                for obj in self._world.vanished(kind, listing.items, version):
                    if namespace in (None, obj["metadata"].get("namespace")):
                        suspects.add(self._correct(kind, obj, deleted=True))
        return suspects

    def _correct(self, kind: Kind, obj: Obj, *, deleted: bool) -> tuple[Kind, str, str]:
        meta = obj["metadata"]
        log.info("no event told of %s %s/%s", kind, meta.get("namespace"), meta["name"])
        key = self._world.feed(kind, obj, deleted=deleted)
        if key is not None:
            self._touch(key)
        return (kind, meta["uid"], str(meta.get("resourceVersion")))
