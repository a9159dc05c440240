"""All writes of a reconcile, in one order: create, status, TTLs, events, delete.

Before anything is created or deleted the run is read once more, and so are the Jobs to delete: a plan made from an old
copy (a watch that lags, a restart against an older resource version) must not repeat what was done already, nor stop
what has ended. A Job is created before status tells of it, and deleted after: whichever write is the last one, the next
plan knows what became of each attempt.
"""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from secrets import token_hex
from typing import Any, assert_never

from srlm_contract.status import RunStatus
from srlm_operator import names
from srlm_operator.errors import (
    AlreadyExists,
    ApiError,
    Conflict,
    NamespaceTerminating,
    NotFound,
    NotReady,
    QuotaExceeded,
    Refused,
    Unavailable,
)
from srlm_operator.times import stamp
from srlm_operator.values import CreateJob, DeleteJob, Event, PatchJobTTL, Plan, Refusal, Run, SetFinalizer

from .client import EVENTS, JOBS, POD_GROUPS, RUNS, SERVICES, Client, Resource
from .index import World

log = logging.getLogger(__name__)


class Applier:
    """Carries out plans."""

    def __init__(self, client: Client, world: World, clock: Callable[[], datetime]) -> None:
        self._client, self._world, self._clock = client, world, clock
        self.on_created: Callable[[CreateJob], None] = lambda action: None
        self.on_deleted: Callable[[], None] = lambda: None
        self.on_status: Callable[[Run, Plan], None] = lambda run, plan: None
        """Called when status is as a plan says."""

    async def apply(self, run: Run, plan: Plan) -> bool:
        """Carry out a plan. False when the API refused an object, or a Job changed before it could be deleted: then
        plan again, with that known.

        Raises NotReady when the run or a Job to delete changed meanwhile, ApiError when the API does not answer.
        """
        version = run.resource_version
        if plan.actions or plan.deletes:
            await self._make_sure(run)
        for delete in plan.deletes:
            await self._make_sure_of_job(run, delete)
        refused = False
        for action in plan.actions:
            match action:
                case CreateJob():
                    refused |= not await self._create(run, action)
                case SetFinalizer(present):
                    version = await self._set_finalizer(run, present, version)
                case _:
                    assert_never(action)
        if refused:
            return False
        if plan.status is not None:
            await self._write_status(run, plan.status, version)
        self.on_status(run, plan)
        for ttl in plan.ttls:
            await self._patch_ttl(run, ttl)
        for event in plan.events:
            await self._emit(run, event)
        deleted = [await self._delete(run, delete) for delete in plan.deletes]
        return all(deleted)

    async def _make_sure(self, run: Run) -> None:
        try:
            current = await self._client.get(RUNS, run.namespace, run.name)
        except NotFound:
            self._world.forget("runs", (run.namespace, run.name))
            raise NotReady(f"run {run.namespace}/{run.name} is gone") from None
        meta = current["metadata"]
        if meta["uid"] != run.uid or meta["resourceVersion"] != run.resource_version:
            self._world.feed("runs", current, instead_of=run.resource_version)
            raise NotReady(f"run {run.namespace}/{run.name} has changed")

    async def _make_sure_of_job(self, run: Run, action: DeleteJob) -> None:
        """It may have ended since: its result counts, and what depends on it need not be stopped."""
        key = (run.namespace, action.name)
        try:
            current = await self._client.get(JOBS, *key)
        except NotFound:
            self._world.forget("jobs", key)
            raise NotReady(f"Job {run.namespace}/{action.name} is gone") from None
        if current["metadata"]["resourceVersion"] != action.resource_version:
            self._world.feed("jobs", current, instead_of=action.resource_version)
            raise NotReady(f"Job {run.namespace}/{action.name} has changed")

    async def _create(self, run: Run, action: CreateJob) -> bool:
        """Create the Service its pods meet through, their PodGroup, then the Job. False when the API refuses one."""
        try:
            if action.service is not None:
                await self._create_beside(run, SERVICES, action.service)
            if action.pod_group is not None:
                (resource,) = (r for r in POD_GROUPS if r.api_version == action.pod_group["apiVersion"])
                await self._create_beside(run, resource, action.pod_group)
            job = await self._create_job(run, action)
        except ApiError as problem:
            refusal = _refusal(problem, self._clock())
            if refusal is None:
                raise
            log.warning("%s/%s: %s refused: %s", run.namespace, run.name, action.name, refusal.message)
            self._world.refusals[run.uid][action.name] = refusal
            return False
        self._world.refusals[run.uid].pop(action.name, None)
        self._world.feed("jobs", job)
        self.on_created(action)
        return True

    async def _create_beside(self, run: Run, resource: Resource, manifest: Mapping[str, Any]) -> None:
        """Its name has a digest of the run's UID in it: one that exists is ours, from an earlier training or life."""
        with contextlib.suppress(AlreadyExists):
            await self._client.create(resource, run.namespace, manifest)

    async def _create_job(self, run: Run, action: CreateJob) -> Mapping[str, Any]:
        """The Job, new or there already. Raises AlreadyExists when it belongs to somebody else."""
        try:
            return await self._client.create(JOBS, run.namespace, action.manifest)
        except AlreadyExists:
            job = await self._client.get(JOBS, run.namespace, action.name)
            if any(o.get("uid") == run.uid for o in job["metadata"].get("ownerReferences") or ()):
                return job
            raise

    async def _delete(self, run: Run, action: DeleteJob) -> bool:
        """False when the Job changed after all."""
        key = (run.namespace, action.name)
        try:
            await self._client.delete(JOBS, *key, action.uid, action.resource_version)
        except NotFound:
            self._world.forget("jobs", key)
            return True
        except Conflict:
            with contextlib.suppress(NotFound):
                self._world.feed("jobs", await self._client.get(JOBS, *key))
            return False
        self.on_deleted()
        known = self._world.get("jobs", key)
        if known is not None:
            leaving = copy.deepcopy(dict(known))
            leaving["metadata"].setdefault("deletionTimestamp", stamp(self._clock()))
            self._world.feed("jobs", leaving)
        return True

    async def _set_finalizer(self, run: Run, present: bool, version: str) -> str:
        others = [name for name in run.finalizers if name != names.FINALIZER]
        wanted = [*others, names.FINALIZER] if present else others
        body = {"metadata": {"finalizers": wanted or None, "resourceVersion": version}}
        try:
            patched = await self._client.merge(RUNS, run.namespace, run.name, body)
        except NotFound:
            return version
        except Conflict as problem:
            await self._make_sure(run)
            raise NotReady(str(problem)) from None
        gone = not wanted and "deletionTimestamp" in patched["metadata"]
        self._world.feed("runs", patched, deleted=gone)
        return str(patched["metadata"]["resourceVersion"])

    async def _write_status(self, run: Run, status: RunStatus, version: str) -> None:
        if status == run.status and run.stored_status:
            return
        body = {
            "metadata": {"resourceVersion": version},
            "status": status_patch(run.stored_status, status),
        }
        try:
            patched = await self._client.merge(RUNS, run.namespace, run.name, body, sub="status")
        except NotFound:
            self._world.forget("runs", (run.namespace, run.name))
            return
        except Conflict as problem:
            await self._make_sure(run)
            raise NotReady(str(problem)) from None
        self._world.feed("runs", patched)

    async def _patch_ttl(self, run: Run, action: PatchJobTTL) -> None:
        body = {"spec": {"ttlSecondsAfterFinished": action.seconds}}
        try:
            patched = await self._client.merge(JOBS, run.namespace, action.name, body)
        except NotFound:
            self._world.forget("jobs", (run.namespace, action.name))
            return
        self._world.feed("jobs", patched)

    async def _emit(self, run: Run, event: Event) -> None:
        """Events are for people: one that cannot be written is logged and forgotten."""
        now = stamp(self._clock())
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{run.name[:200]}.{token_hex(8)}", "namespace": run.namespace},
            "involvedObject": {
                "apiVersion": names.API_VERSION,
                "kind": names.KIND,
                "name": run.name,
                "namespace": run.namespace,
                "uid": run.uid,
                "resourceVersion": run.resource_version,
            },
            "type": event.type,
            "reason": event.reason,
            "message": event.message[:1024],
            "source": {"component": names.MANAGER},
            "reportingComponent": names.MANAGER,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        try:
            await self._client.create(EVENTS, run.namespace, body)
        except ApiError as problem:
            log.info("%s/%s: event %s not written: %s", run.namespace, run.name, event.reason, problem)


def _refusal(problem: ApiError, now: datetime) -> Refusal | None:
    """What a failed creation means for the run; None when the API did not answer at all."""
    text = str(problem)
    match problem:
        case AlreadyExists():
            return Refusal("NameConflict", f"{text}, and belongs to somebody else: delete or rename it", now)
        case NamespaceTerminating():
            return Refusal("Forbidden", text, now, terminating=True)
        case QuotaExceeded():
            return Refusal("QuotaExceeded", text, now)
        case Refused() | NotFound():
            return Refusal("Forbidden", text, now)
        case Unavailable() if "failed calling webhook" in text:
            return Refusal("WebhookFailed", text, now)
        case _:
            return None


#: Written even at their default: printer columns and people look at them.
_ALWAYS = ("observedGeneration", "phase", "iteration", "stage", "currentModel")


def status_patch(stored: Mapping[str, Any], status: RunStatus) -> dict[str, Any]:
    """Merge patch from the stored status to the new one: fields at their default are left out or removed."""
    wanted = status.wire(defaults=False)
    full = status.wire()
    wanted |= {name: full[name] for name in _ALWAYS}
    return _difference(stored, wanted)


def _difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    patch: dict[str, Any] = {name: None for name in old if name not in new}
    for name, value in new.items():
        before = old.get(name)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            inner = _difference(before, value)
            if inner:
                patch[name] = inner
        elif before != value:
            patch[name] = value
    return patch
