"""One stage: adopt its Job, settle a finished attempt, watch a running one, begin the next. Pure.

A record moves Pending → Running → Succeeded, or over Retrying and Failed back to Running. Each step looks at
what is there (the record, the Job, the pods) and never at how it came to be so: a plan made twice, or after a
crash between two writes, arrives at the same record.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from srlm_contract.graph import NodeId
from srlm_contract.reasons import STALLED, WAITING
from srlm_contract.status import MAX_MESSAGE, Failure, StageStatus
from srlm_contract.tasks import EXIT_BAD_INPUT, StageResult
from srlm_operator.errors import InvalidPodTemplate
from srlm_operator.jobs.job import Work, render
from srlm_operator.names import ANNOTATION_SETTINGS
from srlm_operator.times import parse, stamp
from srlm_operator.values import CreateJob, JobView

from . import chains, outcomes
from .attempts import account, gpu_seconds, missing_shards, note_shards
from .decisions import NOTHING, Decisions, Step, act, delete, normal, stall, succeeded, wait, wake, warn
from .disruptions import look_at_leaving, node_lost, note_disruptions, waits_for_node, waits_for_pod, worn_out
from .outcomes import Committed, Failed
from .sidecars import held_up, look_at_sidecars, sidecar_of
from .waiting import look_at_pods
from .world import CLEANUP, REPORT, Records, World, runs, title


def adopt_jobs(world: World, records: Records) -> Records:
    """Records, also for Jobs that status does not know yet: the operator died between creating and writing."""
    adopted = dict(records)
    for job in world.jobs():
        if job.has_ttl:
            continue  # its outcome has been in status, and may have been shortened away since
        record = adopted.get(job.node_id)
        if record is not None and job.attempt <= record.attempt:
            continue
        record = record or StageStatus(name=job.node, stage=job.stage, state="Pending")
        if record.key != job.key:
            record = StageStatus(name=job.node, stage=job.stage, state="Pending", shards=job.shards)
        adopted[job.node_id] = record.model_copy(
            update={
                "state": "Running",
                "key": job.key,
                "attempt": job.attempt,
                "job": job.name,
                "shards": job.shards,
                "started_at": record.started_at or stamp(job.created_at or world.now),
                "attempt_started_at": stamp(job.created_at or world.now),
                "disrupted_pods": (),
                "next_attempt_at": None,
            }
        )
    return adopted


@dataclass(frozen=True)
class Settled:
    """What became of the attempts that have ended."""

    records: Records
    decided: Decisions
    results: Mapping[NodeId, StageResult]
    """Answers of stages that were found committed."""
    unseen: bool
    """Whether an answer was lost: its artifact may be there all the same."""


def settle_all(world: World, records: Records) -> Settled:
    """Write down what became of every attempt that has ended."""
    settled = dict(records)
    decided, results, unseen = NOTHING, dict[NodeId, StageResult](), False
    for node_id, record in records.items():
        if record.state != "Running":
            continue
        job = world.job(record.job)
        if job is not None:
            noted = note_disruptions(world, node_id, record, job)
            settled[node_id] = record = noted.record
            decided += noted.decided
        outcome = _outcome(world, record, job)
        if outcome is None:
            continue
        if job is not None and (job.state == "Active" or job.managed_by):
            decided += delete(job)
            if sidecar := sidecar_of(world, job):
                text = f"{title(node_id)} has ended, and {sidecar} has not: its result is taken, its Job deleted"
                decided += warn("SidecarRunning", text)
        record, spent = _with_usage(world, record, job)
        decided += Decisions(gpu_seconds=spent)
        if isinstance(outcome, Committed):
            results[node_id] = outcome.result
            step = _succeeded(world, node_id, record, outcome.result)
            if chained := outcome.chained(job):
                lead, links, news = chains.settle(world, settled, step.record, chained, spent)
                settled |= links
                step = Step(lead, step.decided + news)
        else:
            failed, producer = _as_counted(node_id, outcome, settled)
            if producer is not None and settled[producer].state == "Succeeded":
                settled[producer] = _to_repair(settled[producer])
                decided += warn("ArtifactDamaged", f"{title(producer)} is made again: {failed.message}")
            unseen = unseen or failed.kind == "unseen" or chains.unheard(world, settled, record, job)
            step = _failed(world, node_id, note_shards(record, job) if job is not None else record, failed)
        settled[node_id] = step.record
        decided += step.decided
    return Settled(settled, decided, results, unseen)


def _outcome(world: World, record: StageStatus, job: JobView | None) -> Committed | Failed | None:
    """What became of a running attempt; None while it goes on. What it has committed counts, however it ended."""
    found = _end(world, record, job)
    return outcomes.told(world.pods(record.job)) or found if isinstance(found, Failed) else found


def _end(world: World, record: StageStatus, job: JobView | None) -> Committed | Failed | None:
    if job is None:
        if world.spec.suspend:
            return None  # deleted for that, perhaps by a life of the operator that could not write it down any more
        return Failed("free", "JobGone", f"Job {record.job} was deleted")
    if job.managed_by:
        return Failed("hopeless", "ManagedElsewhere", f"Job {job.name} was taken over by {job.managed_by}")
    match job.state:
        case "Complete":
            return outcomes.committed(job, world.pods(job.name), record.stage)
        case "Failed":
            return outcomes.failure(job, world.pods(job.name), record.stage)
        case "Active":
            return held_up(world, record, job) or worn_out(world, record, job) or node_lost(world, record, job)
        case "Suspended":
            return None


def _with_usage(world: World, record: StageStatus, job: JobView | None) -> tuple[StageStatus, float]:
    """The record of an attempt that has ended, and the GPU-seconds that the attempt has used.

    The pods of a Job that somebody deleted are there for a while longer.
    """
    pods = world.pods(record.job)
    spent = gpu_seconds(pods, (job.finished_at if job is not None else None) or world.now)
    errors = outcomes.storage_errors(pods)
    used = {"gpu_seconds": record.gpu_seconds + spent, "storage_errors": record.storage_errors + errors}
    return record.model_copy(update=used), spent


def _succeeded(world: World, node_id: NodeId, record: StageStatus, result: StageResult) -> Step:
    done = record.model_copy(
        update={
            "state": "Succeeded",
            "content_digest": result.content_digest,
            "statistics": result.statistics,
            # What replaces a pod finds what that one has committed.
            "reused": result.reused and not record.disruptions,
            "repair": False,
            "finished_at": stamp(world.now),
            "finished_shards": "",
            "disrupted_pods": (),
            "next_attempt_at": None,
            "temporary_since": None,
            "stalled_since": None,
        }
    )
    return Step(done, succeeded(node_id, result.statistics))


def _failed(world: World, node_id: NodeId, record: StageStatus, failed: Failed) -> Step:
    after = account(record, failed, world.spec.failure_policy, world.now, world.settings)
    what = f"{title(node_id)}, attempt {record.attempt}: {failed.message}"
    decided = warn(failed.reason, what[:MAX_MESSAGE])
    if after.state == "Failed" and failed.kind not in ("person", "hopeless"):
        decided += warn("AttemptsExhausted", f"{title(node_id)} failed {after.counted_failures} times")
    return Step(after, decided)


def _as_counted(node_id: NodeId, failed: Failed, records: Records) -> tuple[Failed, NodeId | None]:
    """The failure as it counts for this node, and the node that has to make a damaged artifact again."""
    if node_id == REPORT and failed.kind in ("damaged", "person"):
        # Nothing waits for a report: it repairs nothing and is not checked again, it is asked for again.
        return replace(failed, kind="hopeless"), None
    artifact = failed.artifact
    if failed.kind != "damaged" or artifact is None:
        return failed, None
    for producer, record in records.items():
        if record.stage == artifact.stage and record.key == artifact.key:
            return failed, producer
    text = f"{failed.message} (no stage of this run makes it)"
    return Failed("person", "ArtifactDamaged", text, EXIT_BAD_INPUT), None


def _to_repair(record: StageStatus) -> StageStatus:
    return record.model_copy(update={"state": "Pending", "repair": True, "content_digest": "", "counted_failures": 0})


def new_record(old: StageStatus | None, work: Work) -> StageStatus:
    """A record for a key without one. Attempts count on, so that no Job name is ever used twice."""
    return StageStatus(
        name=work.name,
        stage=work.stage,
        state="Pending",
        key=work.key,
        revision=work.revision,
        shards=work.shards,
        attempt=old.attempt if old is not None else 0,
    )


def stop(world: World, node_id: NodeId, record: StageStatus, reason: str, message: str) -> Step:
    """Delete the Job of a running attempt; the attempt does not count, what it has used does."""
    if record.state != "Running":
        return Step(record)
    spent = gpu_seconds(world.pods(record.job), world.now)
    decided = Decisions(gpu_seconds=spent)
    record = record.model_copy(update={"gpu_seconds": record.gpu_seconds + spent})
    job = world.job(record.job)
    if job is not None:
        record = note_shards(record, job)
        decided += delete(job) + normal(reason, f"{title(node_id)} stopped: {message}")
    failure = Failure(reason=reason, message=message, at=stamp(world.now))
    update = {"state": "Pending", "next_attempt_at": None, "last_failure": failure}
    return Step(record.model_copy(update=update), decided)


def drive(world: World, work: Work, record: StageStatus, *, start: bool) -> Step:
    """Bring the node of `work` one step on. `start`: whether a Job may be created."""
    step = Step(_forgive(record) if world.try_again else record)
    if step.record.state == "Running":
        step = _go_on(world, work, step.record)
        if step.record.state == "Running":
            return step
    record, decided = step.record, step.decided
    if record.state == "Succeeded":
        return step
    if record.state == "Failed":
        decided += _explain(record, work)
    elif record.state == "Retrying" and record.last_failure is not None:
        reason = record.last_failure.reason
        decided += wait(
            reason if reason in WAITING else "Retrying",
            f"{title(work.id)}: {reason}: {record.last_failure.message}",
        )
    return (_begin(world, work, record) if start else Step(record)).after(decided)


def _forgive(record: StageStatus) -> StageStatus:
    """A person did something: what failed may be tried again at once, with all its attempts."""
    stalled = record.last_failure is not None and record.last_failure.reason in STALLED
    record = record.model_copy(update={"stalled_since": None})
    if record.state == "Failed":
        return record.model_copy(
            update={
                "state": "Pending",
                "counted_failures": 0,
                "temporary_since": None,
                "next_attempt_at": None,
                "last_failure": None,
            }
        )
    if record.state == "Retrying":
        return record.model_copy(update={"next_attempt_at": None})
    return record.model_copy(update={"last_failure": None}) if stalled else record


def _explain(record: StageStatus, work: Work) -> Decisions:
    """Stalled, with the reason of the last failure."""
    failure = record.last_failure
    if failure is None:
        return NOTHING
    if failure.reason in STALLED:
        return stall(failure.reason, f"{title(work.id)}: {failure.message}")
    return stall(
        "AttemptsExhausted",
        f"{title(work.id)} failed {record.counted_failures} times, at last: {failure.reason}: {failure.message}",
    )


def _go_on(world: World, work: Work, record: StageStatus) -> Step:
    """Watch a running attempt; stop it if its Job can make no pods any more, or should make other ones."""
    job = world.job(record.job)
    if job is None:
        return _superseded(world, work, record)
    wedged = _wedged_at(world, job)
    if wedged is not None and world.now >= wedged:
        why = "a stopped pod was never replaced: its Job can make no pods any more"
        return stop(world, work.id, record, "Disrupted", why)
    decided = NOTHING if wedged is None else wake(wedged)
    try:
        if _outdated(world, work, record, job):
            return _superseded(world, work, record).after(decided)
    except InvalidPodTemplate as problem:
        decided += stall("InvalidPodTemplate", str(problem))
    return Step(record, decided + _watch(world, record, job, work))


def _superseded(world: World, work: Work, record: StageStatus) -> Step:
    return stop(world, work.id, record, "Superseded", "the settings of its pods changed before they were running")


def _wedged_at(world: World, job: JobView) -> datetime | None:
    """When the Job is given up because it keeps a stopped pod and cannot replace it.

    So it is in a namespace that is being deleted: pods go first, this one waits for its replacement, and everything
    else in the namespace, the run too, waits for this one.
    """
    ends = [p.deleted_at for p in world.pods(job.name) if p.deleted_at and p.phase in ("Succeeded", "Failed")]
    return min(ends) + timedelta(seconds=world.settings.wedged_seconds) if ends else None


def _outdated(world: World, work: Work, record: StageStatus, job: JobView) -> bool:
    """Whether the pods of a Job that is not healthy would look different today. Raises InvalidPodTemplate."""
    pods = world.pods(job.name)
    healthy = any(p.phase in ("Running", "Succeeded") for p in pods) and not any(p.phase == "Failed" for p in pods)
    if healthy:
        return False
    wanted = render(world.run, world.spec, work, record.attempt, job.shard_indexes, world.settings)
    return bool(wanted.manifest["metadata"]["annotations"][ANNOTATION_SETTINGS] != job.settings_digest)


def _watch(world: World, record: StageStatus, job: JobView, work: Work) -> Decisions:
    """A running attempt: what does it wait for?"""
    what = title(work.id)
    seen = waits_for_node(world, job, what) or waits_for_pod(world, record, job, what) or look_at_pods(world, job, what)
    seen += look_at_leaving(world, job) + look_at_sidecars(world, job)
    failure = record.last_failure
    if seen.hindrances or failure is None or failure.reason not in STALLED:
        return seen
    # A re-check of something only a person can fix: stalled until the attempt has shown that it works.
    began = parse(record.attempt_started_at) or world.now
    until = began + timedelta(seconds=world.settings.slow_recheck_seconds)
    said = (world.observed.progress.get(pod.name) for pod in world.pods(job.name))
    if world.now >= until or any(line is not None and not line.activity for line in said):
        return seen
    return seen + stall(failure.reason, f"{title(work.id)}: {failure.message}") + wake(until)


def _begin(world: World, work: Work, record: StageStatus) -> Step:
    """Create the Job of the next attempt, if its time has come."""
    due = parse(record.next_attempt_at)
    if due is not None and due > world.now:
        return Step(record, wake(due))
    if record.state == "Failed" and due is None:
        return Step(record)
    earlier = [job for job in world.jobs() if job.node_id == work.id and not job.ended]
    if earlier:
        going = wait("Progressing", f"{title(work.id)} begins anew") + wake(world.now)
        return Step(record, sum((delete(job) for job in earlier), going))
    attempt = max(record.attempt, world.last_attempt(work.id)) + 1
    try:
        missing, groups = missing_shards(record), world.observed.pod_groups
        create = render(world.run, world.spec, work, attempt, missing, world.settings, groups)
    except InvalidPodTemplate as problem:
        return Step(record, stall("InvalidPodTemplate", f"{title(work.id)}: {problem}"))
    refused = _refused(world, create, work)
    if refused is not None:
        return Step(record, refused)
    # As its next look will say: another wording would cost another write of the status.
    decided = _replaced(world, work, record) + act(create) + wait("Progressing", runs(work.id, create.chain))
    if work.id != CLEANUP:
        again = f", attempt {attempt}" if record.last_failure else ""
        decided += normal(f"{work.stage.capitalize()}Started", f"{title(work.id)} started{again}")
    moment = stamp(world.now)
    begun = record.model_copy(
        update={
            "state": "Running",
            "attempt": attempt,
            "job": create.name,
            "started_at": record.started_at or moment,
            "attempt_started_at": moment,
            "finished_at": None,
            "disrupted_pods": (),
            "next_attempt_at": None,
        }
    )
    return Step(begun, decided)


def _replaced(world: World, work: Work, record: StageStatus) -> Decisions:
    """The Jobs before a re-check: they all ended alike, and one is enough to read. Their outcome is in status."""
    if record.stalled_since is None:
        return NOTHING
    return sum((delete(j) for j in world.jobs() if j.node_id == work.id and j.has_ttl), NOTHING)


def _refused(world: World, create: CreateJob, work: Work) -> Decisions | None:
    """What to say and when to try again if the API server refused this Job a short while ago."""
    refusal = world.observed.refusals.get(create.name)
    if refusal is None:
        return None
    again = refusal.at + timedelta(seconds=world.settings.refused_retry_seconds)
    if world.now >= again:
        return None
    say = stall if refusal.reason in STALLED else wait
    return wake(again) + say(refusal.reason, f"{title(work.id)}: {refusal.message}")
