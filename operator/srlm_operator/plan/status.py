"""What was found and decided → status: iterations, models, figures, progress, within `MAX_STATUS_BYTES`. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping

from srlm_contract.figures import baseline_figures
from srlm_contract.graph import NodeId, model_name, model_node
from srlm_contract.spec.run import RunSpec
from srlm_contract.stages import BASELINES, READ_LATER
from srlm_contract.status import (
    DETAILED_ITERATIONS,
    MAX_MESSAGE,
    BaselineStatus,
    IterationMetrics,
    IterationStatus,
    ModelStatus,
    RunStatus,
    StageStatus,
)
from srlm_operator.times import stamp

from .conditions import conditions, phase
from .decisions import Draft
from .gates import iteration_metrics
from .progress import at_work, run_progress
from .resolve import Resolved
from .walk import Missed
from .world import CLEANUP, PLAIN, PREFLIGHT, REPORT, World

Stages = tuple[StageStatus, ...]
MAX_STATUS_BYTES = 64 * 1024
_KEPT_STATISTICS = ("pairs", "meanLength")
_MAIN_FIGURES = (
    "pairs", "parse_rate", "tie_rate", "mean_score", "mean_length", "answer_length", "judge_accuracy", "win_rate",
)  # fmt: skip
_LEAST_FIGURES = ("pairs", "judge_accuracy", "win_rate")


def build(world: World, draft: Draft, resolved: Resolved, missed: Missed) -> RunStatus:
    """The status that says what was found and decided."""
    old, decided, records = world.run.status, draft.decided, draft.records
    models = _models(world, draft, resolved)
    total = len(resolved.nodes)
    done = sum(resolved.done(node) for node in resolved.nodes)
    ready = total > 0 and done == total and not decided.stalls and draft.preflight.done
    suspended = world.spec.suspend and not ready
    order = {node.id: n for n, node in enumerate(resolved.nodes)}
    running = sorted((i for i, r in records.items() if r.state == "Running" and i in order), key=order.__getitem__)
    if not running and PREFLIGHT in records and records[PREFLIGHT].state == "Running":
        running = [PREFLIGHT]
    started = old.started_at or (stamp(world.now) if running else None)
    current = _iteration(world, resolved)
    status = RunStatus(
        observed_generation=world.run.generation,
        phase=phase(
            waits=decided.waits,
            stalls=decided.stalls,
            ready=ready,
            suspended=suspended,
            started=started is not None,
            active=bool(running),
        ),
        current_model=models[-1].name if models else "",
        iteration=current,
        stage=at_work(world, running[0], records[running[0]])[0].name if running else "",
        started_at=started,
        finished_at=(old.finished_at or stamp(world.now)) if ready else None,
        progress=run_progress(world, records, total, done, running),
        retry_token=world.retry_token or old.retry_token,
        preflight=draft.preflight,
        storage=world.run.storage_basis,
        preflight_stage=records.get(PREFLIGHT),
        report_stage=records.get(REPORT),
        report=old.report,
        cleanup_stage=records.get(CLEANUP),
        models=tuple(models),
        iterations=_iterations(world, draft, resolved, order, missed, current),
        baselines=_baselines(draft),
        gpu_seconds=round(old.gpu_seconds + decided.gpu_seconds, 1),
        tokens=old.tokens + decided.tokens,
        conditions=conditions(
            waits=decided.waits,
            stalls=decided.stalls,
            ready=ready,
            suspended=suspended,
            generation=world.run.generation,
            previous=old.conditions,
            now=world.now,
        ),
    )
    return fit(status, world.spec)


def _iteration(world: World, resolved: Resolved) -> int:
    """The first iteration with something left to do; the last one when all is done."""
    for node in resolved.nodes:
        if not resolved.done(node):
            return node.iteration
    return world.spec.iterations if resolved.nodes else world.run.status.iteration


def _models(world: World, draft: Draft, resolved: Resolved) -> list[ModelStatus]:
    """Finished models. Those of iterations that were cut off stay."""
    known = {model.name: model for model in world.run.status.models}
    found: list[ModelStatus] = []
    for t in range(world.spec.iterations + 1):
        model = _model(world, draft, resolved, t, known.get(model_name(t)))
        if model is None:
            break
        found.append(model)
    cut = [m for m in world.run.status.models if int(m.name[1:]) > world.spec.iterations + 1]
    return found + cut if not found or len(found) == world.spec.iterations + 1 else found


def _model(world: World, draft: Draft, resolved: Resolved, t: int, known: ModelStatus | None) -> ModelStatus | None:
    node_id = model_node(world.spec, t)
    moment = stamp(world.now)
    if node_id is None:
        return _outside(world, draft, known)
    outcome = resolved.outcome(node_id)
    if outcome is None:
        return None
    if known is not None and known.key == outcome.key and known.content_digest == outcome.content_digest:
        return known
    record = draft.records.get(node_id)
    stage = record.stage if record is not None else node_id.stage
    uri = f"{world.storage.uri.rstrip('/')}/artifacts/{stage}/{outcome.key}"
    created = (record.finished_at if record is not None else None) or moment
    return ModelStatus(
        name=model_name(t),
        uri=uri,
        key=outcome.key,
        stage=stage,
        content_digest=outcome.content_digest,
        created_at=created,
    )


def _outside(world: World, draft: Draft, known: ModelStatus | None) -> ModelStatus | None:
    """M1 that no stage of this run makes: the base model itself, or another run's model."""
    pins, branch = draft.preflight.pins, draft.preflight.branch
    if pins is None:
        return None
    created = known.created_at if known is not None else stamp(world.now)
    if branch is not None:
        uri = f"{world.storage.uri.rstrip('/')}/artifacts/{branch.stage}/{branch.key}"
        return ModelStatus(
            name="M1", uri=uri, key=branch.key, stage=branch.stage,
            content_digest=branch.content_digest, created_at=created,
        )  # fmt: skip
    base = pins.base_model
    uri = f"{base.uri}@{base.revision}" if base.uri.startswith("hf://") else base.uri
    return ModelStatus(name="M1", uri=uri, content_digest=base.revision, created_at=created)


def _iterations(
    world: World,
    draft: Draft,
    resolved: Resolved,
    order: Mapping[NodeId, int],
    missed: Missed,
    current: int,
) -> tuple[IterationStatus, ...]:
    old = world.run.status.iterations
    groups: dict[int, list[tuple[NodeId, StageStatus]]] = {}
    for node_id, record in draft.records.items():
        if node_id not in PLAIN:
            groups.setdefault(node_id.iteration, []).append((node_id, record))
    found: list[IterationStatus] = []
    for t in range(max([*groups, len(old) - 1, -1]) + 1):
        rows = sorted(groups.get(t, []), key=lambda row: order.get(row[0], len(order)))
        stages = [record for _, record in rows]
        if t in resolved.closed and t < len(old):
            found.append(old[t].model_copy(update={"stages": tuple(stages)}))
            continue
        before = [record for _, record in groups.get(t - 1, [])]
        closing = 0 < t <= current - DETAILED_ITERATIONS and draft.preflight.done
        found.append(
            IterationStatus(
                name=model_name(t),
                stages=_closed(stages, _kept(world.spec)) if closing else tuple(stages),
                metrics=iteration_metrics(stages, before),
                gates=tuple(text[:MAX_MESSAGE] for text in missed.get(t, ())),
            )
        )
    while found and not found[-1].stages and found[-1].metrics == IterationMetrics():
        found.pop()
    return tuple(found)


def _baselines(draft: Draft) -> tuple[BaselineStatus, ...]:
    found = ((name, draft.records.get(NodeId(0, node))) for node, name in BASELINES.items())
    return tuple(
        BaselineStatus(name=name, metrics=baseline_figures(record))
        for name, record in found
        if record is not None and record.state == "Succeeded"
    )


def _kept(spec: RunSpec) -> tuple[str, ...]:
    """Stages whose records a closed iteration keeps; with several rounds their number depends on the pairs."""
    rounds = ("pairs",) if spec.preferences.min_yield.max_rounds > 1 else ()
    # Lengths are compared with the model before: without an evaluation it is the candidates' that count.
    lengths = () if spec.evaluation.enabled else ("generate",)
    return (*READ_LATER, *rounds, *lengths)


def _closed(stages: Iterable[StageStatus], kept: tuple[str, ...]) -> tuple[StageStatus, ...]:
    return tuple(_short(stage) for stage in stages if stage.stage in kept)


def _short(record: StageStatus) -> StageStatus:
    return StageStatus(
        name=record.name,
        stage=record.stage,
        state=record.state,
        key=record.key,
        revision=record.revision,
        attempt=record.attempt,
        content_digest=record.content_digest,
        statistics={k: v for k, v in record.statistics.items() if k in _KEPT_STATISTICS},
    )


def size(status: RunStatus) -> int:
    """Bytes of the status as it is written."""
    return len(json.dumps(status.wire(defaults=False), separators=(",", ":")).encode())


def fit(status: RunStatus, spec: RunSpec) -> RunStatus:
    """Shorten the status until it fits: first failures' messages, then the details of ever younger iterations.

    An iteration whose model is finished can always be closed: what later stages read of it stays.
    """
    for keep in (200, 0):
        if size(status) <= MAX_STATUS_BYTES:
            return status

        def brief(_: int, stages: Stages, keep: int = keep) -> Stages:
            return tuple(_brief(stage, keep) for stage in stages)

        status = _with_stages(status, brief)
    for details in range(DETAILED_ITERATIONS - 1, 0, -1):
        if size(status) <= MAX_STATUS_BYTES or not status.preflight.done:
            return status
        last = min(status.iteration, len(status.models)) - details

        def close(t: int, stages: Stages, last: int = last) -> Stages:
            return _closed(stages, _kept(spec)) if 0 < t <= last else stages

        status = _with_stages(status, close)
    for figures in (_MAIN_FIGURES, _LEAST_FIGURES):
        status = _with_figures(status, figures)
    return status


def _with_figures(status: RunStatus, kept: tuple[str, ...]) -> RunStatus:
    """Last resort, from some 40 iterations on: the older keep some figures only, and what M1 is measured against."""

    def cut(metrics: IterationMetrics) -> IterationMetrics:
        return IterationMetrics(**{name: getattr(metrics, name) for name in kept})

    iterations = list(status.iterations)
    for t in range(len(iterations) - 1):
        excess = size(status) - MAX_STATUS_BYTES if t % 8 == 0 else 1  # measuring costs more than shortening
        if excess <= 0:
            break
        if t == 0:
            baselines = tuple(b.model_copy(update={"metrics": cut(b.metrics)}) for b in status.baselines)
            status = status.model_copy(update={"baselines": baselines})
        iterations[t] = iterations[t].model_copy(update={"metrics": cut(iterations[t].metrics)})
        status = status.model_copy(update={"iterations": tuple(iterations)})
    return status


def _with_stages(status: RunStatus, change: Callable[[int, Stages], Stages]) -> RunStatus:
    iterations = tuple(
        iteration.model_copy(update={"stages": change(t, iteration.stages)})
        for t, iteration in enumerate(status.iterations)
    )
    return status.model_copy(update={"iterations": iterations})


def _brief(stage: StageStatus, keep: int) -> StageStatus:
    failure = stage.last_failure
    if failure is None or len(failure.message) <= keep:
        return stage
    return stage.model_copy(update={"last_failure": failure.model_copy(update={"message": failure.message[:keep]})})
