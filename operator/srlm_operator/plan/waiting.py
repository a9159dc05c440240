"""What a running Job waits for: queue, scheduler, quota, image, Secret. Pure."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from srlm_operator.values import JobView, PodView

from .decisions import NOTHING, Decisions, stall, wait, wake
from .world import World, runs

_IMAGE = frozenset({"ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"})
_CONFIG = frozenset({"CreateContainerConfigError", "CreateContainerError", "FailedMount"})
#: What kubelet and API server say of objects and keys that are not there.
_MISSING = ("not found", "couldn't find key", "references non-existent", "no priorityclass with name")


def look_at_pods(world: World, job: JobView, what: str) -> Decisions:
    """Why the Job does not run yet (its `hindrances`), or that it does."""
    if job.state == "Suspended":
        return wait("WaitingForQueue", f"{what}: Job {job.name} waits for its queue")
    pods = [pod for pod in world.pods(job.name) if not pod.deleting]
    for pod in pods:
        problem = _pod_problem(world, pod, job, what)
        if problem is not None:
            return problem
    if job.create_error:
        return _create_error(job, what) + _look_again(world)
    made = len(world.pods(job.name))
    # No event on Job or pod would tell that it is stuck.
    unseen = made < job.completions or any(pod.phase == "Pending" and pod.started_at for pod in pods)
    return wait("Progressing", runs(job.node_id, job.chain)) + (_look_again(world) if unseen else NOTHING)


def _look_again(world: World) -> Decisions:
    return wake(world.now + timedelta(seconds=world.settings.look_again_seconds))


def _create_error(job: JobView, what: str) -> Decisions:
    text = job.create_error
    message = f"{what}: Job {job.name}: {text}"
    if "exceeded quota" in text or "insufficient quota" in text:
        return wait("QuotaExceeded", message)
    if "must specify" in text and "quota" in text:
        return stall("LimitsRequired", f"{message}; set {_demanded(text, job.stage)}")
    if "failed calling webhook" in text:
        return wait("WebhookFailed", message)
    if any(word in text.lower() for word in _MISSING) and "admission webhook" not in text:
        return stall("ObjectNotFound", message)
    return stall("Forbidden", message)


def _demanded(text: str, stage: str) -> str:
    """The fields that a quota demands, from `must specify limits.cpu for: stage; limits.memory for: stage`."""
    names = dict.fromkeys(re.findall(r"(?:requests|limits)\.[a-z0-9./-]*[a-z0-9]", text.partition("must specify")[2]))
    fields = [f"spec.stages.{stage}.resources.{name}" for name in names]
    return " and ".join(fields) or f"spec.stages.{stage}.resources"


def _pod_problem(world: World, pod: PodView, job: JobView, what: str) -> Decisions | None:
    if pod.phase != "Pending":
        return None
    if pod.unschedulable:
        return wait("Unschedulable", f"{what}: pod {pod.name}: {pod.unschedulable}")
    message = f"{what}: pod {pod.name}: {pod.waiting_message or pod.waiting_reason}"
    since = pod.started_at or job.created_at or world.now
    if pod.waiting_reason in _IMAGE:
        return _patiently(world, "ImagePullFailed", message, since)
    if pod.waiting_reason in _CONFIG:
        again = _look_again(world) if pod.waiting_reason == "FailedMount" else NOTHING
        if any(word in pod.waiting_message.lower() for word in _MISSING):
            return stall("SecretNotFound", message) + again
        return _patiently(world, "PodConfigError", message, since) + again
    return None


def _patiently(world: World, reason: str, message: str, since: datetime) -> Decisions:
    """Waited for at first: registries and kubelets have their moments. Then a matter for a person."""
    old = since + timedelta(seconds=world.settings.image_pull_patience_seconds)
    if world.now >= old:
        return stall(reason, message)
    return wait(reason, message) + wake(old)
