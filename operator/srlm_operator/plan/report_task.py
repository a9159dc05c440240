"""What the report stage is told: spec, pins, and as much of the status as fits into its task. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from srlm_contract.spec.run import RunSpec
from srlm_contract.status import PreflightStatus, RunStatus
from srlm_contract.tasks import MAX_TASK_BYTES, ReportParams

#: Room in `SRLM_TASK` for everything beside spec and status: identity, storage, pins, branch.
_SPARE_BYTES = 12 * 1024
_SHORT_MESSAGE = 200
#: A report that takes longer hangs.
_DEADLINE_SECONDS = 1800

Json = dict[str, Any]


def report_params(full: RunSpec, preflight: PreflightStatus, status: RunStatus) -> ReportParams:
    """Parameters of a report about `status`, within the length that a task may have."""
    spec = without_pod_templates(full)
    room = MAX_TASK_BYTES - _SPARE_BYTES - _size(spec.wire(defaults=False))
    return ReportParams(
        spec=spec,
        status=shortened(status, room),
        pins=preflight.pins,
        branch=preflight.branch,
    )


def report_deadline(spec: RunSpec) -> int:
    """Seconds that one attempt may take."""
    return min(_DEADLINE_SECONDS, spec.failure_policy.stage_deadline_seconds)


def without_pod_templates(spec: RunSpec) -> RunSpec:
    """They say where pods run, not what is computed, may be long, and may hold what is not for a report's readers."""
    stages = {
        name: getattr(spec.stages, name).model_copy(update={"pod_template": {}})
        for name in type(spec.stages).model_fields
    }
    none: Json = {"pod_template": {}, "gpu_pod_template": {}}
    return spec.model_copy(update={**none, "stages": spec.stages.model_copy(update=stages)})


def shortened(status: RunStatus, room: int) -> Json:
    """`status` as plain JSON of at most `room` bytes.

    Least telling first: figures of stages (manifests have them), long messages, stages of the oldest iterations,
    addresses of models (they follow from stage and key). Then whole iterations and models, oldest first.
    """
    body = status.wire(defaults=False)
    preflight = body.get("preflight", {})
    for name in ("pins", "branch"):
        preflight.pop(name, None)
    for name in ("report", "reportStage", "cleanupStage"):
        body.pop(name, None)
    for cut in _cuts(body):
        if _size(body) <= room:
            break
        cut()
    return body


def _cuts(body: Json) -> Iterator[Callable[[], None]]:
    iterations: list[Json] = body.get("iterations", [])
    stages = [stage for iteration in iterations for stage in iteration.get("stages", [])]
    yield partial(_drop, stages, "statistics")
    yield partial(_shorten, [stage["lastFailure"] for stage in stages if "lastFailure" in stage])
    yield partial(_shorten, body.get("conditions", []))
    for iteration in iterations[:-1]:
        yield partial(_drop, [iteration], "stages")
    yield partial(_drop, body.get("models", []), "uri")
    yield partial(_drop, iterations, "stages")
    for iteration in iterations:
        yield partial(_drop, [iteration], "metrics")
    for name in ("models", "iterations", "preflight", "preflightStage"):
        yield partial(_drop, [body], name)


def _drop(items: Iterable[Json], name: str) -> None:
    for item in items:
        item.pop(name, None)


def _shorten(items: Iterable[Json]) -> None:
    for item in items:
        item["message"] = item.get("message", "")[:_SHORT_MESSAGE]


def _size(body: Json) -> int:
    """Bytes as `jobs` writes them into the task."""
    return len(json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode())
