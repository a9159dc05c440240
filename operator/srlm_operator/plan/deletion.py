"""Deletion: stop what runs, clean up what retention says, let go within a bounded time. Pure."""

from __future__ import annotations

from datetime import timedelta

from srlm_contract.graph import model_node
from srlm_contract.stages import MODEL_MAKERS
from srlm_contract.status import StageStatus
from srlm_contract.tasks import CleanupParams
from srlm_operator.jobs.job import Work
from srlm_operator.names import FINALIZER
from srlm_operator.values import Event, Observed, Plan, SetFinalizer

from .conditions import conditions
from .decisions import Note, delete, wake
from .stage import adopt_jobs, drive, new_record, settle_all
from .world import CLEANUP, Records, World, recorded


def release(*events: Event) -> Plan:
    """Nothing holds the run any more."""
    return Plan(actions=(SetFinalizer(False),), events=events)


def plan_deletion(world: World) -> Plan:
    """Plan for a run that is being deleted. Without our finalizer the API's garbage collection does all."""
    run, retention = world.run, world.storage.retention
    if FINALIZER not in run.finalizers:
        return Plan()
    if retention == "Retain":
        return release()
    if any(r.terminating for r in world.observed.refusals.values()):
        return release(Event("Warning", "CleanupSkipped", "The namespace is being deleted; artifacts stay"))
    deadline = (run.deleted_at or world.now) + timedelta(seconds=world.settings.cleanup_deadline_seconds)
    known = recorded(run.status)
    # Of nothing else: the other Jobs are gone because this plan deletes them.
    ours = {node_id: record for node_id, record in adopt_jobs(world, known).items() if node_id == CLEANUP}
    settled = settle_all(world, ours)
    record, decided = settled.records.get(CLEANUP), settled.decided
    if record is not None and record.state == "Succeeded":
        return release()
    if world.now >= deadline:
        why = record.last_failure.message if record is not None and record.last_failure else "it did not finish in time"
        return release(Event("Warning", "CleanupFailed", f"Artifacts stay at {world.storage.uri}: {why}"))
    others = [job for job in world.jobs() if job.node_id != CLEANUP]
    decided = sum((delete(job) for job in others), decided)
    # What still runs must not write after the clean-up has looked.
    busy = any(not job.ended for job in others)
    if busy:
        decided += wake(world.now)
    work = Work(
        iteration=0,
        name="cleanup",
        stage="cleanup",
        key="cleanup",
        params=CleanupParams(retention=retention, intermediate=_intermediate(world, known)),
        pins=run.status.preflight.pins,
        deadline_seconds=max(1, int((deadline - world.now).total_seconds())),
    )
    record = record or new_record(None, work)
    if _no_credentials(world.observed, record):
        return release(Event("Warning", "CleanupFailed", "The run's Secret is gone; artifacts stay"))
    step = drive(world, work, record, start=not busy).after(decided)
    found = run.status.model_copy(
        update={
            "observed_generation": run.generation,
            "retry_token": world.retry_token or run.status.retry_token,
            "cleanup_stage": step.record,
            "conditions": conditions(
                waits=[Note("Deleting", f"Artifacts are being removed ({retention})")],
                stalls=step.decided.stalls,
                ready=False,
                suspended=False,
                generation=run.generation,
                previous=run.status.conditions,
                now=world.now,
            ),
        }
    )
    return Plan(
        actions=step.decided.actions,
        deletes=tuple(dict.fromkeys(step.decided.deletes)),
        status=found,
        events=tuple(e for e in step.decided.events if e.type == "Warning"),
        requeue_after=max(0.0, (min((deadline, *step.decided.wakes)) - world.now).total_seconds()),
    )


def _intermediate(world: World, records: Records) -> tuple[str, ...]:
    """Keys of models on the way to another one."""
    results = {model.key for model in world.run.status.models}
    made = (r.key for i, r in records.items() if r.stage in MODEL_MAKERS and i != model_node(world.spec, i.iteration))
    return tuple(sorted({key for key in made if key} - results))


def _no_credentials(observed: Observed, record: StageStatus) -> bool:
    """Whether clean-up waits for a Secret that went with the run: nobody will bring it back."""
    return any(
        pod.job == record.job
        and pod.waiting_reason == "CreateContainerConfigError"
        and "secret" in pod.waiting_message.lower()
        for pod in observed.pods
    )
