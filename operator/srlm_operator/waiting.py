"""What a running Job waits for: queue, scheduler, quota, image, Secret. Pure."""

from __future__ import annotations

from datetime import timedelta

from .draft import Draft
from .values import JobView, PodView

_IMAGE = frozenset({"ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"})
_CONFIG = frozenset({"CreateContainerConfigError", "CreateContainerError", "FailedMount"})
#: After this long a Job without pods, or a pod without a container, is looked at once more.
_LOOK_AGAIN = timedelta(seconds=5)


def look_at_pods(draft: Draft, job: JobView, what: str) -> None:
    """Note why the Job does not run yet, or that it does."""
    if job.state == "Suspended":
        draft.wait("WaitingForQueue", f"{what}: Job {job.name} waits for its queue")
        return
    if job.create_error:
        _create_error(draft, job, what)
        return
    pods = [pod for pod in draft.pods(job.name) if not pod.deleting]
    for pod in pods:
        if _pod_problem(draft, pod, job, what):
            return
    draft.wait("Progressing", f"{what} runs")
    if not pods or any(pod.phase == "Pending" and pod.started_at for pod in pods):
        # No event on Job or pod would tell that it is stuck: look for the reason.
        draft.wake(draft.now + _LOOK_AGAIN)


def _create_error(draft: Draft, job: JobView, what: str) -> None:
    message = f"{what}: {job.create_error}"
    if "exceeded quota" in job.create_error or "insufficient quota" in job.create_error:
        draft.wait("QuotaExceeded", message)
    else:
        draft.stall("Forbidden", message)
    draft.wake(draft.now + timedelta(seconds=draft.settings.refused_retry_seconds))


def _pod_problem(draft: Draft, pod: PodView, job: JobView, what: str) -> bool:
    if pod.unschedulable:
        draft.wait("Unschedulable", f"{what}: pod {pod.name}: {pod.unschedulable}")
        return True
    message = f"{what}: pod {pod.name}: {pod.waiting_message or pod.waiting_reason}"
    if pod.waiting_reason in _IMAGE:
        old = (job.created_at or draft.now) + timedelta(seconds=draft.settings.image_pull_patience_seconds)
        if draft.now >= old:
            draft.stall("ImagePullFailed", message)
        else:
            draft.wait("ImagePullFailed", message)
            draft.wake(old)
        return True
    if pod.waiting_reason in _CONFIG:
        text = pod.waiting_message.lower()
        missing = "not found" in text or "couldn't find key" in text or "references non-existent" in text
        if missing:
            draft.stall("SecretNotFound", message)
        else:
            draft.wait("PodConfigError", message)
        return True
    return False
