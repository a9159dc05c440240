"""Attempts: how a failure counts, when the next one starts, which shards it covers. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta

from srlm_contract.spec.policy import FailurePolicySpec
from srlm_contract.status import MAX_MESSAGE, Failure, StageStatus
from srlm_operator.jobs.shards import format_ranges, parse_ranges
from srlm_operator.settings import Settings
from srlm_operator.times import parse, stamp
from srlm_operator.values import JobView, PodView

from .outcomes import Failed

#: Seconds between checks of something that only a person can fix, once it has lasted.
_LONGEST_RECHECK = 3600.0


def account(
    record: StageStatus, failed: Failed, policy: FailurePolicySpec, now: datetime, settings: Settings
) -> StageStatus:
    """The record after a failed attempt: Retrying with a time, or Failed (with a time if it is checked again)."""
    failure = Failure(
        reason=failed.reason, message=failed.message[:MAX_MESSAGE], at=stamp(now), exit_code=failed.exit_code
    )
    record = record.model_copy(update={"last_failure": failure, "next_attempt_at": None})
    match failed.kind:
        case "free":
            began = parse(record.attempt_started_at)
            pause = policy.backoff_seconds
            lived = (now - began).total_seconds() if began else pause
            # At once, unless it dies as fast as it is started.
            return _retry(record, now, 0 if lived >= pause else pause)
        case "temporary":
            since = parse(record.temporary_since) or now
            waited = (now - since).total_seconds()
            if waited <= policy.temporary_budget_seconds:
                record = record.model_copy(update={"temporary_since": stamp(since)})
                # As long as it has been failing already: doubles by itself.
                return _retry(record, now, _capped(max(policy.backoff_seconds, waited), settings))
            return _count(record, policy, now, settings)
        case "counted" | "unseen" | "damaged":
            return _count(record, policy, now, settings)
        case "person":
            since = parse(record.stalled_since) or now
            # As long as it has been failing already: doubles by itself.
            pause = max(settings.slow_recheck_seconds, min((now - since).total_seconds(), _LONGEST_RECHECK))
            again = stamp(now + timedelta(seconds=pause))
            return record.model_copy(
                update={"state": "Failed", "next_attempt_at": again, "stalled_since": stamp(since)}
            )
        case "hopeless":
            return record.model_copy(update={"state": "Failed"})


def _count(record: StageStatus, policy: FailurePolicySpec, now: datetime, settings: Settings) -> StageStatus:
    failures = record.counted_failures + 1
    record = record.model_copy(update={"counted_failures": failures, "temporary_since": None})
    if failures >= policy.max_attempts:
        return record.model_copy(update={"state": "Failed"})
    return _retry(record, now, _capped(policy.backoff_seconds * 2 ** (failures - 1), settings))


def _retry(record: StageStatus, now: datetime, pause: float) -> StageStatus:
    again = stamp(now + timedelta(seconds=pause)) if pause else None
    return record.model_copy(update={"state": "Retrying", "next_attempt_at": again})


def _capped(seconds: float, settings: Settings) -> float:
    return min(seconds, settings.max_backoff_seconds)


def missing_shards(record: StageStatus) -> tuple[int, ...]:
    """Shards the next attempt covers; empty for all of them."""
    done = set(parse_ranges(record.finished_shards))
    left = tuple(i for i in range(record.shards) if i not in done)
    return () if len(left) == record.shards else left


def note_shards(record: StageStatus, job: JobView) -> StageStatus:
    """Remember which shards a failed attempt has committed."""
    if record.shards == 1:
        return record
    covered = job.shard_indexes or tuple(range(record.shards))
    done = {covered[i] for i in job.completed if i < len(covered)} | set(parse_ranges(record.finished_shards))
    text = format_ranges(done)
    # All of them, and still no artifact: something was lost, so everything is looked at again.
    if len(done) >= record.shards or len(text) > 1024:
        text = ""
    return record.model_copy(update={"finished_shards": text})


def gpu_seconds(pods: tuple[PodView, ...], now: datetime) -> float:
    """Run time of the pods times the GPUs they held."""
    total = 0.0
    for pod in pods:
        if pod.gpus and pod.started_at:
            total += pod.gpus * max(0.0, ((pod.finished_at or now) - pod.started_at).total_seconds())
    return total
