"""What functions of the planner return: what they decided, as values that `+` puts one after the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from srlm_contract.graph import NodeId
from srlm_contract.status import PreflightStatus, StageStatus
from srlm_operator.values import Action, DeleteJob, Event, JobView

from .world import Records, title


@dataclass(frozen=True)
class Note:
    """A reason and its message, for conditions."""

    reason: str
    message: str


@dataclass(frozen=True)
class Decisions:
    """Everything that is decided beside the records of stages."""

    actions: tuple[Action, ...] = ()
    deletes: tuple[DeleteJob, ...] = ()
    events: tuple[Event, ...] = ()
    waits: tuple[Note, ...] = ()
    stalls: tuple[Note, ...] = ()
    wakes: tuple[datetime, ...] = ()
    """When to look again at the latest."""
    gpu_seconds: float = 0
    """Used by attempts that have ended."""
    tokens: int = 0

    def __add__(self, later: Decisions) -> Decisions:
        return Decisions(
            self.actions + later.actions,
            self.deletes + later.deletes,
            self.events + later.events,
            self.waits + later.waits,
            self.stalls + later.stalls,
            self.wakes + later.wakes,
            self.gpu_seconds + later.gpu_seconds,
            self.tokens + later.tokens,
        )

    @property
    def hindrances(self) -> tuple[Note, ...]:
        """What keeps the work from going on."""
        return self.stalls + tuple(note for note in self.waits if note.reason != "Progressing")


NOTHING = Decisions()


@dataclass(frozen=True)
class Step:
    """A stage brought one step on."""

    record: StageStatus
    decided: Decisions = NOTHING

    def after(self, earlier: Decisions) -> Step:
        return Step(self.record, earlier + self.decided)


@dataclass(frozen=True)
class Draft:
    """The plan so far."""

    records: Records
    preflight: PreflightStatus
    decided: Decisions = NOTHING

    def add(self, decided: Decisions) -> Draft:
        return replace(self, decided=self.decided + decided)

    def put(self, node_id: NodeId, step: Step) -> Draft:
        return replace(self, records={**self.records, node_id: step.record}).add(step.decided)


def act(action: Action) -> Decisions:
    return Decisions(actions=(action,))


def delete(job: JobView) -> Decisions:
    """To be done when status is written: a life of the operator that ends in between must not take it for gone."""
    return Decisions(deletes=(DeleteJob(job.name, job.uid, job.resource_version),))


def normal(reason: str, message: str) -> Decisions:
    return Decisions(events=(Event("Normal", reason, message),))


def succeeded(node_id: NodeId, statistics: Mapping[str, float]) -> Decisions:
    """A stage is committed, and its tokens count."""
    tokens = Decisions(tokens=int(statistics.get("tokens", 0)))
    return tokens + normal(f"{node_id.stage.capitalize()}Succeeded", f"{title(node_id)} is done")


def warn(reason: str, message: str) -> Decisions:
    return Decisions(events=(Event("Warning", reason, message),))


def wait(reason: str, message: str) -> Decisions:
    return Decisions(waits=(Note(reason, message),))


def stall(reason: str, message: str) -> Decisions:
    return Decisions(stalls=(Note(reason, message),))


def wake(moment: datetime) -> Decisions:
    return Decisions(wakes=(moment,))
