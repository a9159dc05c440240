"""The whole workflow logic of a run: `plan(run, observed, now, settings) -> Plan`. Pure.

Rules
    1. Decisions depend on what is there (spec, status, Jobs, pods) and on nothing else: no I/O, clock or chance.
       A plan made again from the same world is the same plan; once everything is as wanted, it is empty.
    2. The outcome of an attempt is in status before its Job may be removed.
    3. At most one Job a (run, stage, key, attempt); attempt numbers only rise.
    4. Nothing starts before preflight has said what is committed already.

Order
    adopt Jobs that status missed → settle finished attempts → suspend, or preflight and walk the graph → status
    → report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from srlm_contract.status import RunPhase, RunStatus
from srlm_operator.names import FINALIZER
from srlm_operator.settings import Settings
from srlm_operator.values import Event, Observed, PatchJobTTL, Plan, Run, SetFinalizer

from .attempts import gpu_seconds
from .conditions import conditions
from .deletion import plan_deletion, release
from .draft import PREFLIGHT, REPORT, Draft, Note
from .preflight import resolve_branch, run_preflight, take_result
from .report import plan_report
from .resolve import Resolved, resolve
from .stage import adopt_jobs, settle_all, stop
from .status import build
from .walk import walk

NO_STORAGE = (
    "spec.storage.uri is not set and the operator has no default storage: set spec.storage.uri"
    " (s3://bucket/prefix), or have the chart value storage.uri set"
)


def plan(run: Run, observed: Observed, now: datetime, settings: Settings) -> Plan:
    """What to do next for a run."""
    if run.spec is None:
        return _newer(run, now, settings) if run.spec_newer else _stalled(run, now, Note("InvalidSpec", run.spec_error))
    if run.spec.storage.uri is None:
        return _stalled(run, now, Note("StorageNotSet", NO_STORAGE))
    draft = Draft(run, run.spec, observed, now, settings)
    if run.deleted_at is not None:
        return plan_deletion(draft)
    _finalizer(draft)
    adopt_jobs(draft)
    settle_all(draft)
    branched = resolve_branch(draft)
    fresh = take_result(draft)
    resolved = _resolve(draft, trust_closed=not fresh)
    missed: Mapping[int, tuple[str, ...]] = {}
    if run.spec.suspend:
        _suspend(draft)
    elif branched:
        checked = run_preflight(draft, resolved.outcomes or {})
        spent = _budget_spent(draft)
        if resolved.nodes:
            missed = walk(draft, resolved, start=checked and not spent)
        if checked:
            _stop_strays(draft)
    else:
        draft.wake(now + timedelta(seconds=settings.slow_recheck_seconds))
    return _finish(draft, plan_report(draft, resolved, build(draft, resolved, missed)))


def _stalled(run: Run, now: datetime, note: Note) -> Plan:
    """A spec this operator cannot read, or a run without a place for artifacts: Jobs go on, nothing is decided."""
    if run.deleted_at is not None:
        return release() if FINALIZER in run.finalizers else Plan()
    return _undecided(run, now, "Failed", stalls=[note])


def _newer(run: Run, now: datetime, settings: Settings) -> Plan:
    """The definition was upgraded before this operator: Jobs go on, and the next version decides.

    What is done stays as it is, and deletion leaves clean-up to the next version for as long as it may take.
    """
    if run.deleted_at is not None:
        left = settings.cleanup_deadline_seconds - (now - run.deleted_at).total_seconds()
        return Plan(requeue_after=left) if left > 0 else release() if FINALIZER in run.finalizers else Plan()
    ready = any(condition.type == "Ready" and condition.status == "True" for condition in run.status.conditions)
    if ready and run.status.observed_generation == run.generation:
        return Plan()
    text = f"This operator is older than the definition of runs, and waits to be upgraded: {run.spec_error}"
    return _undecided(run, now, run.status.phase, waits=[Note("NewerSpec", text)])


def _undecided(
    run: Run, now: datetime, shown: RunPhase, waits: Sequence[Note] = (), stalls: Sequence[Note] = ()
) -> Plan:
    """New conditions, and nothing else."""
    status = run.status.model_copy(
        update={
            "observed_generation": run.generation,
            "phase": shown,
            "conditions": conditions(
                waits=waits,
                stalls=stalls,
                ready=False,
                suspended=False,
                generation=run.generation,
                previous=run.status.conditions,
                now=now,
            ),
        }
    )
    return Plan(status=status, events=_news(run.status, status))


def _finalizer(draft: Draft) -> None:
    """Only a retention that deletes something may hold up deletion."""
    wanted = draft.storage.retention != "Retain"
    if wanted != (FINALIZER in draft.run.finalizers):
        draft.actions.append(SetFinalizer(wanted))


def _resolve(draft: Draft, *, trust_closed: bool) -> Resolved:
    if draft.preflight.pins is None:
        return Resolved(keys={}, revisions={}, outcomes={})
    models = {model.name: model for model in draft.run.status.models}
    return resolve(draft.spec, draft.preflight.pins, draft.preflight.branch, draft.records, models, trust_closed)


def _suspend(draft: Draft) -> None:
    for node_id in list(draft.records):
        stop(draft, node_id, "Suspended", "spec.suspend is set")
    for job in draft.jobs():
        if job.state in ("Active", "Suspended"):
            draft.delete(job)


def _stop_strays(draft: Draft) -> None:
    """Active Jobs that no record stands for: of an older key, or left by a crash."""
    wanted = {record.job for record in draft.records.values() if record.state == "Running"}
    for job in draft.jobs():
        if job.state in ("Active", "Suspended") and job.name not in wanted:
            draft.delete(job)


def _budget_spent(draft: Draft) -> bool:
    """Whether the budget is used up, running pods included; then they are stopped too."""
    budget = draft.spec.budget
    running = [draft.pods(r.job) for r in draft.records.values() if r.state == "Running"]
    used = draft.gpu_seconds + sum(gpu_seconds(pods, draft.now) for pods in running)
    over: list[str] = []
    if budget.gpu_seconds is not None and used >= budget.gpu_seconds:
        over.append(f"{used:,.0f} GPU-seconds used, budget.gpuSeconds is {budget.gpu_seconds:,.0f}")
    if budget.tokens is not None and draft.tokens >= budget.tokens:
        over.append(f"{draft.tokens:,} tokens used, budget.tokens is {budget.tokens:,.0f}")
    if over:
        draft.stall("BudgetExceeded", "; ".join(over))
        for node_id in list(draft.records):
            if node_id not in (PREFLIGHT, REPORT):
                stop(draft, node_id, "BudgetExceeded", over[0])
        return True
    gpus = sum(p.gpus for pods in running for p in pods if p.started_at and not p.finished_at)
    if budget.gpu_seconds is not None and gpus:
        draft.wake(draft.now + timedelta(seconds=max(1.0, (budget.gpu_seconds - used) / gpus)))
    return False


def _finish(draft: Draft, status: RunStatus) -> Plan:
    run = draft.run
    running = {record.job for record in draft.records.values() if record.state == "Running"}
    ttl = draft.spec.ttl_seconds_after_finished
    ttls = [
        PatchJobTTL(job.name, ttl)
        for job in draft.jobs()
        if job.state in ("Complete", "Failed") and not job.has_ttl and job.name not in running
    ]
    after = [max(0.0, (moment - draft.now).total_seconds()) for moment in draft.wakes]
    return Plan(
        actions=tuple(draft.actions),
        status=status,
        ttls=tuple(ttls),
        events=(*_merged(draft.events), *_news(run.status, status)),
        requeue_after=min(after) if after else None,
    )


def _merged(events: list[Event]) -> tuple[Event, ...]:
    """One event for what went well: each event is a write."""
    normal = [event for event in events if event.type == "Normal"]
    if len(normal) > 1:
        text = "; ".join(dict.fromkeys(event.message for event in normal))
        normal = [replace(normal[-1], reason=normal[0].reason, message=text[:1000])]
    return (*normal, *(event for event in events if event.type == "Warning"))


def _news(before: RunStatus, after: RunStatus) -> tuple[Event, ...]:
    """An event when the run gets stuck, waits for something new, or is done."""
    old = {c.type: c.reason for c in before.conditions if c.status == "True"}
    found = []
    for condition in after.conditions:
        if condition.status != "True" or old.get(condition.type) == condition.reason:
            continue
        text = condition.message[:1000]
        if condition.type == "Stalled" or (
            condition.type == "Reconciling" and condition.reason not in ("Progressing", "Retrying")
        ):
            found.append(Event("Warning", condition.reason, text))
        elif condition.type == "Ready":
            found.append(Event("Normal", "Succeeded", text))
    return tuple(found)
