"""The world a plan is made of: the run, its Jobs and pods, the time. Nothing in it changes while a plan is made."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from srlm_contract.graph import NodeId, model_name
from srlm_contract.spec.run import RunSpec
from srlm_contract.spec.storage import Storage
from srlm_contract.status import RunStatus, StageStatus
from srlm_operator.names import RETRY_ANNOTATION
from srlm_operator.settings import Settings
from srlm_operator.values import JobView, Observed, PodView, Run

PREFLIGHT = NodeId(0, "preflight")
CLEANUP = NodeId(0, "cleanup")
REPORT = NodeId(0, "report")
#: Nodes outside the graph.
PLAIN = (PREFLIGHT, CLEANUP, REPORT)

Records = Mapping[NodeId, StageStatus]


@dataclass(frozen=True)
class World:
    """What every decision may depend on, apart from the records of stages."""

    run: Run
    spec: RunSpec
    observed: Observed
    now: datetime
    settings: Settings

    @cached_property
    def storage(self) -> Storage:
        return Storage.parse(self.spec.storage.wire())

    @property
    def new_generation(self) -> bool:
        """Whether the spec changed since the last plan."""
        return self.run.status.observed_generation != self.run.generation

    @property
    def retry_token(self) -> str:
        """What a person annotated last to have failed stages tried again."""
        return self.run.annotations.get(RETRY_ANNOTATION, "")[:128]

    @property
    def try_again(self) -> bool:
        """Whether a person has changed the spec or asked for another try since the last plan."""
        return self.new_generation or self.retry_token not in ("", self.run.status.retry_token)

    @cached_property
    def _jobs(self) -> Mapping[str, JobView]:
        return {job.name: job for job in self.observed.jobs if job.owned and not job.deleting}

    @cached_property
    def _pods(self) -> Mapping[str, list[PodView]]:
        found: dict[str, list[PodView]] = defaultdict(list)
        for pod in self.observed.pods:
            found[pod.job].append(pod)
        return found

    def job(self, name: str) -> JobView | None:
        """A Job of ours that is not on its way out."""
        return self._jobs.get(name)

    def jobs(self) -> list[JobView]:
        """All Jobs of ours that are not on their way out, oldest attempt first."""
        return sorted(self._jobs.values(), key=lambda job: job.attempt)

    def pods(self, job: str) -> tuple[PodView, ...]:
        return tuple(self._pods.get(job, ()))

    def last_attempt(self, node_id: NodeId) -> int:
        """Highest attempt of a node that any Job of the run stands for, also one being deleted."""
        return max((j.attempt for j in self.observed.jobs if j.node_id == node_id and j.owned), default=0)


def recorded(status: RunStatus) -> Records:
    """The records of stages that status holds."""
    found = {
        NodeId(t, stage.name): stage for t, iteration in enumerate(status.iterations) for stage in iteration.stages
    }
    plain = {PREFLIGHT: status.preflight_stage, CLEANUP: status.cleanup_stage, REPORT: status.report_stage}
    return found | {node_id: record for node_id, record in plain.items() if record is not None}


def runs(node_id: NodeId, chain: Iterable[NodeId]) -> str:
    """`judge-heldout of M2 runs, then evaluate, prompts of M3`: a Job and what it does next."""
    then = [link.name if link.iteration == node_id.iteration else title(link) for link in chain]
    return f"{title(node_id)} runs" + (f", then {', '.join(then)}" if then else "")


def title(node_id: NodeId) -> str:
    """`judge of M2`, for people."""
    return node_id.name if node_id in PLAIN else f"{node_id.name} of {model_name(node_id.iteration)}"
