"""What became of an attempt: a finished Job and its pods → committed, failed and why, or not known. Pure.

The order of the checks matters. A pod that says 64, 65 or 77 explains the whole Job, whatever happened to its
peers when they were stopped; a disruption explains crashes of peers; a crash outweighs a temporary failure.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from pydantic import ValidationError

from srlm_contract.figures import by_need, for_status
from srlm_contract.reasons import FAILURES, STALLED, WAITING
from srlm_contract.status import MAX_STATISTICS
from srlm_contract.tasks import (
    EXIT_BAD_INPUT,
    EXIT_INVALID_TASK,
    EXIT_NOT_PERMITTED,
    EXIT_TEMPORARY,
    ArtifactRef,
    ChainedResult,
    StageError,
    StageResult,
)
from srlm_operator.values import JobView, PodView

Kind = Literal["free", "temporary", "counted", "unseen", "person", "hopeless", "damaged"]
"""How an attempt counts: not; against the time budget; against maxAttempts; the same, and its artifact may be there
all the same; a person must act (checked again slowly); the same again would end the same; an input artifact must be
made again."""

#: Exit 65 that no second try of the same task can change.
HOPELESS = frozenset({"JudgeNotUsable", "NoPairs", "InputTooLong"})
_NODE_LOSS = frozenset({"Evicted", "NodeLost", "NodeShutdown", "Shutdown", "Terminated", "Preempting"})
_DISK = ("ephemeral", "emptydir", "disk", "no space left")
#: Characters shown of a termination message that is no result.
_SHOWN = 160


@dataclass(frozen=True)
class Committed:
    """The stage has committed; this is its answer."""

    result: StageResult
    beside: tuple[ChainedResult, ...] = ()
    """What its pods have committed of their chain."""

    def chained(self, job: JobView | None) -> tuple[ChainedResult, ...]:
        """In the order of the Job's chain, and nothing else."""
        order: dict[str, int] = {node_id: n for n, node_id in enumerate(job.chain if job is not None else ())}
        told = [item for item in self.beside if job is None or item.node in order]
        return tuple(sorted(told, key=lambda item: order.get(item.node, 0)))


@dataclass(frozen=True)
class Failed:
    """The attempt failed."""

    kind: Kind
    reason: str
    message: str
    exit_code: int | None = None
    artifact: ArtifactRef | None = None


def committed(job: JobView, pods: Sequence[PodView], stage: str) -> Committed | Failed:
    """Outcome of a Job that is Complete.

    The pod that put the top manifest carries the content digest; `preflight` answers with pins instead. `cleanup` and
    `report` commit nothing and are done when the Job is. Every other end counts: a stage that never answers must not
    run for ever.
    """
    ended = [pod for pod in pods if pod.phase == "Succeeded"]
    results = [(pod, parse_result(pod.message)) for pod in ended]
    if done := told(ended):
        return done
    if stage in ("cleanup", "report"):
        found = next((result for _, result in results if result is not None), None)
        return Committed(found or StageResult(stage="cleanup" if stage == "cleanup" else "report"))
    for pod, result in results:
        if result is None:
            return _unreadable(pod)
    if len(ended) < job.completions:
        return Failed("unseen", "PodsGone", f"Job {job.name} is complete; its pods went before their result was read")
    names = ", ".join(pod.name for pod in ended[:3])
    text = f"all pods of Job {job.name} ended with exit code 0 ({names}), and none says what it has committed"
    return Failed("counted", "NoResult", text, 0)


def told(pods: Sequence[PodView]) -> Committed | None:
    """What pods say that is committed, whatever became of them since: one that ends early may have been killed in its
    chain. Of a sharded stage one pod says it, of a link maybe another one."""
    results = [found for pod in pods if pod.message and (found := parse_result(pod.message)) and found.error is None]
    lead = next((result for result in results if result.content_digest or result.pins), None)
    if lead is None:
        return None
    beside: dict[str, ChainedResult] = {}
    for item in (item for result in results for item in result.chained):
        if item.node not in beside or beside[item.node].reused:
            beside[item.node] = item
    return Committed(lead, tuple(beside.values()))


def _unreadable(pod: PodView) -> Failed:
    said = repr(pod.message[:_SHOWN]) + ("..." if len(pod.message) > _SHOWN else "") if pod.message else "nothing"
    size = f" ({len(pod.message.encode())} bytes)" if pod.message else ""
    text = f"pod {pod.name} ended with exit code {pod.exit_code}, and its termination message{size} is no result"
    return Failed("counted", "NoResult", f"{text}: {said}", pod.exit_code)


def disrupted(pod: PodView) -> bool:
    """Whether a pod ends, or has ended, for a reason that has nothing to do with its stage."""
    return pod.phase != "Succeeded" and (pod.disrupted or pod.pod_reason in _NODE_LOSS)


def failure(job: JobView, pods: Sequence[PodView], stage: str) -> Failed:
    """Why a Job failed."""
    failed = [p for p in pods if p.phase == "Failed"]
    for code in (EXIT_INVALID_TASK, EXIT_NOT_PERMITTED, EXIT_BAD_INPUT):
        for pod in failed:
            if pod.exit_code == code:
                return _stated(pod, code)
    if job.failure_reason == "DeadlineExceeded":
        return Failed("counted", "DeadlineExceeded", f"Job {job.name}: {job.failure_message}")
    for pod in failed:
        if _disk_full(pod):
            text = pod.pod_message or parse_error(pod).message
            return Failed("counted", "DiskFull", f"pod {pod.name}: {text}", pod.exit_code)
    for pod in pods:
        if disrupted(pod):
            return why_disrupted(pod)
    # The Job controller deletes the peers of a pod that failed: being deleted explains nothing beside a crash.
    crashed = [p for p in failed if p.exit_code != EXIT_TEMPORARY and not p.deleting]
    if crashed:
        return _crash(min(crashed, key=_telling), stage)
    temporary = [p for p in failed if p.exit_code == EXIT_TEMPORARY]
    if temporary:
        error = parse_error(temporary[0])
        reason = error.reason if error.reason in WAITING else "Temporary"
        return Failed("temporary", reason, f"pod {temporary[0].name}: {error.message}", EXIT_TEMPORARY)
    for pod in pods:
        if pod.deleting:
            return why_disrupted(pod)
    return Failed("free", "Disrupted", f"Job {job.name} failed and its pods are gone: {job.failure_message}")


def _telling(pod: PodView) -> tuple[bool, datetime]:
    """Sorts the pod first that explains the others: a kill for memory, else the one that ended first."""
    memory = pod.terminated_reason == "OOMKilled" or parse_error(pod).reason == "OutOfMemory"
    return not memory, pod.finished_at or datetime.max.replace(tzinfo=UTC)


def why_disrupted(pod: PodView) -> Failed:
    text = pod.pod_message or pod.pod_reason or "evicted, preempted or deleted"
    return Failed("free", "Disrupted", f"pod {pod.name}: {text}", pod.exit_code)


def _stated(pod: PodView, code: int) -> Failed:
    """Exit 64, 65 or 77: the stage says what is wrong."""
    error = parse_error(pod)
    if code == EXIT_INVALID_TASK:
        return Failed("hopeless", "InvalidTask", error.message, code)
    if code == EXIT_NOT_PERMITTED:
        reason = error.reason if error.reason in STALLED else "StorageNotPermitted"
        return Failed("person", reason, error.message, code)
    if error.artifact is not None:
        return Failed("damaged", "InputDamaged", error.message, code, error.artifact)
    reason = error.reason if error.reason in STALLED else "InvalidSeedData"
    return Failed("hopeless" if reason in HOPELESS else "person", reason, error.message, code)


def _crash(pod: PodView, stage: str) -> Failed:
    error = parse_error(pod)
    if pod.terminated_reason == "OOMKilled" or error.reason == "OutOfMemory":
        text = f"pod {pod.name} was killed for memory: raise stages.{stage}.resources.limits.memory"
        return Failed("counted", "OutOfMemory", text, pod.exit_code)
    reason = error.reason if error.reason in FAILURES else "Crashed"
    return Failed("counted", reason, f"pod {pod.name}: {error.message}", pod.exit_code)


def _disk_full(pod: PodView) -> bool:
    if pod.pod_reason == "Evicted":
        return any(word in pod.pod_message.lower() for word in _DISK)
    return parse_error(pod).reason == "DiskFull"


def parse_result(message: str) -> StageResult | None:
    """The termination message of a pod that exited 0; None when it is no StageResult.

    Fields that a newer stage image adds, and figures that are no numbers (a diverged loss is null or NaN in JSON),
    are left out: they must not make a committed artifact look lost.
    """
    try:
        body = json.loads(message)
    except (ValueError, RecursionError):
        return None
    if not isinstance(body, dict):
        return None
    known = {field.alias or name for name, field in StageResult.model_fields.items()}
    body = {name: value for name, value in body.items() if name in known}
    chained = body.get("chained")
    if isinstance(chained, list):
        body["chained"] = [found for item in chained if (found := _link(item)) is not None]
    committed = body.get("committed")
    for part in (body, *(committed if isinstance(committed, list) else ())):
        if isinstance(part, dict) and isinstance(part.get("statistics"), dict):
            part["statistics"] = _recorded(part["statistics"])
    try:
        return StageResult.parse(body)
    except ValidationError:
        return None


def _link(item: object) -> dict[str, object] | None:
    """A stage of a chain as a newer image may tell it; None where it says nothing that can be used."""
    if not isinstance(item, dict):
        return None
    known = {field.alias or name for name, field in ChainedResult.model_fields.items()}
    found = {name: value for name, value in item.items() if name in known}
    statistics = found.get("statistics")
    found["statistics"] = _recorded(statistics) if isinstance(statistics, dict) else {}
    found["seconds"] = max(0.0, _finite({"seconds": found.get("seconds")}).get("seconds", 0.0))
    try:
        return ChainedResult.parse(found).wire() if found.get("contentDigest") else None
    except ValidationError:
        return None


def storage_errors(pods: Sequence[PodView]) -> int:
    """Failed requests to the object store that the pods speak of; those that were killed say nothing."""
    results = (parse_result(pod.message) for pod in pods if pod.message)
    return sum(max(0, result.storage_errors) for result in results if result is not None)


def _recorded(statistics: Mapping[str, object]) -> dict[str, float]:
    """Those that status holds."""
    found = _finite(for_status(statistics))
    return dict(list(by_need(found).items())[:MAX_STATISTICS]) if len(found) > MAX_STATISTICS else found


def _finite(statistics: Mapping[str, object]) -> dict[str, float]:
    finite = {}
    for name, value in statistics.items():
        with suppress(OverflowError):  # a whole number of hundreds of digits
            if isinstance(value, int | float) and math.isfinite(value):
                finite[name] = float(value)
    return finite


def parse_error(pod: PodView) -> StageError:
    """What the pod says about its failure; a made-up answer when it says nothing usable."""
    result = parse_result(pod.message)
    if result is not None and result.error is not None:
        return result.error
    try:
        return _Envelope.model_validate_json(pod.message).error
    except ValidationError:
        tail = pod.message.strip()[-500:]
        code = "no exit code" if pod.exit_code is None else f"exit code {pod.exit_code}"
        text = ": ".join(part for part in (code, pod.terminated_reason, tail) if part)
        return StageError(reason="", message=text)


class _Envelope(StageResult):
    """`{"error": {...}}` alone, as a stage that cannot even read its task writes it."""

    stage: Literal["preflight"] = "preflight"
    error: StageError
