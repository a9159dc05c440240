"""Deletion: stop what runs, clean up what retention says, let go within a bounded time. Pure."""

from __future__ import annotations

from datetime import timedelta

from srlm_contract.status import StageStatus
from srlm_contract.tasks import CleanupParams
from srlm_operator.jobs.job import Work
from srlm_operator.names import FINALIZER, job_name
from srlm_operator.values import Event, Observed, Plan, Run, SetFinalizer

from .conditions import conditions
from .draft import CLEANUP, Draft, Note
from .stage import adopt_jobs, drive, new_record, settle_all


def release(*events: Event) -> Plan:
    """Nothing holds the run any more."""
    return Plan(actions=(SetFinalizer(False),), events=events)


def plan_deletion(draft: Draft) -> Plan:
    """Plan for a run that is being deleted. Without our finalizer the API's garbage collection does all."""
    run = draft.run
    if FINALIZER not in run.finalizers:
        return Plan()
    if draft.storage.retention == "Retain":
        return release()
    if any(r.terminating for r in draft.observed.refusals.values()):
        return release(Event("Warning", "CleanupSkipped", "The namespace is being deleted; artifacts stay"))
    deadline = (run.deleted_at or draft.now) + timedelta(seconds=draft.settings.cleanup_deadline_seconds)
    adopt_jobs(draft)
    settle_all(draft)
    record = draft.records.get(CLEANUP)
    if record is not None and record.state == "Succeeded":
        return release()
    if draft.now >= deadline:
        why = record.last_failure.message if record is not None and record.last_failure else "it did not finish in time"
        return release(Event("Warning", "CleanupFailed", f"Artifacts stay at {draft.storage.uri}: {why}"))
    for job in draft.jobs():
        if job.node_id != CLEANUP:
            draft.delete(job)
    pins = draft.preflight.pins
    work = Work(
        iteration=0,
        name="cleanup",
        stage="cleanup",
        key="cleanup",
        params=CleanupParams(retention=draft.storage.retention),
        pins=pins,
        deadline_seconds=max(1, int((deadline - draft.now).total_seconds())),
    )
    if record is None:
        draft.records[CLEANUP] = new_record(None, work)
    if _no_credentials(run, draft.observed, draft.records[CLEANUP]):
        return release(Event("Warning", "CleanupFailed", "The run's Secret is gone; artifacts stay"))
    drive(draft, work, start=True)
    draft.wake(deadline)
    found = run.status.model_copy(
        update={
            "observed_generation": run.generation,
            "cleanup_stage": draft.records[CLEANUP],
            "conditions": conditions(
                waits=[Note("Deleting", f"Artifacts are being removed ({draft.storage.retention})")],
                stalls=draft.stalls,
                ready=False,
                suspended=False,
                generation=run.generation,
                previous=run.status.conditions,
                now=draft.now,
            ),
        }
    )
    after = min((moment - draft.now).total_seconds() for moment in draft.wakes)
    return Plan(
        actions=tuple(draft.actions),
        status=found,
        events=tuple(e for e in draft.events if e.type == "Warning"),
        requeue_after=max(0.0, after),
    )


def _no_credentials(run: Run, observed: Observed, record: StageStatus) -> bool:
    """Whether clean-up waits for a Secret that went with the run: nobody will bring it back."""
    name = job_name(run.name, run.uid, 0, "cleanup", "cleanup", record.attempt)
    return any(
        pod.job == name
        and pod.waiting_reason == "CreateContainerConfigError"
        and "secret" in pod.waiting_message.lower()
        for pod in observed.pods
    )
