"""All reads of a reconcile: from the indexes, and from the API only where an index cannot know enough."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

from srlm_contract.status import StageStatus
from srlm_operator.errors import ApiError, NotFound
from srlm_operator.settings import Settings
from srlm_operator.values import BranchModel, JobView, Observed, PodView, Run

from .client import EVENTS, JOBS, POD_GROUPS, PODS, Client
from .index import World, key_of
from .views import ParsedRuns, job_view, pod_view

_NO_POD = ("FailedCreate",)
_NO_CONTAINER = ("FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox")
#: Events that say that a pod has come past what was wrong.
_BEYOND = ("Pulling", "Pulled", "Created", "Started", "SuccessfulAttachVolume")


class Observer:
    """Gathers what the planner may know about a run."""

    def __init__(
        self, client: Client, world: World, clock: Callable[[], datetime], settings: Settings, runs: ParsedRuns
    ) -> None:
        self._client, self._world, self._clock, self._runs = client, world, clock, runs
        self._patience = timedelta(seconds=settings.look_again_seconds)
        self._explained: dict[str, tuple[datetime, str]] = {}
        self._upgrade_patience = timedelta(seconds=settings.resync_seconds)
        self._pod_groups: tuple[datetime, str] | None = None
        """When discovery was asked last, and its answer."""

    async def observe(self, run: Run) -> Observed:
        """Raises ApiError when a needed read fails."""
        await self._look_for_missing(run)
        jobs = [job_view(obj, run.uid) for obj in self._world.owned("jobs", run.namespace, run.uid)]
        await self._complete_pods(run, jobs)
        uids = {job.name: job.uid for job in jobs}
        pods = [pod_view(obj) for obj in self._world.owned("pods", run.namespace, run.uid)]
        pods = [pod for pod in pods if uids.get(pod.job, pod.job_uid) == pod.job_uid]
        jobs = [await self._explain_job(run, job, pods) for job in jobs]
        pods = [await self._explain_pod(run, pod) for pod in pods]
        branch, error = self._branch(run)
        return Observed(
            jobs=tuple(jobs),
            pods=tuple(pods),
            progress=dict(self._world.progress.get(run.uid, {})),
            unread=frozenset(self._world.unread.get(run.uid, ())),
            refusals=dict(self._world.refusals.get(run.uid, {})),
            branch=branch,
            branch_error=error,
            pod_groups=await self._served_pod_groups(run),
        )

    async def _served_pod_groups(self, run: Run) -> str:
        """Group and version of PodGroups, for runs that may need one. An upgrade of the cluster may bring them."""
        if run.spec is None or run.spec.training.nodes == 1 or run.spec.scheduling.gang == "Off":
            return ""
        now = self._clock()
        if self._pod_groups is None or now - self._pod_groups[0] >= self._upgrade_patience:
            found = await self._client.first_served(POD_GROUPS)
            self._pod_groups = (now, found.api_version if found is not None else "")
        return self._pod_groups[1]

    async def _look_for_missing(self, run: Run) -> None:
        """A Job that status calls running and no index knows: gone, or only not seen yet?"""
        for record in records(run):
            key = (run.namespace, record.job)
            if record.state != "Running" or self._world.get("jobs", key) is not None:
                continue
            try:
                self._world.feed("jobs", await self._client.get(JOBS, *key))
            except NotFound:
                continue

    async def _complete_pods(self, run: Run, jobs: list[JobView]) -> None:
        """Before an outcome is judged all pods must be known as they ended: pod events may come later."""
        # Of a chain the records that wait name the Job too.
        settled = {record.job for record in records(run) if record.state not in ("Running", "Pending")}
        for job in jobs:
            if not job.ended or job.has_ttl or job.name in settled:
                continue
            seen = [pod_view(obj) for obj in self._world.owned("pods", run.namespace, run.uid)]
            pods = [pod for pod in seen if pod.job_uid == job.uid]
            ended = [p for p in pods if p.phase in ("Succeeded", "Failed")]
            succeeded = [p for p in ended if p.phase == "Succeeded"]
            enough = len(succeeded) >= job.completions if job.state == "Complete" else len(ended) == len(pods) > 0
            if enough:
                continue
            before = self._world.versions("pods", run.namespace)
            listed = await self._client.list(PODS, run.namespace, labels=f"batch.kubernetes.io/job-name={job.name}")
            for obj in listed.items:
                self._world.feed("pods", obj, instead_of=before.get(key_of(obj)))

    async def _explain_job(self, run: Run, job: JobView, pods: list[PodView]) -> JobView:
        """Why the Job controller makes no pods, or too few: only an event on the Job says so."""
        made = sum(pod.job == job.name for pod in pods)
        if job.state != "Active" or job.deleting or made >= job.completions:
            return job
        text = await self._events(run, job.uid, job.created_at, _NO_POD)
        # Each try has a name of its own; without it the same problem reads the same.
        text = re.sub(rf'("{re.escape(job.name)}(-\d+)?)-[a-z0-9]{{5}}"', r'\1"', text)
        return replace(job, create_error=text) if text else job

    async def _explain_pod(self, run: Run, pod: PodView) -> PodView:
        """Why a scheduled pod gets no container: only an event on the pod says so."""
        if pod.phase != "Pending" or pod.waiting_reason not in ("", "ContainerCreating", "PodInitializing"):
            return pod
        if pod.unschedulable or pod.deleting:
            return pod
        text = await self._events(run, pod.uid, pod.started_at, _NO_CONTAINER)
        return replace(pod, waiting_reason="FailedMount", waiting_message=text) if text else pod

    async def _events(self, run: Run, uid: str, since: datetime | None, reasons: tuple[str, ...]) -> str:
        """Message of the newest event with one of the reasons, unless a later one says that it is over."""
        now = self._clock()
        if since is None or now - since < self._patience:
            return ""
        asked, text = self._explained.get(uid, (None, ""))
        if asked is not None and now - asked < self._patience:
            return text
        try:
            listed = await self._client.list(EVENTS, run.namespace, fields=f"involvedObject.uid={uid}")
        except ApiError:
            return text
        found = [event for event in listed.items if event.get("reason") in (*reasons, *_BEYOND)]
        # At the same second the one that is over counts: what is still wrong is told again.
        found.sort(key=lambda e: (str(e.get("lastTimestamp") or e.get("eventTime") or ""), e["reason"] in _BEYOND))
        text = str(found[-1].get("message") or "") if found and found[-1]["reason"] in reasons else ""
        if len(self._explained) > 10_000:
            self._explained.clear()
        self._explained[uid] = (now, text)
        return text

    def _branch(self, run: Run) -> tuple[BranchModel | None, str]:
        """The model that branchFrom names, from the other run's status."""
        if run.spec is None or not run.spec.branch_from.run:
            return None, ""
        source = run.spec.branch_from
        obj = self._world.run((run.namespace, source.run or ""))
        if obj is None:
            return None, f"branchFrom: run {source.run} does not exist in namespace {run.namespace}"
        other = self._runs.parse(obj)
        if other.spec is None or other.spec.storage.uri != run.spec.storage.uri:
            return None, f"branchFrom: run {source.run} must have the same storage.uri"
        for model in other.status.models:
            if model.name == source.model and model.key:
                return BranchModel(model.stage, model.key, model.content_digest), ""
        if any(model.name == source.model for model in other.status.models):
            return None, f"branchFrom: {source.model} of run {source.run} is its base model: name it as baseModel"
        return None, f"branchFrom: run {source.run} has no finished model {source.model}"


def records(run: Run) -> list[StageStatus]:
    """All stage records of a run's status."""
    status = run.status
    single = (status.preflight_stage, status.report_stage, status.cleanup_stage)
    return [s for s in single if s is not None] + [s for i in status.iterations for s in i.stages]
