"""What the planner reads and what it answers: plain values without behaviour."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from srlm_contract.graph import NodeId
from srlm_contract.progress import Progress
from srlm_contract.spec.run import RunSpec
from srlm_contract.spec.storage import Storage
from srlm_contract.status import RunStatus

Manifest = Mapping[str, Any]
Phase = Literal["Pending", "Running", "Succeeded", "Failed", "Unknown"]
"""Phase of a pod."""


@dataclass(frozen=True)
class Run:
    """A SelfRewardingRun as last seen."""

    namespace: str
    name: str
    uid: str
    generation: int
    resource_version: str
    spec: RunSpec | None
    """None when it does not fit the schema; then `spec_error` says why. `spec.storage` is the effective one: what it
    leaves out is filled in already, and `uri` is None only where nothing says where artifacts shall lie."""
    spec_error: str
    status: RunStatus
    stored_status: Mapping[str, Any]
    """Status as it lies in the API, to see whether a patch changes anything."""
    finalizers: tuple[str, ...] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)
    deleted_at: datetime | None = None
    spec_newer: bool = False
    """The spec only has fields that this version does not know: the definition is newer than this operator."""
    others: bool = False
    """Somebody else carries it out: nothing of it is ours to decide or to write."""
    storage_basis: Storage | None = None
    """What fields mean that the run's own `spec.storage` leaves out: kept in status, so that it stays."""


@dataclass(frozen=True)
class JobView:
    """A Job of the run."""

    name: str
    uid: str
    iteration: int
    node: str
    stage: str
    key: str
    attempt: int
    state: Literal["Active", "Suspended", "Complete", "Failed"]
    owned: bool = True
    settings_digest: str = ""
    shards: int = 1
    """Shards of the artifact."""
    shard_indexes: tuple[int, ...] = ()
    """Those this Job covers; empty for all."""
    completions: int = 1
    completed: tuple[int, ...] = ()
    """Completion indexes that succeeded."""
    active: int = 0
    chain: Mapping[NodeId, str] = field(default_factory=dict)
    """What its pods run after its own stage, in order, each with a digest of what it computes."""
    failure_reason: str = ""
    failure_message: str = ""
    create_error: str = ""
    """Why the Job controller cannot create pods (quota, admission webhook)."""
    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    has_ttl: bool = False
    managed_by: str = ""
    """Who makes its pods instead of the cluster's Job controller."""
    deleting: bool = False
    resource_version: str = ""

    @property
    def ended(self) -> bool:
        return self.state in ("Complete", "Failed")

    @property
    def node_id(self) -> NodeId:
        return NodeId(self.iteration, self.node)


@dataclass(frozen=True)
class PodView:
    """A pod of one of the run's Jobs."""

    name: str
    uid: str
    job: str
    """Name of the Job that controls it."""
    index: int
    phase: Phase
    job_uid: str = ""
    exit_code: int | None = None
    terminated_reason: str = ""
    """Such as OOMKilled."""
    message: str = ""
    """Termination message of the stage's container."""
    pod_reason: str = ""
    """Such as Evicted or DeadlineExceeded."""
    pod_message: str = ""
    disrupted: bool = False
    waiting_reason: str = ""
    waiting_message: str = ""
    unschedulable: str = ""
    started_at: datetime | None = None
    finished_at: datetime | None = None
    gpus: float = 0
    beside: str = ""
    """A container that runs on although that of the stage has ended."""
    node: str = ""
    """Name of its node; empty before it has one."""
    deleting: bool = False
    deleted_at: datetime | None = None
    """When it has to be gone: the end of its grace period."""


@dataclass(frozen=True)
class Refusal:
    """The API server refused to create an object."""

    reason: str
    """Constant of srlm_contract.reasons."""
    message: str
    at: datetime
    terminating: bool = False
    """The namespace is being deleted."""


@dataclass(frozen=True)
class BranchModel:
    """What `branchFrom` names: the stage, key and content digest of another run's model."""

    stage: str
    key: str
    content_digest: str


@dataclass(frozen=True)
class Observed:
    """Everything the planner may know beside the run itself."""

    jobs: tuple[JobView, ...] = ()
    pods: tuple[PodView, ...] = ()
    progress: Mapping[str, Progress] = field(default_factory=dict)
    """Last progress line by pod name."""
    unread: Collection[str] = ()
    """Names of pods whose logs the API server cannot read."""
    refusals: Mapping[str, Refusal] = field(default_factory=dict)
    """By name of the Job that could not be created."""
    branch: BranchModel | None = None
    branch_error: str = ""
    pod_groups: str = ""
    """Group and version in which the cluster serves PodGroups; empty where it has none, and for runs that need none."""


@dataclass(frozen=True)
class CreateJob:
    """Create a Job, and before it what its pods need: a headless Service when they must find each other, a PodGroup
    when they must start together."""

    name: str
    manifest: Manifest
    service: Manifest | None = None
    pod_group: Manifest | None = None
    chain: Mapping[NodeId, str] = field(default_factory=dict)
    """As that of a JobView."""


@dataclass(frozen=True)
class DeleteJob:
    """Delete a Job and its pods (background propagation), if it still is as it was seen."""

    name: str
    uid: str
    resource_version: str = ""


@dataclass(frozen=True)
class SetFinalizer:
    """Add or remove our finalizer."""

    present: bool


@dataclass(frozen=True)
class PatchJobTTL:
    """Let the API remove a finished Job after a while: its outcome is in status."""

    name: str
    seconds: int


@dataclass(frozen=True)
class Event:
    """A Kubernetes event on the run, for people."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


Action = CreateJob | SetFinalizer


@dataclass(frozen=True)
class Plan:
    """What to do, in the order it is done."""

    actions: tuple[Action, ...] = ()
    status: RunStatus | None = None
    """None leaves the status alone."""
    ttls: tuple[PatchJobTTL, ...] = ()
    events: tuple[Event, ...] = ()
    deletes: tuple[DeleteJob, ...] = ()
    """Jobs whose outcome is in `status`, or that have none to keep."""
    requeue_after: float | None = None
    """Seconds until the run is looked at again without any event."""
