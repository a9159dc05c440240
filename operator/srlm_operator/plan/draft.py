"""The plan while it is being made: records of stages, what to do, what is waited for."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime

from srlm_contract.graph import NodeId, model_name
from srlm_contract.spec.run import RunSpec
from srlm_contract.spec.storage import Storage
from srlm_contract.status import PreflightStatus, StageStatus
from srlm_contract.tasks import StageResult
from srlm_operator.settings import Settings
from srlm_operator.values import Action, DeleteJob, Event, JobView, Observed, PodView, Run

PREFLIGHT = NodeId(0, "preflight")
CLEANUP = NodeId(0, "cleanup")
REPORT = NodeId(0, "report")
#: Nodes outside the graph.
PLAIN = (PREFLIGHT, CLEANUP, REPORT)


@dataclass(frozen=True)
class Note:
    """A reason and its message, for conditions."""

    reason: str
    message: str


@dataclass
class Draft:
    """Mutable while `plan` runs, and nowhere else."""

    run: Run
    spec: RunSpec
    observed: Observed
    now: datetime
    settings: Settings
    records: dict[NodeId, StageStatus] = field(default_factory=dict)
    """By node id."""
    preflight: PreflightStatus = field(default_factory=PreflightStatus)
    results: dict[NodeId, StageResult] = field(default_factory=dict)
    """Answers of stages that were found committed in this plan, by node id."""
    actions: list[Action] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    waits: list[Note] = field(default_factory=list)
    stalls: list[Note] = field(default_factory=list)
    wakes: list[datetime] = field(default_factory=list)
    gpu_seconds: float = 0
    tokens: int = 0
    stopped: set[str] = field(default_factory=set)
    """Names of Jobs deleted by this plan."""

    def __post_init__(self) -> None:
        status = self.run.status
        self.storage = Storage.parse(self.spec.storage.wire())
        self.preflight = status.preflight
        self.gpu_seconds, self.tokens = status.gpu_seconds, status.tokens
        for number, iteration in enumerate(status.iterations):
            self.records |= {NodeId(number, stage.name): stage for stage in iteration.stages}
        if status.preflight_stage is not None:
            self.records[PREFLIGHT] = status.preflight_stage
        if status.cleanup_stage is not None:
            self.records[CLEANUP] = status.cleanup_stage
        if status.report_stage is not None:
            self.records[REPORT] = status.report_stage
        self._pods: dict[str, list[PodView]] = defaultdict(list)
        for pod in self.observed.pods:
            self._pods[pod.job].append(pod)
        self._jobs = {job.name: job for job in self.observed.jobs if job.owned}

    @property
    def new_generation(self) -> bool:
        """Whether the spec changed since the last plan."""
        return self.run.status.observed_generation != self.run.generation

    def job(self, name: str) -> JobView | None:
        """A Job of ours that is not on its way out."""
        job = self._jobs.get(name)
        return None if job is None or job.deleting or name in self.stopped else job

    def jobs(self) -> list[JobView]:
        """All Jobs of ours that are not on their way out, oldest attempt first."""
        found = [j for j in self._jobs.values() if not j.deleting and j.name not in self.stopped]
        return sorted(found, key=lambda job: job.attempt)

    def last_attempt(self, node_id: NodeId) -> int:
        """Highest attempt of a node that any Job stands for, also one being deleted."""
        return max((j.attempt for j in self.observed.jobs if j.node_id == node_id), default=0)

    def pods(self, job: str) -> tuple[PodView, ...]:
        return tuple(self._pods.get(job, ()))

    def delete(self, job: JobView) -> None:
        if job.name not in self.stopped:
            self.stopped.add(job.name)
            self.actions.append(DeleteJob(job.name, job.uid))

    def wait(self, reason: str, message: str) -> None:
        self.waits.append(Note(reason, message))

    def stall(self, reason: str, message: str) -> None:
        self.stalls.append(Note(reason, message))

    def normal(self, reason: str, message: str) -> None:
        self.events.append(Event("Normal", reason, message))

    def warn(self, reason: str, message: str) -> None:
        self.events.append(Event("Warning", reason, message))

    def wake(self, moment: datetime) -> None:
        """Look again at this time at the latest."""
        self.wakes.append(moment)


def title(node_id: NodeId) -> str:
    """`judge of M2`, for people."""
    return node_id.name if node_id in PLAIN else f"{node_id.name} of {model_name(node_id.iteration)}"
