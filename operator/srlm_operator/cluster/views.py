"""API objects → the values the planner reads. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from pydantic import ValidationError

from srlm_contract import gpus
from srlm_contract.graph import NodeId
from srlm_contract.spec.run import RunSpec
from srlm_contract.spec.storage import Storage, effective_storage, storage_basis
from srlm_contract.status import RunStatus
from srlm_operator import names
from srlm_operator.jobs.shards import parse_ranges
from srlm_operator.settings import Settings
from srlm_operator.times import parse
from srlm_operator.values import JobView, Phase, PodView, Run

from .index import Key, Obj

_PHASES: tuple[Phase, ...] = ("Pending", "Running", "Succeeded", "Failed", "Unknown")
_TERMINAL = ("Succeeded", "Failed")
_LINK = re.compile(r"(?:^|(?<=,))([0-9]{1,2}/[a-z][-a-z0-9]*)=([0-9a-f]+)(?=,|$)")
#: A container that is on its way has these reasons; only events say why it stays so.
_STARTING = ("", "ContainerCreating", "PodInitializing")


@dataclass(frozen=True)
class _Spec:
    """What became of a spec as it is written."""

    spec: RunSpec | None
    error: str
    newer: bool


class ParsedRuns:
    """`parse_run` that parses only what has changed: a run is looked at far more often than it changes, and then it is
    its status that does."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._known: dict[Key, tuple[Obj, _Spec, Run]] = {}
        """The object, and what was made of it."""

    def parse(self, obj: Obj) -> Run:
        meta = obj["metadata"]
        key = (meta["namespace"], meta["name"])
        known = self._known.get(key)
        # By content: an upgrade of the definition changes what is read without a new version of the object.
        if known is not None and known[0] == obj:
            return known[2]
        same = known is not None and known[0].get("spec") == obj.get("spec")
        spec = known[1] if known is not None and same else _parse_spec(obj)
        run = _parse_run(obj, spec, self._settings)
        self._known[key] = (obj, spec, run)
        return run

    def forget(self, key: Key) -> None:
        self._known.pop(key, None)


def parse_run(obj: Obj, settings: Settings | None = None) -> Run:
    """A SelfRewardingRun. A spec that does not fit gives `spec_error`; an unreadable status counts as lost.

    settings: of the operator, for its default storage; without them what status keeps of it counts.
    """
    return _parse_run(obj, _parse_spec(obj), settings)


def _parse_spec(obj: Obj) -> _Spec:
    try:
        return _Spec(RunSpec.parse(obj.get("spec") or {}), "", newer=False)
    except ValidationError as problem:
        newer = all(item["type"] == "extra_forbidden" for item in problem.errors())
        return _Spec(None, describe(problem), newer)


def _parse_run(obj: Obj, parsed: _Spec, settings: Settings | None) -> Run:
    meta = obj["metadata"]
    stored, written = obj.get("status") or {}, obj.get("spec")
    try:
        status = RunStatus.parse(stored)
    except ValidationError:
        status = RunStatus()
    spec = parsed.spec
    basis = None
    if spec is not None:
        spec, basis = with_storage(spec, status, meta["namespace"], settings)
    return Run(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta["uid"],
        generation=meta.get("generation", 0),
        resource_version=meta.get("resourceVersion", ""),
        spec=spec,
        spec_error=parsed.error,
        status=status,
        stored_status=stored,
        finalizers=tuple(meta.get("finalizers") or ()),
        annotations=meta.get("annotations") or {},
        deleted_at=parse(meta.get("deletionTimestamp")),
        spec_newer=parsed.newer,
        others=isinstance(written, dict) and written.get("managedBy") not in (None, names.MANAGED_BY),
        storage_basis=basis,
    )


def with_storage(
    spec: RunSpec, status: RunStatus, namespace: str, settings: Settings | None
) -> tuple[RunSpec, Storage | None]:
    """The spec with its effective storage, and what that rests on; both as they were where no place is known."""
    kept = status.started or settings is None
    defaults = (settings or Settings()).storage_defaults(namespace)
    basis = storage_basis(spec.storage, status.storage, kept, defaults)
    if basis is None:
        return spec, None
    return spec.model_copy(update={"storage": effective_storage(spec.storage, basis).as_spec()}), basis


def describe(problem: ValidationError) -> str:
    """Every problem as `spec.path: message`, one line."""
    lines = []
    for item in problem.errors()[:5]:
        path = ".".join(str(part) for part in ("spec", *item["loc"]))
        lines.append(f"{path}: {item['msg']}")
    return "; ".join(lines)


def job_view(obj: Obj, run_uid: str) -> JobView:
    """A Job of ours, whoever owns it."""
    meta, spec, status = obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}
    labels, annotations = meta.get("labels") or {}, meta.get("annotations") or {}
    conditions = {c["type"]: c for c in status.get("conditions") or () if c.get("status") == "True"}
    failed = conditions.get("Failed") or {}
    finished = conditions.get("Complete") or failed
    owners = meta.get("ownerReferences") or ()
    if "Complete" in conditions:
        state = "Complete"
    elif failed:
        state = "Failed"
    else:
        state = "Suspended" if spec.get("suspend") else "Active"
    completed = parse_ranges(status.get("completedIndexes") or "")
    return JobView(
        name=meta["name"],
        uid=meta["uid"],
        iteration=_number(labels.get(names.LABEL_ITERATION)),
        node=labels.get(names.LABEL_NODE, ""),
        stage=labels.get(names.LABEL_STAGE, ""),
        key=labels.get(names.LABEL_KEY, ""),
        attempt=_number(labels.get(names.LABEL_ATTEMPT)),
        state=state,  # type: ignore[arg-type]  # one of the four literals above
        owned=any(o.get("uid") == run_uid and o.get("controller") for o in owners),
        settings_digest=annotations.get(names.ANNOTATION_SETTINGS, ""),
        shards=_number(annotations.get(names.ANNOTATION_SHARD_COUNT)) or 1,
        shard_indexes=parse_ranges(annotations.get(names.ANNOTATION_SHARDS, "")),
        completions=spec.get("completions") or 1,
        completed=completed,
        active=status.get("active") or 0,
        chain=_chain(annotations.get(names.ANNOTATION_CHAIN, "")),
        failure_reason=failed.get("reason", ""),
        failure_message=failed.get("message", ""),
        created_at=parse(meta.get("creationTimestamp")),
        started_at=parse(status.get("startTime")),
        finished_at=parse(status.get("completionTime") or finished.get("lastTransitionTime")),
        has_ttl=spec.get("ttlSecondsAfterFinished") is not None,
        managed_by="" if spec.get("managedBy") == names.JOB_CONTROLLER else spec.get("managedBy") or "",
        deleting="deletionTimestamp" in meta,
        resource_version=meta.get("resourceVersion", ""),
    )


def _chain(text: str) -> dict[NodeId, str]:
    return {NodeId.parse(node): digest for node, digest in _LINK.findall(text)}


def pod_view(obj: Obj) -> PodView:
    """A pod of one of our Jobs."""
    meta, spec, status = obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}
    annotations, owner = meta.get("annotations") or {}, _job(meta)
    conditions = {c["type"]: c for c in status.get("conditions") or ()}
    main = _container(status.get("containerStatuses"))
    state = main.get("state") or {}
    ended = state.get("terminated") or _failed_init(status)
    waiting = _waiting(status)
    scheduled = conditions.get("PodScheduled") or {}
    unschedulable = scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable"
    phase: Phase = next((known for known in _PHASES if known == status.get("phase")), "Pending")
    running = (state.get("running") or {}).get("startedAt")
    return PodView(
        name=meta["name"],
        uid=meta["uid"],
        job=owner.get("name") or "",
        job_uid=owner.get("uid") or "",
        index=_number(annotations.get("batch.kubernetes.io/job-completion-index")),
        phase=phase,
        exit_code=ended.get("exitCode"),
        terminated_reason=ended.get("reason") or "",
        message=ended.get("message") or "",
        pod_reason=status.get("reason") or "",
        pod_message=status.get("message") or "",
        disrupted=(conditions.get("DisruptionTarget") or {}).get("status") == "True",
        waiting_reason=(waiting.get("reason") or "") if phase not in _TERMINAL else "",
        waiting_message=waiting.get("message") or "",
        unschedulable=scheduled.get("message", "") if unschedulable else "",
        started_at=parse(ended.get("startedAt") or running or status.get("startTime")),
        finished_at=parse(ended.get("finishedAt")),
        gpus=_gpus(spec.get("containers") or ()),
        beside=_beside(status) if state.get("terminated") and phase == "Running" else "",
        node=spec.get("nodeName") or "",
        deleting="deletionTimestamp" in meta,
        deleted_at=parse(meta.get("deletionTimestamp")),
    )


def _job(meta: Obj) -> Obj:
    """The reference to the Job that made the pod. Labels say nothing: those of others' pods could be the same."""
    owners = meta.get("ownerReferences") or ()
    return next((o for o in owners if o.get("controller") and o.get("kind") == "Job"), {})


def _waiting(status: Obj) -> Obj:
    """What a container waits for, the most telling one first: a sidecar or init container may be at fault."""
    groups = ("initContainerStatuses", "containerStatuses")
    states = [container.get("state") or {} for group in groups for container in status.get(group) or ()]
    found = [state["waiting"] for state in states if state.get("waiting")]
    return min(found, key=lambda waiting: waiting.get("reason") in _STARTING, default={})


def _beside(status: Obj) -> str:
    """The first container that runs, other than that of the stage."""
    others = (c for c in status.get("containerStatuses") or () if c.get("name") != names.CONTAINER)
    return next((str(c["name"]) for c in others if "running" in (c.get("state") or {})), "")


def _failed_init(status: Obj) -> Obj:
    """How an init container ended that failed: then the stage's container never ran."""
    for container in status.get("initContainerStatuses") or ():
        ended = (container.get("state") or {}).get("terminated") or {}
        if status.get("phase") == "Failed" and ended.get("exitCode"):
            said = ended.get("message") or ""
            # Its exit code is not one of a stage: 65 there does not mean a damaged input.
            message = f"init container {container.get('name')} ended with exit code {ended['exitCode']}: {said}"
            return {**ended, "exitCode": 1, "message": message}
    return {}


def _container(statuses: Iterable[Obj] | None) -> Obj:
    for status in statuses or ():
        if status.get("name") == names.CONTAINER:
            return status
    return {}


def _gpus(containers: Iterable[Obj]) -> float:
    """Over all containers."""
    return sum(gpus.held(container.get("resources") or {}) for container in containers)


def _number(text: str | None) -> int:
    return int(text) if text and text.isdigit() else 0
