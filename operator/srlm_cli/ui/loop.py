"""The loop as a picture: a lane for each iteration, from the model that answers to the model it makes. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from srlm_cli.results import MARKS, SAME_JOB, duration, running_jobs
from srlm_contract.graph import model_name
from srlm_contract.stages import MODEL_MAKERS
from srlm_contract.status import IterationStatus, RunStatus, StageStatus
from srlm_operator.times import parse

#: Shards drawn one by one; of more, numbers tell.
MAX_CELLS = 64


@dataclass(frozen=True)
class Box:
    """A stage."""

    name: str
    state: str
    """As in status, or `reused`."""
    mark: str
    time: str
    """How long it took or has taken, or where it waits."""
    shards: tuple[int, int] = (0, 0)
    """Done and all; where there is one only, (0, 0)."""
    attempt: int = 0
    """From the second one on."""
    failure: str = ""
    made: str = ""
    """The model that the stage makes, if it is the one that counts."""

    @property
    def cells(self) -> tuple[bool, ...]:
        """A cell a shard, whether it is done."""
        done, shards = self.shards
        return tuple(shard < done for shard in range(shards)) if shards <= MAX_CELLS else ()


@dataclass(frozen=True)
class Lane:
    """An iteration."""

    before: str
    """The model it begins with: the base model for M1."""
    model: str
    finished: bool
    boxes: tuple[Box, ...]
    gates: tuple[str, ...]

    @property
    def working(self) -> bool:
        return any(box.state in ("Running", "Retrying") for box in self.boxes)


def lanes(status: RunStatus, now: datetime) -> tuple[Lane, ...]:
    """All iterations, M1 first."""
    done = {model.name for model in status.models}
    return tuple(_lane(number, iteration, status, done, now) for number, iteration in enumerate(status.iterations))


def _lane(number: int, iteration: IterationStatus, status: RunStatus, done: set[str], now: datetime) -> Lane:
    makers = [stage.name for stage in iteration.stages if stage.stage in MODEL_MAKERS]
    running = running_jobs(status)
    boxes = (
        _box(stage, status, now, running, iteration.name if makers and stage.name == makers[-1] else "")
        for stage in iteration.stages
    )
    before = model_name(number - 1) if number else "base model"
    return Lane(before, iteration.name, iteration.name in done, tuple(boxes), iteration.gates)


def _box(stage: StageStatus, status: RunStatus, now: datetime, running: set[str], made: str) -> Box:
    state = "reused" if stage.reused and stage.state == "Succeeded" else stage.state
    began, ended = parse(stage.started_at), parse(stage.finished_at)
    counted = began is not None and state != "reused"
    time = duration(((ended or now) - began).total_seconds()) if counted and began is not None else ""
    if stage.state == "Pending" and stage.job in running:
        time = SAME_JOB
    failure = stage.last_failure if stage.state in ("Retrying", "Failed") else None
    return Box(
        name=stage.name,
        state=state,
        mark=MARKS[stage.state][0],
        time=time,
        shards=_shards(stage, status),
        attempt=stage.attempt if stage.attempt > 1 and stage.state != "Pending" else 0,
        failure=f"{failure.reason}: {failure.message}" if failure is not None else "",
        made=made,
    )


def _shards(stage: StageStatus, status: RunStatus) -> tuple[int, int]:
    """Status tells how many are done of the stage that runs first."""
    if stage.shards < 2:
        return 0, 0
    if stage.state == "Succeeded":
        return stage.shards, stage.shards
    progress = status.progress
    told = stage.state == "Running" and progress.shards_total == stage.shards
    return (progress.shards_done if told else 0), stage.shards
