"""What the report stage is told: spec, pins, and as much of the status as fits into its task. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from srlm_contract.spec import RunSpec
from srlm_contract.status import RunStatus
from srlm_contract.tasks import MAX_TASK_BYTES, ReportParams

from .draft import Draft

#: Room in `SRLM_TASK` for everything beside spec and status: identity, storage, pins, branch.
_SPARE_BYTES = 12 * 1024
_SHORT_MESSAGE = 200

Json = dict[str, Any]


def report_params(draft: Draft, status: RunStatus) -> ReportParams:
    """Parameters of a report about `status`, within the length that a task may have."""
    spec = without_pod_templates(draft.spec)
    room = MAX_TASK_BYTES - _SPARE_BYTES - _size(spec.wire(defaults=False))
    return ReportParams(
        spec=spec,
        status=shortened(status, room),
        pins=draft.preflight.pins,
        branch=draft.preflight.branch,
    )


def without_pod_templates(spec: RunSpec) -> RunSpec:
    """They say where pods run, not what is computed, may be long, and may hold what is not for a report's readers."""
    stages = {
        name: getattr(spec.stages, name).model_copy(update={"pod_template": {}})
        for name in type(spec.stages).model_fields
    }
    return spec.model_copy(update={"pod_template": {}, "stages": spec.stages.model_copy(update=stages)})


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


def _cuts(body: Json) -> Iterator[Callable[[], object]]:
    iterations: list[Json] = body.get("iterations", [])
    models: list[Json] = body.get("models", [])
    stages = [stage for iteration in iterations for stage in iteration.get("stages", [])]
    yield lambda: [stage.pop("statistics", None) for stage in stages]
    yield lambda: [_short(failure) for stage in stages if (failure := stage.get("lastFailure"))]
    yield lambda: [_short(condition) for condition in body.get("conditions", [])]
    for iteration in iterations[:-1]:
        yield lambda iteration=iteration: iteration.pop("stages", None)
    yield lambda: [model.pop("uri", None) for model in models]
    yield lambda: [iteration.pop("stages", None) for iteration in iterations]
    for iteration in iterations:
        yield lambda iteration=iteration: iteration.pop("metrics", None)
    for name in ("models", "iterations", "preflight", "preflightStage"):
        yield lambda name=name: body.pop(name, None)


def _short(item: Json) -> None:
    item["message"] = item.get("message", "")[:_SHORT_MESSAGE]


def _size(body: Json) -> int:
    """Bytes as `jobs` writes them into the task."""
    return len(json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode())
