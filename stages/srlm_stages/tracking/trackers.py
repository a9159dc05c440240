"""The trackers of a run, and what describes it there."""

from __future__ import annotations

from collections.abc import Mapping

from srlm_contract.spec.run import RunSpec
from srlm_contract.spec.tracking import TrackingSpec

from .mlflow import Mlflow
from .tensorboard import Tensorboard
from .tracker import Sender, Tracker
from .trackio import Trackio
from .wandb import Wandb

#: Sections of the spec whose plain values describe a run in a tracker.
_DESCRIBING = (
    "baseModel", "iterations", "seed", "bootstrap", "branchFrom", "prompts", "generation", "judging", "preferences",
    "training",
)  # fmt: skip
_LONGEST_VALUE = 250


def trackers(spec: TrackingSpec, sender: Sender) -> list[Tracker]:
    """Those that a run asks for; none is asked anything yet."""
    found: list[Tracker] = []
    if spec.mlflow is not None:
        found.append(Mlflow(spec.mlflow, sender))
    if spec.wandb is not None:
        found.append(Wandb(spec.wandb, sender))
    if spec.tensorboard is not None:
        found.append(Tensorboard(spec.tensorboard, sender))
    if spec.trackio is not None:
        found.append(Trackio(spec.trackio, sender))
    return found


def settings_of(spec: RunSpec) -> dict[str, str]:
    """The plain values of a spec that tell runs apart, by path: no text that a model reads, no names of objects."""
    body = spec.wire()
    found: dict[str, str] = {}
    for section in _DESCRIBING:
        _flatten(body.get(section), section, found)
    return found


def _flatten(value: object, path: str, found: dict[str, str]) -> None:
    if isinstance(value, Mapping):
        for name, part in value.items():
            if not name.endswith(("Ref", "Kwargs", "Prompt", "Keywords")):
                _flatten(part, f"{path}.{name}", found)
    elif isinstance(value, list):
        found[path] = ", ".join(map(str, value))[:_LONGEST_VALUE]
    elif value is not None and isinstance(value, str | int | float):
        found[path] = str(value)[:_LONGEST_VALUE]
