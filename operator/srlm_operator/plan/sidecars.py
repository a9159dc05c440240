"""Pods whose stage has ended while another container runs on, such as a mesh's proxy. Pure.

Their Job would never end. What the stage's container said is as final as if the pod had ended with it.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from srlm_contract.status import StageStatus
from srlm_operator.values import JobView, PodView

from . import outcomes
from .decisions import NOTHING, Decisions, wake
from .outcomes import Committed, Failed
from .world import World

#: Sidecars that end with the stage may need so long.
_PATIENCE = timedelta(seconds=30)


def held_up(world: World, record: StageStatus, job: JobView) -> Committed | Failed | None:
    """How an attempt has ended all of whose pods are only held up by sidecars; None while a stage runs."""
    pods = world.pods(job.name)
    waiting = [pod for pod in pods if pod.phase not in ("Succeeded", "Failed")]
    if not waiting or not all((due := _due(pod)) and world.now >= due for pod in waiting):
        return None
    ended = tuple(_as_ended(pod) if pod in waiting else pod for pod in pods)
    if any(pod.phase == "Failed" and not outcomes.disrupted(pod) for pod in ended):
        return outcomes.failure(job, ended, record.stage)
    if sum(pod.phase == "Succeeded" for pod in ended) < job.completions:
        return None
    return outcomes.committed(job, ended, record.stage)


def sidecar_of(world: World, job: JobView) -> str:
    """`container NAME of pod NAME` that holds the Job up."""
    return next((f"container {pod.beside} of pod {pod.name}" for pod in world.pods(job.name) if pod.beside), "")


def look_at_sidecars(world: World, job: JobView) -> Decisions:
    """No event tells that a sidecar does not end."""
    moments = [due for pod in world.pods(job.name) if (due := _due(pod)) and due > world.now]
    return sum(map(wake, moments), NOTHING)


def _due(pod: PodView) -> datetime | None:
    """When the patience ends with the sidecar of a pod whose stage has ended; None for other pods."""
    held = pod.beside and pod.exit_code is not None and not pod.deleting
    return pod.finished_at + _PATIENCE if held and pod.finished_at else None


def _as_ended(pod: PodView) -> PodView:
    return replace(pod, phase="Failed" if pod.exit_code else "Succeeded")
