"""A state machine of everything that can happen to a run; when it is quiet, the run arrives and writes nothing more.

Actions: spec edits, suspend and resume, pods that crash, run out of memory, are evicted or fail for a while, a Job
deleted by hand, pods collected before they were read, the operator dying between writes, lost status, requests for
reports.
"""

from __future__ import annotations

from dataclasses import replace

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from srlm_contract.status import RunStatus
from srlm_operator.names import FINALIZER, REPORT_ANNOTATION
from srlm_operator.plan.status import MAX_STATUS_BYTES, size
from support.builders import spec
from support.fake_cluster import FakeCluster
from support.stage_script import Ending, error

ENDINGS = [
    Ending(1, "Traceback"),
    Ending(137, "", "OOMKilled"),
    Ending(143, "", "Error", disrupted=True),
    error(75, "StorageUnavailable", "S3 does not answer"),
    error(77, "StorageNotPermitted", "403"),
]
PATIENT = {"maxAttempts": 50, "backoffSeconds": 1}


class RunMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = FakeCluster(spec=spec(iterations=1, failurePolicy=PATIENT, generation={"shards": 1}))
        self.models_seen: dict[str, int] = {}

    @rule()
    def reconcile(self) -> None:
        self.world.reconcile()

    @rule(writes=st.integers(0, 4))
    def operator_dies(self, writes: int) -> None:
        self.world.reconcile(crash_after=writes)

    @rule(seconds=st.sampled_from([1, 10, 100, 4000]))
    def time_passes(self, seconds: int) -> None:
        self.world.advance(seconds)

    @precondition(lambda self: self.world.active())
    @rule(data=st.data())
    def job_ends_well(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self.world.active()))
        self.world.start_pods(name)
        self.world.finish(name)

    @precondition(lambda self: self.world.active())
    @rule(data=st.data(), ending=st.sampled_from(ENDINGS))
    def job_fails(self, data: st.DataObject, ending: Ending) -> None:
        name = data.draw(st.sampled_from(self.world.active()))
        self.world.stages.fail(self.world.tasks[name].node, ending)
        self.world.finish(name)

    @precondition(lambda self: any(self.world.tasks[name].chain for name in self.world.active()))
    @rule(data=st.data(), ending=st.sampled_from(ENDINGS))
    def job_ends_in_its_chain(self, data: st.DataObject, ending: Ending) -> None:
        """At any of its links; killed, or well and with less than it was asked for."""
        name = data.draw(st.sampled_from([name for name in self.world.active() if self.world.tasks[name].chain]))
        node = data.draw(st.sampled_from([link.node for link in self.world.tasks[name].chain]))
        self.world.stages.fail(node, ending)
        self.world.start_pods(name)
        self.world.finish(name)
        if data.draw(st.booleans()):
            self.world.stages.faults.pop(node, None)

    @precondition(lambda self: self.world.active())
    @rule(data=st.data())
    def job_is_deleted_by_hand(self, data: st.DataObject) -> None:
        self.world.remove_by_hand(data.draw(st.sampled_from(self.world.active())))

    @precondition(lambda self: self.world.jobs)
    @rule(data=st.data())
    def pods_are_collected(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.world.jobs)))
        if self.world.jobs[name].state in ("Complete", "Failed"):
            self.world.pods[name] = []

    @precondition(lambda self: self.world.jobs)
    @rule(data=st.data())
    def finished_job_expires(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.world.jobs)))
        if self.world.jobs[name].has_ttl:
            self.world.remove(name)

    @precondition(lambda self: self.world.active())
    @rule(data=st.data())
    def pods_wait(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self.world.active()))
        self.world.pods[name] = [replace(p, unschedulable="no GPU") for p in self.world.pods[name]]

    @rule(iterations=st.integers(1, 3))
    def edit_iterations(self, iterations: int) -> None:
        self.world.edit(iterations=iterations)

    @rule(beta=st.sampled_from([0.1, 0.3]))
    def edit_beta(self, beta: float) -> None:
        training = self.world.spec.training
        self.world.edit(training=training.model_copy(update={"dpo": training.dpo.model_copy(update={"beta": beta})}))

    @rule(shards=st.integers(1, 3))
    def edit_shards(self, shards: int) -> None:
        self.world.edit(generation=self.world.spec.generation.model_copy(update={"shards": shards}))

    @rule(label=st.sampled_from(["a", "b"]))
    def edit_pods(self, label: str) -> None:
        self.world.edit(pod_template={"metadata": {"labels": {"team": label}}})

    @rule(suspended=st.booleans())
    def suspend(self, suspended: bool) -> None:
        self.world.edit(suspend=suspended)

    @rule(token=st.sampled_from(["one", "two"]))
    def ask_for_a_report(self, token: str) -> None:
        self.world.annotations = {REPORT_ANNOTATION: token}

    @precondition(lambda self: not self.world.jobs)
    @rule()
    def status_is_lost(self) -> None:
        self.world.status = RunStatus()
        self.world.created.clear()

    @invariant()
    def at_most_one_job_a_stage(self) -> None:
        tasks = [self.world.tasks[name] for name in self.world.active()]
        nodes = [f"{task.iteration}/{task.node}" for task in tasks]
        nodes += [f"{link.iteration}/{link.node}" for task in tasks for link in task.chain]
        assert len(nodes) == len(set(nodes))

    @invariant()
    def status_is_small(self) -> None:
        assert size(self.world.status) < MAX_STATUS_BYTES

    @invariant()
    def conditions_are_as_kstatus_wants(self) -> None:
        kinds = {c.type: c.status for c in self.world.status.conditions}
        assert kinds.get("Reconciling", "True") == kinds.get("Stalled", "True") == "True"
        assert not (kinds.get("Ready") == "True" and ("Reconciling" in kinds or "Stalled" in kinds))

    def teardown(self) -> None:
        """Quiet: the faults stop, and the run must arrive."""
        world = self.world
        world.stages.faults.clear()
        if world.spec.suspend:
            world.edit(suspend=False)
        for _ in range(300):
            if world.status.phase == "Succeeded" and not world.active():
                break
            found = world.reconcile()
            for name in world.active():
                world.start_pods(name)
                world.finish(name)
            world.advance(min(found.requeue_after or 1, 4000) + 1)
        world.reconcile()
        assert world.status.phase == "Succeeded", world.status.conditions
        assert len(world.status.models) >= world.spec.iterations + 1
        report, stage = world.status.report, world.status.report_stage
        assert report.end
        assert report.token == world.annotations.get(REPORT_ANNOTATION, "")
        assert stage is not None
        assert stage.state in ("Succeeded", "Failed")
        before = world.writes
        for _ in range(3):
            world.advance(5000)
            world.reconcile()
        assert world.writes == before
        self._let_go()

    def _let_go(self) -> None:
        """Deleted with all it made, while the storage fails again and again: it goes, within the deadline."""
        world = self.world
        world.edit(storage=world.spec.storage.model_copy(update={"retention": "DeleteAll"}))
        for _ in range(3):
            world.reconcile()
        assert world.finalizers == (FINALIZER,)
        world.deleted_at = world.now
        world.stages.fail("cleanup", *[error(75, "StorageUnavailable")] * 500)
        for _ in range(200):
            found = world.reconcile()
            if world.gone:
                break
            for name in world.active():
                world.finish(name)
            world.advance(min(found.requeue_after or 1, 60))
        assert world.gone
        limit = world.settings.cleanup_deadline_seconds + 60
        assert (world.now - world.deleted_at).total_seconds() <= limit


TestRunMachine = RunMachine.TestCase
TestRunMachine.settings = settings(
    max_examples=25, stateful_step_count=40, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)  # fmt: skip
