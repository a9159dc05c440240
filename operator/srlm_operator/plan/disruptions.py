"""Pods that are evicted, preempted or lost with their node while their Job goes on. Pure.

Machines that may be taken away at any time are the normal case: each loss is counted and told, and costs no attempt.
The Job replaces the pod after a pause that doubles with each loss, so after the second one a fresh Job goes on.

A node that does not answer leaves its pods terminating: they should have ended, and nobody says that they have. Such a
pod may even run on. What it commits then is as good as what the next attempt commits, and only one of them counts.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from srlm_contract.graph import NodeId
from srlm_contract.stages import TRAINERS
from srlm_contract.status import MAX_MESSAGE, Failure, StageStatus
from srlm_operator.times import parse, stamp
from srlm_operator.values import JobView, PodView

from .decisions import NOTHING, Decisions, Step, wait, wake, warn
from .outcomes import Failed, disrupted, why_disrupted
from .world import World, title

#: The Job controller's pause before it replaces a pod, in seconds; it doubles with each further one.
_REPLACED_AFTER = 10
#: Pods of one attempt that are lost before a fresh Job takes over.
_ENOUGH = 2
_MOST_KNOWN = 64
#: A kubelet that answers may be so many seconds late.
_LATE = timedelta(seconds=30)


def note_disruptions(world: World, node_id: NodeId, record: StageStatus, job: JobView) -> Step:
    """Count the pods that a running attempt has lost since the last look. A pod may be gone at the next one."""
    if job.state == "Suspended":  # by its queue: all pods are new afterwards
        return Step(record.model_copy(update={"disrupted_pods": ()}))
    known = set(record.disrupted_pods)
    lost = [pod for pod in world.pods(job.name) if disrupted(pod) and _mark(pod) not in known]
    if not lost or len(known) >= _MOST_KNOWN:
        return Step(record)
    decided = NOTHING
    text = why_disrupted(lost[-1]).message[: MAX_MESSAGE - 100]  # room for what follows
    if len(lost) > 1:
        text += f", and {len(lost) - 1} more"
    if job.state == "Active":  # otherwise its end is told
        decided = warn("Disrupted", f"{title(node_id)}, attempt {record.attempt}: {text}; it does not count")
    update = {
        "disruptions": record.disruptions + len(lost),
        "disrupted_pods": (*record.disrupted_pods, *map(_mark, lost))[:_MOST_KNOWN],
        "last_failure": Failure(reason="Disrupted", message=text, at=stamp(world.now)),
    }
    return Step(record.model_copy(update=update), decided)


def worn_out(world: World, record: StageStatus, job: JobView) -> Failed | None:
    """The end of an attempt that has lost its pods twice: a fresh one begins sooner than its Job makes another pod."""
    if len(record.disrupted_pods) < _ENOUGH or _alive(world, job):
        return None
    failure = record.last_failure
    return Failed("free", "Disrupted", f"{_times(record)}, at last {failure.message if failure else 'unseen'}")


def waits_for_pod(world: World, record: StageStatus, job: JobView, what: str) -> Decisions | None:
    """When a Job that has lost its pods gets the next one; None where there is one."""
    failure = record.last_failure
    if not record.disrupted_pods or failure is None or _alive(world, job) or job.create_error:
        return None
    pause = timedelta(seconds=_REPLACED_AFTER * 2 ** (len(record.disrupted_pods) - 1))
    again = stamp((parse(failure.at) or world.now) + pause)
    return wait("Retrying", f"{what}: {_times(record)} ({failure.message}); next pod about {again}")


def node_lost(world: World, record: StageStatus, job: JobView) -> Failed | None:
    """The end of an attempt with a pod whose node does not answer; peers that can go on without it end first."""
    lost = [(pod, end) for pod, end in _leaving(world, job) if world.now >= _given_up(world, end)]
    if not lost:
        return None
    gone = [pod for pod, _ in lost]
    others = any(pod.phase in ("Pending", "Running") and pod not in gone for pod in world.pods(job.name))
    if others and record.stage not in TRAINERS:
        return None
    return Failed("free", "NodeLost", _silent(*lost[0]))


def waits_for_node(world: World, job: JobView, what: str) -> Decisions | None:
    """Says that a pod's node does not answer."""
    for pod, end in _leaving(world, job):
        if world.now >= end + _LATE:
            limit = _given_up(world, end)
            then = f"the next attempt begins at {stamp(limit)}" if world.now < limit else "the other shards end first"
            return wait("NodeLost", f"{what}: {_silent(pod, end)}; {then}")
    return None


def look_at_leaving(world: World, job: JobView) -> Decisions:
    """No event tells that a pod does not end."""
    moments = [moment for _, end in _leaving(world, job) for moment in (end + _LATE, _given_up(world, end))]
    return sum((wake(moment) for moment in moments if moment > world.now), NOTHING)


def _leaving(world: World, job: JobView) -> list[tuple[PodView, datetime]]:
    """Pods that have been told to end and have not, each with the end of its grace period."""
    pods = world.pods(job.name)
    return [(pod, pod.deleted_at) for pod in pods if pod.deleted_at and pod.phase not in ("Failed", "Succeeded")]


def _given_up(world: World, end: datetime) -> datetime:
    return end + timedelta(seconds=world.settings.node_lost_seconds)


def _silent(pod: PodView, end: datetime) -> str:
    return f"pod {pod.name} should have ended at {stamp(end)}, and node {pod.node or 'unknown'} does not answer"


def _alive(world: World, job: JobView) -> bool:
    """Whether a pod runs, starts or is still on its way out: it may commit yet."""
    return any(pod.phase not in ("Failed", "Succeeded") for pod in world.pods(job.name))


def _mark(pod: PodView) -> str:
    return pod.uid[-12:]


def _times(record: StageStatus) -> str:
    count = record.disruptions
    return {1: "evicted once", 2: "evicted twice"}.get(count, f"evicted {count} times")
