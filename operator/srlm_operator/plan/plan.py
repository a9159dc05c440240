"""The whole workflow logic of a run: `plan(run, observed, now, settings) -> Plan`. Pure.

Rules
    1. Decisions depend on what is there (spec, status, Jobs, pods) and on nothing else: no I/O, clock or chance.
       A plan made again from the same world is the same plan; once everything is as wanted, it is empty.
    2. The outcome of an attempt is in status before its Job may be removed, also when the plan itself stops it.
    3. At most one Job a (run, stage, key, attempt); attempt numbers only rise, and each begins when the Jobs of those
       before it are removed.
    4. Nothing starts before preflight has said what is committed already.

Order
    adopt Jobs that status missed → settle finished attempts → suspend, or preflight and walk the graph → status
    → report.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from srlm_contract.status import MAX_MESSAGE, RunPhase, RunStatus
from srlm_operator.names import FINALIZER
from srlm_operator.settings import Settings
from srlm_operator.values import Event, Observed, PatchJobTTL, Plan, Run, SetFinalizer

from .attempts import gpu_seconds
from .conditions import conditions
from .decisions import NOTHING, Decisions, Draft, Note, act, delete, normal, stall, wake
from .deletion import plan_deletion, release
from .preflight import resolve_branch, run_preflight, take_result
from .report import plan_report
from .resolve import Resolved, resolve
from .stage import adopt_jobs, settle_all, stop
from .status import build
from .walk import Missed, walk
from .world import PREFLIGHT, REPORT, World, recorded

NO_STORAGE = (
    "spec.storage.uri is not set and the operator has no default storage: set spec.storage.uri"
    " (s3://bucket/prefix), or have the chart value storage.uri set"
)


def plan(run: Run, observed: Observed, now: datetime, settings: Settings) -> Plan:
    """What to do next for a run."""
    if run.others:
        return Plan()
    if run.spec is None:
        return _newer(run, now, settings) if run.spec_newer else _stalled(run, now, Note("InvalidSpec", run.spec_error))
    if run.spec.storage.uri is None:
        return _stalled(run, now, Note("StorageNotSet", NO_STORAGE))
    world = World(run, run.spec, observed, now, settings)
    if run.deleted_at is not None:
        return plan_deletion(world)
    settled = settle_all(world, adopt_jobs(world, recorded(run.status)))
    branch = resolve_branch(world, run.status.preflight)
    preflight = run.status.preflight if isinstance(branch, Note) else branch
    if settled.unseen:
        # Asked from the beginning, preflight tells of every artifact that is committed.
        preflight = preflight.model_copy(update={"done": False, "checked_at": None})
    decided = _finalizer(world) + settled.decided
    if isinstance(branch, Note):
        decided += stall(branch.reason, branch.message)
    draft = Draft(settled.records, preflight, decided)
    answered = take_result(world, draft, settled.results.get(PREFLIGHT))
    draft = answered or draft
    resolved = _resolve(world, draft, trust_closed=answered is None)
    missed: Missed = {}
    if run.spec.suspend:
        draft = _suspended(world, draft)
    elif isinstance(branch, Note):
        draft = draft.add(wake(now + timedelta(seconds=settings.slow_recheck_seconds)))
    else:
        draft, missed = _driven(world, draft, resolved)
    status = build(world, draft, resolved, missed)
    draft = draft.add(_new_models(run.status, status))
    status, reported = plan_report(world, draft, resolved, status, written=REPORT in settled.results)
    return _finish(world, draft.decided + reported, status)


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


def _finalizer(world: World) -> Decisions:
    """Only a retention that deletes something may hold up deletion."""
    wanted = world.storage.retention != "Retain"
    return act(SetFinalizer(wanted)) if wanted != (FINALIZER in world.run.finalizers) else NOTHING


def _resolve(world: World, draft: Draft, *, trust_closed: bool) -> Resolved:
    if draft.preflight.pins is None:
        return Resolved()
    models = {model.name: model for model in world.run.status.models}
    return resolve(world.spec, draft.preflight.pins, draft.preflight.branch, draft.records, models, trust_closed)


def _suspended(world: World, draft: Draft) -> Draft:
    for node_id, record in draft.records.items():
        draft = draft.put(node_id, stop(world, node_id, record, "Suspended", "spec.suspend is set"))
    return draft.add(_strays(world, draft))


def _driven(world: World, draft: Draft, resolved: Resolved) -> tuple[Draft, Missed]:
    """Preflight and the stages brought one step on, and the gates that were missed."""
    missed: Missed = {}
    asked = run_preflight(world, draft, resolved.outcomes)
    draft = asked or draft
    draft, spent = _within_budget(world, draft)
    if resolved.nodes and draft.preflight.pins is not None:
        start = asked is None and not spent
        walked = walk(world, draft.records, draft.preflight.pins, resolved, start=start)
        draft = replace(draft, records=walked.records).add(walked.decided)
        missed = walked.missed
    if asked is None:
        draft = draft.add(_strays(world, draft))
    return draft, missed


def _strays(world: World, draft: Draft) -> Decisions:
    """Active Jobs that no record stands for: of an older key, or left by a crash."""
    wanted = {record.job for record in draft.records.values() if record.state == "Running"}
    strays = [j for j in world.jobs() if not j.ended and j.name not in wanted]
    return sum((delete(job) for job in strays), NOTHING)


def _within_budget(world: World, draft: Draft) -> tuple[Draft, bool]:
    """Whether the budget is used up, running pods included; then they are stopped too."""
    budget, before = world.spec.budget, world.run.status
    running = [world.pods(r.job) for r in draft.records.values() if r.state == "Running"]
    used = before.gpu_seconds + draft.decided.gpu_seconds + sum(gpu_seconds(pods, world.now) for pods in running)
    tokens = before.tokens + draft.decided.tokens
    over: list[str] = []
    if budget.gpu_seconds is not None and used >= budget.gpu_seconds:
        over.append(f"{used:,.0f} GPU-seconds used, budget.gpuSeconds is {budget.gpu_seconds:,.0f}")
    if budget.tokens is not None and tokens >= budget.tokens:
        over.append(f"{tokens:,} tokens used, budget.tokens is {budget.tokens:,.0f}")
    if over:
        draft = draft.add(stall("BudgetExceeded", "; ".join(over)))
        for node_id, record in draft.records.items():
            if node_id not in (PREFLIGHT, REPORT):
                draft = draft.put(node_id, stop(world, node_id, record, "BudgetExceeded", over[0]))
        return draft, True
    gpus = sum(p.gpus for pods in running for p in pods if p.started_at and not p.finished_at)
    if budget.gpu_seconds is not None and gpus:
        left = max(1.0, (budget.gpu_seconds - used) / gpus)
        draft = draft.add(wake(world.now + timedelta(seconds=left)))
    return draft, False


def _new_models(before: RunStatus, after: RunStatus) -> Decisions:
    known = {model.name: model.key for model in before.models}
    new = [model for model in after.models if known.get(model.name) != model.key]
    return sum((normal("ModelReady", f"{model.name} is at {model.uri}") for model in new), NOTHING)


def _finish(world: World, decided: Decisions, status: RunStatus) -> Plan:
    ttl = world.spec.ttl_seconds_after_finished
    # Their outcome is in `status`: no attempt that has ended is unsettled.
    ended = [job for job in world.jobs() if job.ended and not job.has_ttl]
    after = [max(0.0, (moment - world.now).total_seconds()) for moment in decided.wakes]
    return Plan(
        actions=decided.actions,
        status=status,
        ttls=tuple(PatchJobTTL(job.name, ttl) for job in ended),
        events=(*_merged(decided.events), *_news(world.run.status, status)),
        deletes=tuple(dict.fromkeys(decided.deletes)),
        requeue_after=min(after) if after else None,
    )


def _merged(events: Sequence[Event]) -> tuple[Event, ...]:
    """One event for each kind of stage that went well, with what follows from it: each event is a write."""
    told: dict[str, list[str]] = {}
    reason = ""
    for event in (event for event in events if event.type == "Normal"):
        if event.reason.endswith("Succeeded") or not reason:
            reason = event.reason
        told.setdefault(reason, []).append(event.message)
    normal = [Event("Normal", why, "; ".join(dict.fromkeys(texts))[:MAX_MESSAGE]) for why, texts in told.items()]
    return (*normal, *(event for event in events if event.type == "Warning"))


def _news(before: RunStatus, after: RunStatus) -> tuple[Event, ...]:
    """An event when the run gets stuck, waits for something new, or is done."""
    old = {c.type: c.reason for c in before.conditions if c.status == "True"}
    found = []
    for condition in after.conditions:
        if condition.status != "True" or old.get(condition.type) == condition.reason:
            continue
        text = condition.message[:MAX_MESSAGE]
        if condition.type == "Stalled" or (
            condition.type == "Reconciling" and condition.reason not in ("Progressing", "Retrying")
        ):
            found.append(Event("Warning", condition.reason, text))
        elif condition.type == "Ready":
            found.append(Event("Normal", "Succeeded", text))
    return tuple(found)
