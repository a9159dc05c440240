"""Full listings: at the start, and from time to time to find what a lost watch event hid."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from typing import NamedTuple

from srlm_operator import names
from srlm_operator.errors import NotFound, Refused

from .client import JOBS, PODS, RUNS, Client, Listing, Resource
from .index import Key, Kind, Obj, World, key_of, number, version_of

log = logging.getLogger(__name__)
_KINDS: tuple[tuple[Kind, Resource, str], ...] = (
    ("runs", RUNS, ""),
    ("jobs", JOBS, names.LABEL_RUN_UID),
    ("pods", PODS, names.LABEL_RUN_UID),
)


class _Found(NamedTuple):
    kind: Kind
    listing: Listing
    before: Mapping[Key, str]
    """Versions that were known when the listing was asked for."""


class Resync:
    """Compares what the API has with what the watches told."""

    def __init__(self, client: Client, world: World, namespaces: tuple[str, ...], touch: Callable[[Key], None]) -> None:
        self._client, self._world, self._touch = client, world, touch
        self._namespaces: tuple[str | None, ...] = namespaces or (None,)
        self._suspects: set[tuple[Kind, str, str]] = set()
        self._reached: dict[tuple[Kind, str | None], int] = {}
        """Version of the last listing."""
        self.on_restored: Callable[[], None] = lambda: None
        """Called when the API server has older versions than before. No watch that goes on tells what it has now."""
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
            for kind, listing, _ in listings:
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

    async def _listings(self, namespace: str | None) -> AsyncIterator[_Found]:
        """One at a time: what is compared with a listing must not be much younger than it."""
        for kind, resource, labels in _KINDS:
            before = self._world.versions(kind, namespace)
            yield _Found(kind, await self._client.list(resource, namespace, labels), before)

    async def compare(self) -> int:
        """Repair the indexes. Returns the number of changes that no watch had told in two looks in a row.

        One look does not prove anything: an event may just be on its way.
        """
        suspects = await self.repair()
        lost = len(suspects) if self._suspects and suspects else 0
        self._suspects = suspects
        return lost

    async def repair(self) -> set[tuple[Kind, str, str]]:
        """Bring the indexes up to date with a listing. Returns what they had wrong, and no event may tell."""
        suspects: set[tuple[Kind, str, str]] = set()
        restored = False
        for namespace in self._namespaces:
            async for found in self._listings(namespace):
                kind, listing, before = found
                if self._went_back(namespace, found):
                    if await self._lags(namespace, number(listing.resource_version)):
                        continue
                    restored = True
                for obj in self._world.missing(kind, listing.items, before):
                    suspects.add(self._correct(kind, obj, before.get(key_of(obj))))
                for obj in self._world.vanished(kind, listing.items, before):
                    suspects.add(self._correct(kind, obj, deleted=True))
        if not restored:
            return suspects
        log.warning("the API server's store has gone back to an earlier version: the watches begin anew")
        self.on_restored()
        return set()

    def _went_back(self, namespace: str | None, found: _Found) -> bool:
        """Whether a listing is older than what was known before it: the store was restored from a backup."""
        known = max(map(number, found.before.values()), default=0)
        before = max(known, self._reached.get((found.kind, namespace), 0))
        now = self._reached[found.kind, namespace] = number(found.listing.resource_version)
        return now < before

    async def _lags(self, namespace: str | None, version: int) -> bool:
        """Whether the API server still has what its listing is too old for: then only its cache lags behind."""
        known = (
            (r, k, number(v)) for kind, r, _ in _KINDS[:2] for k, v in self._world.versions(kind, namespace).items()
        )
        resource, key, newest = max(known, key=lambda one: one[2], default=(RUNS, ("", ""), 0))
        if newest <= version:
            return False
        try:
            return number(version_of(await self._client.get(resource, *key))) >= newest
        except NotFound:
            return False

    def _correct(
        self, kind: Kind, obj: Obj, instead_of: str | None = None, *, deleted: bool = False
    ) -> tuple[Kind, str, str]:
        meta = obj["metadata"]
        log.info("no event told of %s %s/%s", kind, meta.get("namespace"), meta["name"])
        key = self._world.feed(kind, obj, deleted=deleted, instead_of=instead_of)
        if key is not None:
            self._touch(key)
        return (kind, meta["uid"], str(meta.get("resourceVersion")))
