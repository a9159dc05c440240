"""A run's world in memory: Jobs, pods and status, driven by plans as the API would be. For planner tests.

It keeps the rules the planner relies on: Job names are unique for good, status survives a restart, pods end as
`FakeStages` says, and every write is counted.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from srlm_contract.progress import Progress
from srlm_contract.spec.run import RunSpec
from srlm_contract.status import RunStatus
from srlm_contract.tasks import StageTask
from srlm_operator.cluster.views import job_view, with_storage
from srlm_operator.names import ANNOTATION_SETTINGS, FINALIZER
from srlm_operator.plan.plan import plan
from srlm_operator.settings import Settings
from srlm_operator.values import CreateJob, JobView, Observed, Plan, PodView, Refusal, Run, SetFinalizer
from support.builders import START, UID, settings, spec
from support.stage_script import Ending, FakeStages


@dataclass
class FakeCluster:
    """One run and its Jobs."""

    spec: RunSpec = field(default_factory=spec)
    stages: FakeStages = field(default_factory=FakeStages)
    settings: Settings = field(default_factory=settings)
    now: datetime = START
    status: RunStatus = field(default_factory=RunStatus)
    generation: int = 1
    annotations: dict[str, str] = field(default_factory=dict)
    finalizers: tuple[str, ...] = ()
    deleted_at: datetime | None = None
    gone: bool = False
    jobs: dict[str, JobView] = field(default_factory=dict)
    tasks: dict[str, StageTask] = field(default_factory=dict)
    manifests: dict[str, Any] = field(default_factory=dict)
    """Of all Jobs ever created, by name."""
    pods: dict[str, list[PodView]] = field(default_factory=dict)
    created: list[str] = field(default_factory=list)
    """Names of all Jobs ever created, in order."""
    writes: int = 0
    events: list[str] = field(default_factory=list)
    refuse: dict[str, Refusal] = field(default_factory=dict)
    progress: dict[str, Progress] = field(default_factory=dict)
    """Last progress line by pod name."""
    uid: str = UID
    on_created: Callable[[CreateJob], None] = lambda action: None
    on_status: Callable[[Run, Plan], None] = lambda run, plan: None
    """As those of the operator's `Applier`."""

    def run(self) -> Run:
        spec, basis = with_storage(self.spec, self.status, "team", self.settings)
        return Run(
            namespace="team", name="run", uid=self.uid, generation=self.generation, resource_version="1",
            spec=spec, storage_basis=basis, spec_error="",
            status=self.status, stored_status=self.status.wire(defaults=False),
            finalizers=self.finalizers, annotations=self.annotations, deleted_at=self.deleted_at,
        )  # fmt: skip

    def observed(self) -> Observed:
        pods = tuple(pod for group in self.pods.values() for pod in group)
        return Observed(jobs=tuple(self.jobs.values()), pods=pods, refusals=self.refuse, progress=self.progress)

    def edit(self, **changes: Any) -> None:
        """A person edits the spec (python field names)."""
        self.spec = self.spec.model_copy(update=changes)
        self.generation += 1

    def reconcile(self, *, crash_after: int | None = None) -> Plan:
        """Plans, applied until none asks for another look at once; the last one.

        crash_after: there is one only, and the operator dies after so many writes.
        """
        while True:
            found = self._reconcile(10**9 if crash_after is None else crash_after)
            if found.requeue_after != 0 or crash_after is not None:
                return found

    def _reconcile(self, writes: int) -> Plan:
        run, left = self.run(), [writes]
        found = plan(run, self.observed(), self.now, self.settings)

        def write() -> bool:
            if left[0] == 0:
                return False
            left[0] -= 1
            self.writes += 1
            return True

        for action in found.actions:
            if not write():
                return found
            self._act(action)
            if isinstance(action, CreateJob):
                self.on_created(action)
        if found.status is not None and found.status != self.status:
            if not write():
                return found
            # What is stored is what was written: JSON.
            self.status = RunStatus.parse(found.status.wire(defaults=False))
        self.on_status(run, found)
        for ttl in found.ttls:
            if not write():
                return found
            if ttl.name in self.jobs:
                self.jobs[ttl.name] = replace(self.jobs[ttl.name], has_ttl=True)
        for event in found.events:
            if not write():
                return found
            self.events.append(event.reason)
        for delete in found.deletes:
            if not write():
                return found
            assert delete.uid == f"uid-{delete.name}"
            self.remove(delete.name)
        return found

    def _act(self, action: CreateJob | SetFinalizer) -> None:
        match action:
            case CreateJob(name, manifest, _):
                assert name not in self.created or name in self.jobs, f"{name} was used before"
                if name in self.jobs:
                    return
                self.created.append(name)
                self.manifests[name] = manifest
                body = {**manifest, "metadata": {**manifest["metadata"], "uid": f"uid-{name}"}}
                view = job_view(body, self.uid)
                assert view.settings_digest == manifest["metadata"]["annotations"][ANNOTATION_SETTINGS]
                self.jobs[name] = replace(view, created_at=self.now, started_at=self.now, active=view.completions)
                env = manifest["spec"]["template"]["spec"]["containers"][0]["env"]
                text = next(item["value"] for item in env if item["name"] == "SRLM_TASK")
                self.tasks[name] = StageTask.model_validate_json(text)
                self.pods[name] = [
                    PodView(f"{name}-{i}", f"pod-{name}-{i}", name, i, "Pending") for i in range(view.completions)
                ]
            case SetFinalizer(present):
                self.finalizers = (FINALIZER,) if present else ()
                self.gone = not present and self.deleted_at is not None

    def remove(self, name: str) -> None:
        """A Job and its pods go."""
        self.jobs.pop(name, None)
        self.pods.pop(name, None)

    def remove_by_hand(self, name: str) -> None:
        """Somebody deletes a Job; one that status never knew of may then be created once more."""
        self.remove(name)
        self.created.remove(name)

    def active(self) -> list[str]:
        """Names of Jobs that are not finished."""
        return [name for name, job in self.jobs.items() if job.state == "Active"]

    def start_pods(self, name: str) -> None:
        self.pods[name] = [
            replace(p, phase="Running", started_at=self.now) if p.phase == "Pending" else p for p in self.pods[name]
        ]

    def finish(self, name: str) -> None:
        """All pods of a Job end as the stages say, and the Job with them."""
        job, task = self.jobs[name], self.tasks[name]
        ended = [self._end(pod, self.stages.run(task, pod.index)) for pod in self.pods[name]]
        self.pods[name] = ended
        good = tuple(p.index for p in ended if p.phase == "Succeeded")
        state = "Complete" if len(good) == len(ended) else "Failed"
        self.jobs[name] = replace(job, state=state, completed=good, active=0, finished_at=self.now)

    def _end(self, pod: PodView, ending: Ending) -> PodView:
        return replace(
            pod,
            phase="Failed" if ending.exit_code else "Succeeded",
            exit_code=ending.exit_code,
            message=ending.message,
            terminated_reason=ending.reason,
            disrupted=ending.disrupted,
            started_at=pod.started_at or self.now,
            finished_at=self.now,
        )

    def advance(self, seconds: float = 1) -> None:
        self.now += timedelta(seconds=seconds)

    def step(self, *, watched: bool = True) -> bool:
        """Reconcile, then let one active Job end. False when there was nothing left to end.

        watched: whether the operator sees the Job running before it ends.
        """
        self.reconcile()
        active = self.active()
        self.advance()
        if active:
            self.start_pods(active[0])
            if watched:
                self.reconcile()
            self.finish(active[0])
            return True
        return False

    def settle(self, most: int = 400, *, watched: bool = True) -> None:
        """Until nothing runs and nothing changes any more; waits for retries."""
        for _ in range(most):
            if self.step(watched=watched):
                continue
            before = self.writes
            found = self.reconcile()
            if self.writes != before or self.active():
                continue
            if found.requeue_after is None or self._stalled_for_good(found):
                return
            self.advance(found.requeue_after + 1)
            self.reconcile()
        raise AssertionError(f"not settled after {most} steps: {json.dumps(self.status.wire(), indent=1)[:3000]}")

    def _stalled_for_good(self, found: Plan) -> bool:
        """Only a slow re-check is left."""
        return found.status is not None and found.status.phase in ("Failed", "Held")

    def condition(self, kind: str) -> str:
        """Reason of a condition that is True, or nothing."""
        return next((c.reason for c in self.status.conditions if c.type == kind and c.status == "True"), "")

    def record(self, node_id: str) -> Any:
        iteration, _, name = node_id.partition("/")
        for stage in self.status.iterations[int(iteration)].stages:
            if stage.name == name:
                return stage
        raise KeyError(node_id)

    def node_of(self, job: str) -> str:
        task = self.tasks[job]
        return f"{task.iteration}/{task.node}"

    def missing_of(self, job: str) -> tuple[int, ...]:
        return self.tasks[job].shard_indexes


def until_node(world: FakeCluster, node: str, most: int = 200) -> str:
    """Run the world until a Job of the node is active; its name."""
    for _ in range(most):
        world.reconcile()
        for name in world.active():
            if world.node_of(name) == node:
                return name
        for name in world.active():
            world.start_pods(name)
            world.finish(name)
        world.advance()
    raise AssertionError(f"{node} never ran")


def attempts(world: FakeCluster, node: str) -> int:
    """How many Jobs of the node were created."""
    return sum(world.node_of(name) == node for name in world.created)
