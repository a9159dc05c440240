"""Where the page's figures come from: runs from the API server, answers and training curves from their stores."""

from __future__ import annotations

import asyncio
import re
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

from srlm_cli.answers import Samples, committed, read_samples, sources
from srlm_cli.download import use
from srlm_cli.runs import read, refused, storage_of
from srlm_contract.artifacts.store import Store
from srlm_contract.graph import NodeId
from srlm_contract.stages import TRAINERS
from srlm_contract.status import RunStatus, StageStatus
from srlm_operator.cluster.client import RUNS, Client
from srlm_operator.cluster.views import parse_run
from srlm_operator.errors import ConfigurationError, NotFound, Refused
from srlm_operator.values import Run

T = TypeVar("T")
Series = Sequence[Mapping[str, float]]
#: Seconds for which what the API server said is not asked again, however many look.
FRESH_SECONDS = 1.0
#: Things out of stores that are remembered, and seconds before one that failed is tried again.
REMEMBERED = 256
RETRY_SECONDS = 30.0
#: Points of the curves of speed that are kept of a run.
MAX_POINTS = 600
_SPEED = re.compile(r"([0-9,]+) tok/s")
_LOSS = re.compile(r"([0-9,]+)/[~0-9,]+ steps.* loss ([0-9.]+)")


@dataclass(frozen=True)
class Pace:
    """What a stage said of itself at one look."""

    seconds: float
    """Since this page first looked at the run."""
    node: str
    tokens_per_second: float
    step: int = 0
    """Of training; 0 where it does not train."""
    loss: float | None = None

    @classmethod
    def told(cls, status: RunStatus, seconds: float) -> Pace | None:
        """What the line of progress tells; None when nothing runs that has a speed."""
        message = status.progress.message
        speed, trained = _SPEED.search(message), _LOSS.search(message)
        if speed is None:
            return None
        step, loss = (_whole(trained[1]), float(trained[2])) if trained else (0, None)
        return cls(seconds, NodeId(status.iteration, status.stage), _whole(speed[1]), step, loss)


def _whole(text: str) -> int:
    return int(text.replace(",", ""))


class Source(Protocol):
    """What the pages ask for. All raise OperatorError."""

    async def runs(self) -> list[Run]: ...
    async def run(self, namespace: str, name: str) -> Run: ...
    async def samples(self, run: Run, model: str | None, most: int) -> Samples | None: ...
    async def training(self, run: Run) -> Mapping[str, Series]:
        """Steps of each finished training, by the model it made."""
        ...

    def pace(self, run: Run) -> Sequence[Pace]: ...


@dataclass
class _Known:
    """A question that was asked, and when it was answered."""

    answer: asyncio.Future[Any]
    at: float | None = None


class Memory:
    """Answers that are the same as long as their key is. One that failed is asked again after a while."""

    def __init__(self, most: int = REMEMBERED, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._clock = most, clock
        self._known: OrderedDict[Hashable, _Known] = OrderedDict()

    @property
    def asking(self) -> bool:
        """Whether somebody still waits for an answer, or would."""
        return any(not known.answer.done() for known in self._known.values())

    async def get(self, key: Hashable, ask: Callable[[], Awaitable[T]], seconds: float | None = None) -> T:
        """The answer, which may come from an earlier call. seconds: how long it stays true; for ever by default."""
        known = self._known.get(key)
        if known is None or self._is_old(known, seconds):
            known = self._known[key] = self._asked(ask)
        self._known.move_to_end(key)
        while len(self._known) > self._most:
            self._known.popitem(last=False)
        found: T = await asyncio.shield(known.answer)  # one who leaves takes it from nobody else
        return found

    def _asked(self, ask: Callable[[], Awaitable[T]]) -> _Known:
        known = _Known(asyncio.ensure_future(ask()))

        def answered(answer: asyncio.Future[T]) -> None:
            known.at = self._clock()
            if not answer.cancelled():
                answer.exception()  # it may be that nobody waits for it any more

        known.answer.add_done_callback(answered)
        return known

    def _is_old(self, known: _Known, seconds: float | None) -> bool:
        if not known.answer.done():
            return False
        if known.answer.cancelled():
            return True
        kept = RETRY_SECONDS if known.answer.exception() is not None and seconds is None else seconds
        return kept is not None and known.at is not None and self._clock() - known.at > kept


@dataclass
class ClusterSource:
    """A cluster and the stores of its runs, with the rights of a person."""

    client: Client
    namespaces: tuple[str, ...]
    """Empty for all of them."""
    endpoint_url: str | None = None
    """Another way to the stores than that of the pods."""
    stores: bool = True
    """Whether stores are read: in the cluster the page has the right to read runs and no other."""
    _memory: Memory = field(default_factory=Memory)
    _paces: dict[str, tuple[float, deque[Pace]]] = field(default_factory=dict)

    @property
    def reading(self) -> bool:
        """Whether something is on its way, maybe in a thread that nobody can interrupt."""
        return self._memory.asking

    async def runs(self) -> list[Run]:
        return await self._memory.get(("runs",), self._list, FRESH_SECONDS)

    async def _list(self) -> list[Run]:
        found = []
        for namespace in self.namespaces or (None,):
            try:
                found += [parse_run(item) for item in (await self.client.list(RUNS, namespace)).items]
            except NotFound:
                raise ConfigurationError("the cluster has no SelfRewardingRuns: is the chart installed?") from None
            except Refused as problem:
                where = f"namespace {namespace}" if namespace else "all namespaces"
                raise refused(problem, f"you may not list runs in {where}") from None
        return sorted(found, key=lambda run: (run.namespace, run.name))

    async def run(self, namespace: str, name: str) -> Run:
        found = await self._memory.get(
            ("run", namespace, name), lambda: read(self.client, namespace, name), FRESH_SECONDS
        )
        self._note(found)
        return found

    async def samples(self, run: Run, model: str | None, most: int) -> Samples | None:
        places = list(sources(run.status, model))
        if not places:
            return None
        # As long as nothing else is committed, the answer is the same.
        state = tuple((place.record.key, place.record.state, place.pairs is None) for place in places)
        key = ("samples", run.uid, model, most, state, run.status.progress.shards_done)
        return await self._memory.get(key, lambda: self._use(run, lambda store: read_samples(store, places, most)))

    async def training(self, run: Run) -> Mapping[str, Series]:
        stages = trained(run.status)
        found = await asyncio.gather(*(self._series(run, stage) for stage in stages.values()))
        return {name: series for name, series in zip(stages, found, strict=True) if series}

    async def _series(self, run: Run, stage: StageStatus) -> Series:
        key = ("series", stage.key, stage.content_digest)
        return await self._memory.get(key, lambda: self._use(run, lambda store: read_series(store, stage)))

    async def _use(self, run: Run, work: Callable[[Store], T]) -> T:
        if not self.stores:
            raise ConfigurationError(
                f"this page reads no store: `srlm ui -n {run.namespace}` on your machine does, with your own rights"
            )
        return await use(self.client, run.namespace, storage_of(run, self.endpoint_url), work)

    def pace(self, run: Run) -> Sequence[Pace]:
        return tuple(self._paces[run.uid][1]) if run.uid in self._paces else ()

    def _note(self, run: Run) -> None:
        begun, paces = self._paces.setdefault(run.uid, (time.monotonic(), deque(maxlen=MAX_POINTS)))
        pace = Pace.told(run.status, time.monotonic() - begun)
        if pace is not None and (not paces or replace(pace, seconds=paces[-1].seconds) != paces[-1]):
            paces.append(pace)


def trained(status: RunStatus) -> dict[str, StageStatus]:
    """The finished training of each model, by its name."""
    return {
        iteration.name: stage
        for iteration in status.iterations
        for stage in iteration.stages
        if stage.stage in TRAINERS and stage.state == "Succeeded" and stage.key
    }


def read_series(store: Store, stage: StageStatus) -> Series:
    """What a training noted of each optimizer step; see srlm_contract.artifacts.manifest. Raises StageFailure."""
    manifests, _ = committed(store, stage)
    series = getattr(manifests[0], "statistics", {}).get("series") if manifests else None
    if not isinstance(series, list):
        return ()
    return [{name: value for name, value in step.items() if isinstance(value, int | float)} for step in series
            if isinstance(step, dict) and "step" in step]  # fmt: skip
