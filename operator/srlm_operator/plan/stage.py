"""One stage: adopt its Job, settle a finished attempt, watch a running one, begin the next. Pure.

A record moves Pending → Running → Succeeded, or over Retrying and Failed back to Running. Each step looks at
what is there (the record, the Job, the pods) and never at how it came to be so: a plan made twice, or after a
crash between two writes, arrives at the same record.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from srlm_contract.graph import NodeId
from srlm_contract.reasons import STALLED, WAITING
from srlm_contract.status import Failure, StageStatus
from srlm_operator.errors import InvalidPodTemplate
from srlm_operator.jobs.job import Work, render
from srlm_operator.names import ANNOTATION_SETTINGS
from srlm_operator.times import parse, stamp
from srlm_operator.values import CreateJob, JobView

from . import outcomes
from .attempts import account, gpu_seconds, missing_shards, note_shards
from .draft import CLEANUP, REPORT, Draft, title
from .outcomes import Committed, Failed
from .waiting import look_at_pods


def adopt_jobs(draft: Draft) -> None:
    """Records for Jobs that status does not know yet: the operator died between creating and writing."""
    for job in draft.jobs():
        if job.has_ttl:
            continue  # its outcome has been in status, and may have been shortened away since
        record = draft.records.get(job.node_id)
        if record is not None and job.attempt <= record.attempt:
            continue
        record = record or StageStatus(name=job.node, stage=job.stage, state="Pending")
        if record.key != job.key:
            record = StageStatus(name=job.node, stage=job.stage, state="Pending", shards=job.shards)
        draft.records[job.node_id] = record.model_copy(
            update={
                "state": "Running",
                "key": job.key,
                "attempt": job.attempt,
                "job": job.name,
                "shards": job.shards,
                "started_at": record.started_at or stamp(job.created_at or draft.now),
                "attempt_started_at": stamp(job.created_at or draft.now),
                "next_attempt_at": None,
            }
        )


def settle_all(draft: Draft) -> None:
    """Write down what became of every attempt that has ended."""
    for node_id, record in list(draft.records.items()):
        if record.state == "Running":
            draft.records[node_id] = _settle(draft, node_id, record)


def _settle(draft: Draft, node_id: NodeId, record: StageStatus) -> StageStatus:
    job = draft.job(record.job)
    if job is None:
        return _failed(draft, node_id, record, Failed("free", "JobGone", f"Job {record.job} was deleted"))
    if job.state not in ("Complete", "Failed"):
        return record
    pods = draft.pods(job.name)
    spent = gpu_seconds(pods, job.finished_at or draft.now)
    draft.gpu_seconds += spent
    failed_requests = record.storage_errors + outcomes.storage_errors(pods)
    record = record.model_copy(update={"gpu_seconds": record.gpu_seconds + spent, "storage_errors": failed_requests})
    if job.state == "Complete":
        plain = record.stage in ("cleanup", "report")
        outcome = outcomes.committed(job, pods, needs_answer=not plain)
    else:
        outcome = outcomes.failure(job, pods, record.stage)
    match outcome:
        case Committed(result):
            draft.results[node_id] = result
            return _succeeded(draft, node_id, record, outcome)
        case Failed():
            return _failed(draft, node_id, note_shards(record, job), outcome)


def _succeeded(draft: Draft, node_id: NodeId, record: StageStatus, outcome: Committed) -> StageStatus:
    result = outcome.result
    draft.tokens += int(result.statistics.get("tokens", 0))
    draft.normal("StageSucceeded", f"{title(node_id)} is done")
    return record.model_copy(
        update={
            "state": "Succeeded",
            "content_digest": result.content_digest,
            "statistics": result.statistics,
            "reused": result.reused,
            "repair": False,
            "finished_at": stamp(draft.now),
            "finished_shards": "",
            "next_attempt_at": None,
            "temporary_since": None,
        }
    )


def _failed(draft: Draft, node_id: NodeId, record: StageStatus, failed: Failed) -> StageStatus:
    if node_id == REPORT and failed.kind in ("damaged", "person"):
        # Nothing waits for a report: it repairs nothing and is not checked again, it is asked for again.
        failed = replace(failed, kind="hopeless")
    if failed.kind == "damaged":
        failed = _order_repair(draft, failed)
    if failed.kind == "unseen":
        # Asked from the beginning, preflight tells of every artifact that is committed.
        draft.preflight = draft.preflight.model_copy(update={"done": False, "checked_at": None})
    after = account(record, failed, draft.spec.failure_policy, draft.now, draft.settings)
    what = f"{title(node_id)}, attempt {record.attempt}: {failed.message}"
    draft.warn(failed.reason, what[:1000])
    if after.state == "Failed" and failed.kind not in ("person", "hopeless"):
        draft.warn("AttemptsExhausted", f"{title(node_id)} failed {after.counted_failures} times")
    return after


def _order_repair(draft: Draft, failed: Failed) -> Failed:
    """The producer of a damaged artifact runs again; without one in this run only a person can help."""
    artifact = failed.artifact
    assert artifact is not None
    for node_id, record in draft.records.items():
        if record.stage != artifact.stage or record.key != artifact.key:
            continue
        if record.state == "Succeeded":
            draft.records[node_id] = record.model_copy(
                update={"state": "Pending", "repair": True, "content_digest": "", "counted_failures": 0}
            )
            draft.warn("ArtifactDamaged", f"{title(node_id)} is made again: {failed.message}")
        return failed
    return Failed("person", "ArtifactDamaged", f"{failed.message} (no stage of this run makes it)", 65)


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


def stop(draft: Draft, node_id: NodeId, reason: str, message: str) -> None:
    """Delete the Job of a running attempt; the attempt does not count."""
    record = draft.records[node_id]
    if record.state != "Running":
        return
    job = draft.job(record.job)
    if job is not None:
        spent = gpu_seconds(draft.pods(job.name), draft.now)
        draft.gpu_seconds += spent
        record = note_shards(record, job)
        record = record.model_copy(update={"gpu_seconds": record.gpu_seconds + spent})
        draft.delete(job)
        draft.normal(reason, f"{title(node_id)} stopped: {message}")
    draft.records[node_id] = record.model_copy(
        update={
            "state": "Pending",
            "next_attempt_at": None,
            "last_failure": Failure(reason=reason, message=message, at=stamp(draft.now)),
        }
    )


def drive(draft: Draft, work: Work, *, start: bool) -> None:
    """Bring the node of `work` one step on. `start`: whether a Job may be created."""
    record = draft.records[work.id]
    if draft.new_generation:
        record = draft.records[work.id] = _forgive(record)
    if record.state == "Running":
        job = draft.job(record.job)
        if job is not None and _wedged(draft, job):
            stop(draft, work.id, "Disrupted", "a stopped pod was never replaced: its Job can make no pods any more")
        elif job is not None and not _outdated(draft, work, record, job):
            _watch(draft, record, job, work)
            return
        else:
            stop(draft, work.id, "Superseded", "the settings of its pods changed before they were running")
        record = draft.records[work.id]
    if record.state == "Succeeded":
        return
    if record.state == "Failed":
        _explain(draft, record, work)
    elif record.state == "Retrying" and record.last_failure is not None:
        reason = record.last_failure.reason
        draft.wait(
            reason if reason in WAITING else "Retrying",
            f"{title(work.id)}: {reason}: {record.last_failure.message}",
        )
    if start:
        _begin(draft, work, record)


def _forgive(record: StageStatus) -> StageStatus:
    """The spec changed: what failed may be tried again with all its attempts."""
    stalled = record.last_failure is not None and record.last_failure.reason in STALLED
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
    return record.model_copy(update={"last_failure": None}) if stalled else record


def _explain(draft: Draft, record: StageStatus, work: Work) -> None:
    """Stalled, with the reason of the last failure."""
    failure = record.last_failure
    if failure is None:
        return
    if failure.reason in STALLED:
        draft.stall(failure.reason, f"{title(work.id)}: {failure.message}")
    else:
        draft.stall(
            "AttemptsExhausted",
            f"{title(work.id)} failed {record.counted_failures} times, at last: {failure.reason}: {failure.message}",
        )


def _wedged(draft: Draft, job: JobView) -> bool:
    """Whether the Job keeps a stopped pod and cannot replace it.

    So it is in a namespace that is being deleted: pods go first, this one waits for its replacement, and everything
    else in the namespace, the run too, waits for this one.
    """
    for pod in draft.pods(job.name):
        if pod.deleted_at is not None and pod.phase in ("Succeeded", "Failed"):
            end = pod.deleted_at + timedelta(seconds=draft.settings.wedged_seconds)
            if draft.now >= end:
                return True
            draft.wake(end)
    return False


def _outdated(draft: Draft, work: Work, record: StageStatus, job: JobView) -> bool:
    """Whether the pods of a Job that is not healthy would look different today."""
    pods = draft.pods(job.name)
    healthy = any(p.phase in ("Running", "Succeeded") for p in pods) and not any(p.phase == "Failed" for p in pods)
    if healthy:
        return False
    try:
        wanted = render(draft.run, draft.spec, work, record.attempt, job.shard_indexes, draft.settings)
    except InvalidPodTemplate as problem:
        draft.stall("InvalidPodTemplate", str(problem))
        return False
    digest = wanted.manifest["metadata"]["annotations"][ANNOTATION_SETTINGS]
    return bool(digest != job.settings_digest)


def _watch(draft: Draft, record: StageStatus, job: JobView, work: Work) -> None:
    """A running attempt: what does it wait for?"""
    if look_at_pods(draft, job, title(work.id)):
        return  # it does not even start, and says why
    failure = record.last_failure
    if failure is not None and failure.reason in STALLED:
        # A re-check of something only a person can fix: stalled until the attempt has shown that it works.
        began = parse(record.attempt_started_at) or draft.now
        until = began + timedelta(seconds=draft.settings.slow_recheck_seconds)
        said = (draft.observed.progress.get(pod.name) for pod in draft.pods(job.name))
        shown = any(line is not None and not line.activity for line in said)
        if draft.now < until and not shown:
            draft.stall(failure.reason, f"{title(work.id)}: {failure.message}")
            draft.wake(until)


def _begin(draft: Draft, work: Work, record: StageStatus) -> None:
    """Create the Job of the next attempt, if its time has come."""
    due = parse(record.next_attempt_at)
    if due is not None and due > draft.now:
        draft.wake(due)
        return
    if record.state == "Failed" and due is None:
        return
    attempt = max(record.attempt, draft.last_attempt(work.id)) + 1
    try:
        create = render(draft.run, draft.spec, work, attempt, missing_shards(record), draft.settings)
    except InvalidPodTemplate as problem:
        draft.stall("InvalidPodTemplate", f"{title(work.id)}: {problem}")
        return
    if _refused(draft, create, work):
        return
    draft.actions.append(create)
    if not any(w.reason != "Progressing" for w in draft.waits):
        # As its next look will say: another wording would cost another write of the status.
        draft.wait("Progressing", f"{title(work.id)} runs")
    if work.id != CLEANUP:
        again = f", attempt {attempt}" if record.last_failure else ""
        draft.normal("StageStarted", f"{title(work.id)} started{again}")
    moment = stamp(draft.now)
    draft.records[work.id] = record.model_copy(
        update={
            "state": "Running",
            "attempt": attempt,
            "job": create.name,
            "started_at": record.started_at or moment,
            "attempt_started_at": moment,
            "finished_at": None,
            "next_attempt_at": None,
        }
    )


def _refused(draft: Draft, create: CreateJob, work: Work) -> bool:
    """Whether the API server refused this Job a short while ago."""
    refusal = draft.observed.refusals.get(create.name)
    if refusal is None:
        return False
    again = refusal.at + timedelta(seconds=draft.settings.refused_retry_seconds)
    if draft.now >= again:
        return False
    draft.wake(again)
    message = f"{title(work.id)}: {refusal.message}"
    if refusal.reason in STALLED:
        draft.stall(refusal.reason, message)
    else:
        draft.wait(refusal.reason, message)
    return True
