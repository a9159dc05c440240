"""What a tracker is told, and what it promises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from srlm_contract.artifacts.store import Store
from srlm_contract.graph import model_name
from srlm_contract.tasks import RunIdentity

Row = Mapping[str, float]
"""Figures by name, and `step`: the step of a training, or the number of a model."""
State = Literal["Running", "Succeeded", "Failed"]


class TrackerError(Exception):
    """A tracker could not be told; worth another try."""


class Refused(TrackerError):
    """It will never take this: wrong credentials, no such project, a package that is missing."""


@dataclass(frozen=True)
class Series:
    """Figures that belong together: the curve of one training, or the figures of all models."""

    name: str
    """`M2/train`; `figures`."""
    key: str = ""
    """Key of the training. Another key under the same name is another curve; figures have none, and may change."""

    @classmethod
    def of_training(cls, iteration: int, node: str, key: str) -> Series:
        return cls(f"{model_name(iteration)}/{node}", key)


class Tracker(Protocol):
    """One thread uses it. Every method ends within seconds, and raises TrackerError."""

    name: str
    """Field of the spec, for messages."""
    pause: float
    """Least seconds between two sends while a stage runs."""

    def check(self) -> None:
        """Whether it answers and takes the credentials; writes nothing."""

    def send(self, series: Series, rows: Sequence[Row]) -> None:
        """Add rows, by rising step. What it has already is not doubled."""

    def describe(self, settings: Mapping[str, str], state: State) -> None:
        """How the run is set up, and how it stands."""

    def close(self) -> None:
        """Hand over what is on its way."""


@dataclass(frozen=True)
class Sender:
    """Who tells a tracker: a stage of a run."""

    run: RunIdentity
    store: Store
    work: Path
    environ: Mapping[str, str]

    @property
    def title(self) -> str:
        return f"{self.run.namespace}/{self.run.name}"

    def secret(self, variable: str, field: str) -> str:
        """The value of a Secret. Raises Refused naming the field where it is not there."""
        value = self.environ.get(variable, "").strip()
        if not value:
            raise Refused(f"the Secret of {field} is missing, or has no such key")
        return value
