"""The walk over the stage graph: start every stage whose inputs are committed, stop what is out of date. Pure.

An iteration starts when all stages of the one before are done and its gates are passed; training starts when
the gates on its pairs are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from srlm_contract.graph import Node, model_name
from srlm_contract.spec.policy import GatesSpec
from srlm_contract.status import StageStatus
from srlm_contract.tasks import ArtifactRef
from srlm_operator.jobs.job import Work

from . import gates
from .draft import PLAIN, Draft
from .figures import iteration_metrics
from .resolve import Resolved
from .stage import drive, new_record, stop


def walk(draft: Draft, resolved: Resolved, *, start: bool) -> Mapping[int, tuple[str, ...]]:
    """Bring every node one step on. Returns the missed gates by iteration.

    start: whether Jobs may be created (preflight is done, the budget is not spent).
    """
    missed: dict[int, tuple[str, ...]] = {}
    _drop_strangers(draft, resolved)
    by_iteration: dict[int, list[Node]] = {}
    for node in resolved.nodes:
        by_iteration.setdefault(node.iteration, []).append(node)
    open_, last = start, max(by_iteration)
    reached = True
    for t, nodes in by_iteration.items():
        if t in resolved.closed:
            continue
        train_open = open_
        stages = [draft.records[n.id] for n in nodes if n.id in draft.records and resolved.done(n)]
        before = [r for i, r in draft.records.items() if i.iteration == t - 1]
        metrics = iteration_metrics(stages, before)
        if t > 0 and all(resolved.done(n) for n in nodes if n.stage == "pairs"):
            missed[t] = gates.before_training(draft.spec.gates, metrics)
            trained = any(resolved.done(n) for n in nodes if n.stage == "train")
            if missed[t] and not trained and _stopped(draft, draft.spec.gates, t, missed[t]):
                train_open = False
        for node in nodes:
            if not resolved.done(node):
                _step(
                    draft,
                    resolved,
                    node,
                    start=train_open if node.stage == "train" else open_,
                    listed=reached,
                )
        if not all(resolved.done(n) for n in nodes):
            open_ = reached = False
            continue
        after = gates.before_next(draft.spec.gates, metrics, first=t == 0)
        missed[t] = tuple(dict.fromkeys((*missed.get(t, ()), *after)))
        if after and t < last and reached and _stopped(draft, draft.spec.gates, t, after):
            open_ = reached = False
    return missed


def _stopped(draft: Draft, policy: GatesSpec, t: int, missed: tuple[str, ...]) -> bool:
    """Whether missed gates end the walk here; then the run is stalled."""
    model = model_name(t)
    reason = gates.stops(policy, model, draft.run.annotations)
    if not reason:
        return False
    what = f"{model}: {'; '.join(missed)}"
    if reason == "Held":
        what += f". Annotate selfrewarding.dev/continue={model} to go on, or change the spec"
    draft.stall(reason, what)
    return True


def _step(draft: Draft, resolved: Resolved, node: Node, *, start: bool, listed: bool) -> None:
    record = draft.records.get(node.id)
    key = resolved.key(node)
    if key is None:
        _without_key(draft, node, record, listed)
        return
    work = _work(draft, resolved, node, key)
    if record is None or record.key != key:
        if record is not None and record.state == "Running":
            stop(draft, node.id, "Superseded", "the spec changed what this stage computes")
            record = draft.records[node.id]
        draft.records[node.id] = record = new_record(record, work)
    if record.shards != work.shards and record.attempt == 0:
        draft.records[node.id] = record = record.model_copy(update={"shards": work.shards})
    drive(draft, _with_record(work, record), start=start)


def _without_key(draft: Draft, node: Node, record: StageStatus | None, listed: bool) -> None:
    """Inputs are not committed (yet, or not any more)."""
    if record is not None:
        if record.state == "Running" and not any(r.repair for r in draft.records.values()):
            stop(draft, node.id, "Superseded", "an input of this stage has changed")
    elif listed:
        draft.records[node.id] = StageStatus(name=node.name, stage=node.stage, state="Pending", shards=node.shards)


def _work(draft: Draft, resolved: Resolved, node: Node, key: str) -> Work:
    stages = {n.id: n.stage for n in resolved.nodes}
    inputs = dict(node.artifacts)
    for name, source in node.inputs.items():
        outcome = resolved.outcome(source)
        assert outcome is not None  # the key exists, so every input is committed
        inputs[name] = ArtifactRef(stage=stages[source], key=outcome.key, content_digest=outcome.content_digest)
    pins = draft.preflight.pins
    assert pins is not None
    return Work(
        iteration=node.iteration,
        name=node.name,
        stage=node.stage,
        key=key,
        revision=(resolved.revisions or {})[node.id],
        params=node.params,
        inputs=inputs,
        sources=node.sources,
        shards=node.shards,
        round=node.round,
        pins=pins,
    )


def _with_record(work: Work, record: StageStatus) -> Work:
    """Shards stay those of the first attempt; a damaged artifact is repaired."""
    return replace(work, shards=record.shards, repair=record.repair)


def _drop_strangers(draft: Draft, resolved: Resolved) -> None:
    """Records of nodes that the spec no longer has. Finished stages of cut iterations stay, for their return."""
    wanted = {node.id for node in resolved.nodes} | set(PLAIN)
    for node_id, record in list(draft.records.items()):
        if node_id in wanted:
            continue
        if record.state == "Running":
            stop(draft, node_id, "Superseded", "the spec no longer has this stage")
        cut = node_id.iteration > draft.spec.iterations
        if not (cut and record.state == "Succeeded"):
            del draft.records[node_id]
