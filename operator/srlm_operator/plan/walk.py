"""The walk over the stage graph: start every stage whose inputs are committed, stop what is out of date. Pure.

An iteration starts when all stages of the one before are done and its gates are passed; training starts when
the gates on its pairs are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from srlm_contract.graph import Node, NodeId, model_name
from srlm_contract.status import StageStatus
from srlm_contract.tasks import ArtifactRef, Pins
from srlm_operator.jobs.job import Work

from . import chains, gates
from .decisions import NOTHING, Decisions, Step, stall, wake
from .resolve import Resolved
from .stage import drive, new_record, stop
from .world import PLAIN, Records, World

Missed = Mapping[int, tuple[str, ...]]
"""The missed gates by iteration."""


@dataclass(frozen=True)
class Walked:
    """Every node brought one step on."""

    records: Records
    decided: Decisions
    missed: Missed


def walk(world: World, records: Records, pins: Pins, resolved: Resolved, *, start: bool) -> Walked:
    """Bring every node one step on.

    start: whether Jobs may be created (preflight is done, the budget is not spent).
    """
    missed: dict[int, tuple[str, ...]] = {}
    current, decided = _without_strangers(world, records, resolved)
    by_iteration: dict[int, list[Node]] = {}
    for node in resolved.nodes:
        by_iteration.setdefault(node.iteration, []).append(node)
    open_, last = start, max(by_iteration)
    reached = True
    for t, nodes in by_iteration.items():
        if t in resolved.closed:
            continue
        train_open = open_
        stages = [current[n.id] for n in nodes if n.id in current and resolved.done(n)]
        before = [r for i, r in current.items() if i.iteration == t - 1]
        metrics = gates.iteration_metrics(stages, before)
        if t > 0 and all(resolved.done(n) for n in nodes if n.stage == "pairs"):
            missed[t] = gates.before_training(world.spec.gates, metrics)
            trained = any(resolved.done(n) for n in nodes if n.stage == "train")
            stopped = NOTHING if trained else _stopped(world, t, missed[t])
            decided += stopped
            train_open = open_ and not stopped.stalls
        for node in nodes:
            if resolved.done(node):
                continue
            may_start = train_open if node.stage == "train" else open_
            step = _step(world, current, pins, resolved, node, start=may_start, listed=reached)
            if step is not None:
                current[node.id] = step.record
                decided += step.decided
        if not all(resolved.done(n) for n in nodes):
            open_ = reached = False
            continue
        after = gates.before_next(world.spec.gates, metrics, first=t == 0)
        missed[t] = tuple(dict.fromkeys((*missed.get(t, ()), *after)))
        if t < last and reached:
            stopped = _stopped(world, t, after)
            decided += stopped
            if stopped.stalls:
                open_ = reached = False
    return Walked(chains.announce(world, current, decided, resolved), decided, missed)


def _stopped(world: World, t: int, missed: tuple[str, ...]) -> Decisions:
    """Stalled if missed gates end the walk here."""
    model = model_name(t)
    reason = gates.stops(world.spec.gates, model, world.run.annotations) if missed else ""
    if not reason:
        return NOTHING
    what = f"{model}: {'; '.join(missed)}"
    if reason == "Held":
        what += f". Annotate selfrewarding.dev/continue={model} to go on, or change the spec"
    return stall(reason, what)


def _step(
    world: World, records: Records, pins: Pins, resolved: Resolved, node: Node, *, start: bool, listed: bool
) -> Step | None:
    """One node; None where there is no record of it, and none is wanted yet."""
    record = records.get(node.id)
    key = resolved.key(node)
    if key is None:
        return _without_key(world, records, node, record, listed)
    work = _work(resolved, pins, node, key)
    if record is not None and record.key != key and record.state == "Running":
        # Its end is written down under its own key; the next look begins with the new one.
        stopped = stop(world, node.id, record, "Superseded", "the spec changed what this stage computes")
        return stopped.after(wake(world.now))
    if record is not None and record.key == key and chains.outdated(world, resolved, node, record):
        why = "the spec changed what its Job does next"
        return stop(world, node.id, record, "Superseded", why).after(wake(world.now))
    if record is None or record.key != key:
        record = new_record(record, work)
    if record.shards != work.shards and record.attempt == 0:
        record = record.model_copy(update={"shards": work.shards})
    # Shards stay those of the first attempt; a damaged artifact is repaired.
    work = replace(work, shards=record.shards, repair=record.repair)
    if start and record.state not in ("Running", "Succeeded"):
        work = replace(work, chain=chains.chain_of(world, resolved, records, node, record))
    return drive(world, work, record, start=start)


def _without_key(world: World, records: Records, node: Node, record: StageStatus | None, listed: bool) -> Step | None:
    """Inputs are not committed (yet, or not any more)."""
    if record is None:
        pending = StageStatus(name=node.name, stage=node.stage, state="Pending", shards=node.shards)
        return Step(pending) if listed else None
    if any(r.repair for r in records.values()):
        return None
    return stop(world, node.id, record, "Superseded", "an input of this stage has changed")


def _work(resolved: Resolved, pins: Pins, node: Node, key: str) -> Work:
    stages = {n.id: n.stage for n in resolved.nodes}
    inputs = dict(node.artifacts)
    for name, source in node.inputs.items():
        outcome = resolved.outcomes[source]  # the key exists, so every input is committed
        inputs[name] = ArtifactRef(stage=stages[source], key=outcome.key, content_digest=outcome.content_digest)
    return Work(
        iteration=node.iteration,
        name=node.name,
        stage=node.stage,
        key=key,
        revision=resolved.revisions[node.id],
        params=node.params,
        inputs=inputs,
        sources=node.sources,
        shards=node.shards,
        round=node.round,
        pins=pins,
    )


def _without_strangers(
    world: World, records: Records, resolved: Resolved
) -> tuple[dict[NodeId, StageStatus], Decisions]:
    """Records of nodes that the spec still has. Finished stages of cut iterations stay, for their return, and others
    until their Job is removed: without a record it would be adopted."""
    wanted = {node.id for node in resolved.nodes} | set(PLAIN)
    kept: dict[NodeId, StageStatus] = {}
    decided = NOTHING
    for node_id, record in records.items():
        cut = node_id.iteration > world.spec.iterations
        if node_id in wanted or (cut and record.state == "Succeeded"):
            kept[node_id] = record
            continue
        stopped = stop(world, node_id, record, "Superseded", "the spec no longer has this stage")
        decided += stopped.decided
        job = world.job(record.job)
        if job is not None and not job.ended and job.node_id == node_id:
            kept[node_id] = stopped.record
            decided += wake(world.now)
    return kept, decided
