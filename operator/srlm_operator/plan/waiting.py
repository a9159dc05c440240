"""What a running Job waits for: queue, scheduler, quota, image, Secret. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta

from srlm_operator.values import JobView, PodView

from .draft import Draft

_IMAGE = frozenset({"ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"})
_CONFIG = frozenset({"CreateContainerConfigError", "CreateContainerError", "FailedMount"})
#: What kubelet and API server say of objects and keys that are not there.
_MISSING = ("not found", "couldn't find key", "references non-existent", "no priorityclass with name")


def look_at_pods(draft: Draft, job: JobView, what: str) -> bool:
    """Note why the Job does not run yet, or that it does. Whether something keeps it from running."""
    if job.state == "Suspended":
        draft.wait("WaitingForQueue", f"{what}: Job {job.name} waits for its queue")
        return True
    pods = [pod for pod in draft.pods(job.name) if not pod.deleting]
    if any(_pod_problem(draft, pod, job, what) for pod in pods):
        return True
    if job.create_error:
        _create_error(draft, job, what)
        return True
    draft.wait("Progressing", f"{what} runs")
    made = len(draft.pods(job.name))
    if made < job.completions or any(pod.phase == "Pending" and pod.started_at for pod in pods):
        _look_again(draft)  # no event on Job or pod would tell that it is stuck
    return False


def _look_again(draft: Draft) -> None:
    draft.wake(draft.now + timedelta(seconds=draft.settings.look_again_seconds))


def _create_error(draft: Draft, job: JobView, what: str) -> None:
    text = job.create_error
    message = f"{what}: Job {job.name}: {text}"
    if "exceeded quota" in text or "insufficient quota" in text:
        draft.wait("QuotaExceeded", message)
    elif "failed calling webhook" in text:
        draft.wait("WebhookFailed", message)
    elif any(word in text.lower() for word in _MISSING) and "admission webhook" not in text:
        draft.stall("ObjectNotFound", message)
    else:
        draft.stall("Forbidden", message)
    _look_again(draft)


def _pod_problem(draft: Draft, pod: PodView, job: JobView, what: str) -> bool:
    if pod.phase != "Pending":
        return False
    if pod.unschedulable:
        draft.wait("Unschedulable", f"{what}: pod {pod.name}: {pod.unschedulable}")
        return True
    message = f"{what}: pod {pod.name}: {pod.waiting_message or pod.waiting_reason}"
    since = pod.started_at or job.created_at or draft.now
    if pod.waiting_reason in _IMAGE:
        _patiently(draft, "ImagePullFailed", message, since)
        return True
    if pod.waiting_reason in _CONFIG:
        if any(word in pod.waiting_message.lower() for word in _MISSING):
            draft.stall("SecretNotFound", message)
        else:
            _patiently(draft, "PodConfigError", message, since)
        if pod.waiting_reason == "FailedMount":
            _look_again(draft)
        return True
    return False


def _patiently(draft: Draft, reason: str, message: str, since: datetime) -> None:
    """Waited for at first: registries and kubelets have their moments. Then a matter for a person."""
    old = since + timedelta(seconds=draft.settings.image_pull_patience_seconds)
    if draft.now >= old:
        draft.stall(reason, message)
    else:
        draft.wait(reason, message)
        draft.wake(old)
