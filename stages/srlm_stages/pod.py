"""What the stages of one pod share: folders that are fetched, tokenizers, and engines that are open.

A folder is known by the digest of its content, or by place and revision of what lies outside, and an engine by the
folder of its model and its settings: so the stages of a chain fetch a model once and load it once.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from srlm_contract.artifacts.cache import ModelCache

from .runtime.devices import has_gpu

#: Tokens that the engine of a chain is opened for at least: enough for most stages, so that none has to open it again.
CHAIN_TOKENS = 4096


class Closable(Protocol):
    def close(self) -> None: ...


MadeT = TypeVar("MadeT")
EngineT = TypeVar("EngineT", bound=Closable)
Wanted = tuple[Path, str]
"""Folder of a model, and the engine's settings as JSON."""


@dataclass(frozen=True)
class _Open:
    wanted: Wanted
    length: int
    engine: Any


class Pod:
    """Stays open while stages run; closes engines and gives cached models free at its end."""

    def __init__(self, work: Path, cache: ModelCache | None = None, *, chained: bool = False) -> None:
        """work: where fetched folders lie. chained: whether several stages follow each other."""
        self.work, self.cache = work, cache
        self._chained = chained
        self._made: dict[Hashable, Any] = {}
        self._held = ExitStack()
        self._engines: list[_Open] = []
        """The one used last comes last."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._held:
            while self._engines:
                self._engines.pop().engine.close()

    def once(self, what: Hashable, make: Callable[[], MadeT]) -> MadeT:
        """What `make` gives, asked for it once."""
        if what not in self._made:
            self._made[what] = make()
        return self._made[what]  # type: ignore[no-any-return]  # what `make` gave

    def folder(self, what: str, content: str, name: str, fetch: Callable[[Path], Path]) -> Path:
        """The folder (or file) of that content, from `fetch(place)`. what: kind of thing it is."""
        place = self.work / what / str(len(self._made)) / name
        return self.once((what, content), lambda: fetch(place))

    def held(self, folder: AbstractContextManager[Path]) -> Path:
        """A folder that is given free at the end of the pod."""
        return self._held.enter_context(folder)

    def engine(self, wanted: Wanted, needed: int, longest: int, load: Callable[[int], EngineT]) -> EngineT:
        """An engine for prompts and answers of together `needed` tokens, of `longest` at most: one that is open, or a
        new one from `load(tokens)`.

        One is open at a time: on a GPU it takes what memory there is. Without one, a chain keeps two, as its model is
        asked again after a judge was.
        """
        for held in [held for held in self._engines if held.wanted == wanted]:
            self._engines.remove(held)
            if held.length >= needed:
                self._engines.append(held)
                return held.engine  # type: ignore[no-any-return]  # what `load` of the same settings gave
            held.engine.close()
        while self._engines and len(self._engines) >= (2 if self._chained and not has_gpu() else 1):
            self._engines.pop(0).engine.close()
        length = max(needed, min(longest, CHAIN_TOKENS)) if self._chained else needed
        engine = load(length)
        self._engines.append(_Open(wanted, length, engine))
        return engine
