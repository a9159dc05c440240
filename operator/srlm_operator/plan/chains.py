"""Chains: stages that one Job runs one after the other, as they ask the same model with the same engine. Pure.

The stage of the Job leads; its record is that of the Job. Those behind it stay Pending until the Job has ended: then
its pods tell what of the chain is committed, and whatever is missing begins in a Job of its own, which says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from srlm_contract.graph import Node, NodeId
from srlm_contract.stages import BASELINES, INFERENCE, STAGES
from srlm_contract.status import StageStatus
from srlm_contract.tasks import ArtifactRef, ChainedResult, Link
from srlm_operator.jobs.job import link_digest
from srlm_operator.jobs.resources import one_pod
from srlm_operator.times import stamp
from srlm_operator.values import CreateJob, JobView

from . import gates
from .attempts import missing_shards
from .decisions import NOTHING, Decisions, succeeded
from .progress import at_work
from .resolve import Resolved
from .world import Records, World


def chain_of(world: World, resolved: Resolved, records: Records, lead: Node, record: StageStatus) -> tuple[Link, ...]:
    """What the next Job of `lead`, a node with a key and this record, does behind it.

    Each link waits for another one, or for the end of the iteration that they complete; the others may as well begin
    at once. Nothing else waits longer for the chain: it ends where a gate could stop the run.
    """
    if world.spec.scheduling.chain == "Off" or not _asks(lead) or record.repair or missing_shards(record):
        return ()
    if record.counted_failures or record.stalled_since:
        return ()  # what has failed may have failed for want of what a chain takes more
    links: dict[NodeId, Link] = {}
    behind = resolved.nodes[resolved.nodes.index(lead) + 1 :]
    for node in behind:
        if node.iteration > lead.iteration and not _goes_on(world, resolved, {lead.id, *links}, node.iteration):
            break
        if not _fits(world, lead, record, node) or resolved.done(node):
            continue
        if _tried(records.get(node.id), resolved.key(node)):
            continue
        link = _link(resolved, node, {lead.id, *links})
        if link is not None and (link.awaited or node.iteration > lead.iteration):
            links[node.id] = link
    return tuple(links.values())


def _asks(node: Node) -> bool:
    """Whether it asks one model all along, with an engine; what asks an external judge needs its secrets too, and an
    image of the spec may be of a version that knows no chains."""
    external = getattr(node.params, "external", None)
    models = {*node.inputs, *node.artifacts, *node.sources}
    alone = node.image or (external is not None and external.url)
    return node.stage in INFERENCE and "model" in models and not alone


def _fits(world: World, lead: Node, record: StageStatus, node: Node) -> bool:
    """Whether a node asks the same model as the lead, in the same way, in pods that look alike."""
    return (
        _asks(node)
        and _model(node) == _model(lead)
        and getattr(node.params, "engine", None) == getattr(lead.params, "engine", None)
        and node.shards == record.shards
        and one_pod(lead, node, world.spec, world.settings)
    )


def _model(node: Node) -> object:
    return node.inputs.get("model"), node.artifacts.get("model"), node.sources.get("model")


def _tried(record: StageStatus | None, key: str | None) -> bool:
    """Whether an attempt of its own runs, or has ended badly with the inputs that are committed."""
    if record is None:
        return False
    return record.state == "Running" or record.repair or (record.key == key and record.last_failure is not None)


def _goes_on(world: World, resolved: Resolved, chained: set[NodeId], iteration: int) -> bool:
    """Whether an iteration follows, come what may, once what is chained is done."""
    spec, before = world.spec, [node for node in resolved.nodes if node.iteration < iteration]
    over = all(resolved.done(n) or n.id in chained or n.name in BASELINES for n in before)
    # GPU-seconds are looked at all the time, tokens only when a Job has ended.
    return over and spec.budget.tokens is None and not gates.may_stop(spec.gates, first=iteration == 1)


def _link(resolved: Resolved, node: Node, chained: set[NodeId]) -> Link | None:
    """None where an input is neither committed nor chained."""
    inputs, awaited = dict(node.artifacts), dict[str, str]()
    stages = {n.id: n.stage for n in resolved.nodes}
    for name, source in node.inputs.items():
        outcome = resolved.outcome(source)
        if outcome is not None:
            inputs[name] = ArtifactRef(stage=stages[source], key=outcome.key, content_digest=outcome.content_digest)
        elif source in chained:
            awaited[name] = str(source)
        else:
            return None
    revision = resolved.revisions.get(node.id, STAGES[node.stage].revision)
    return _plain(node).model_copy(update={"inputs": inputs, "awaited": awaited, "revision": revision})


def _plain(node: Node) -> Link:
    """Without what it reads of this run."""
    return Link(
        iteration=node.iteration, node=node.name, stage=node.stage, round=node.round, params=node.params,
        sources=dict(node.sources), image=node.image,
    )  # fmt: skip


def outdated(world: World, resolved: Resolved, lead: Node, record: StageStatus) -> bool:
    """Whether the Job of a lead has come to a link that the spec does not ask for any more. The lead is committed."""
    job = world.job(record.job) if record.state == "Running" else None
    if job is None or not job.chain:
        return False
    node_id, _ = at_work(world, lead.id, record)
    wanted = {node.id: node for node in resolved.nodes}.get(node_id)
    return node_id != lead.id and (wanted is None or link_digest(_plain(wanted)) != job.chain[node_id])


def settle(
    world: World, records: Records, lead: StageStatus, chained: Sequence[ChainedResult], spent: float
) -> tuple[StageStatus, Records, Decisions]:
    """The record of a lead that is committed, with its part of time and cost, and the records of its links.

    spent: GPU-seconds of the attempt, which the record of the lead has already. What a person or another Job has begun
    anew meanwhile stays as it is; whether a key is that of the spec is for the walk to see.
    """
    pods = world.pods(lead.job)
    spans = [((p.finished_at or world.now) - p.started_at).total_seconds() for p in pods if p.started_at]
    ran = left = max(spans, default=0.0)
    end, found, decided = world.now, dict[NodeId, StageStatus](), NOTHING
    for item in reversed(chained):
        took = min(item.seconds, left)
        left -= took
        node_id, finish, end = NodeId.parse(item.node), end, end - timedelta(seconds=took)
        old = records.get(node_id)
        if old is not None and (old.state == "Running" or old.repair or _known(old, item)):
            continue
        cost = spent * took / ran if ran else 0.0
        lead = lead.model_copy(update={"gpu_seconds": lead.gpu_seconds - cost})
        found[node_id] = StageStatus(
            name=node_id.name,
            stage=node_id.stage,
            state="Succeeded",
            key=item.key,
            revision=item.revision,
            job=lead.job,
            attempt=max(old.attempt if old is not None else 0, world.last_attempt(node_id)) + 1,
            shards=lead.shards,
            reused=item.reused and not lead.disruptions,
            content_digest=item.content_digest,
            statistics=item.statistics,
            started_at=stamp(end),
            attempt_started_at=stamp(end),
            finished_at=stamp(finish),
            gpu_seconds=cost,
        )
        decided = succeeded(node_id, item.statistics) + decided
    return lead.model_copy(update={"finished_at": stamp(end)}), found, decided


def unheard(world: World, records: Records, record: StageStatus, job: JobView | None) -> bool:
    """Whether nothing is left of what the pods of a chain have told: the lead may be committed, and a link have failed.

    At a deadline, and when somebody deletes a Job, its pods are gone before it has ended.
    """
    waiting = [other for other in records.values() if other.state == "Pending" and other.job == record.job]
    links = job.chain if job is not None else waiting
    return bool(links) and not any(pod.message for pod in world.pods(record.job))


def _known(old: StageStatus, item: ChainedResult) -> bool:
    return old.state == "Succeeded" and old.key == item.key


def announce(world: World, records: Records, decided: Decisions, resolved: Resolved) -> dict[NodeId, StageStatus]:
    """With the Job that will come to it in the record of every stage that waits in a chain."""
    chains = {job.name: job.chain for job in world.jobs()}
    chains |= {action.name: action.chain for action in decided.actions if isinstance(action, CreateJob)}
    holders = {
        node_id: record.job
        for record in records.values()
        if record.state == "Running"
        for node_id in chains.get(record.job, ())
    }
    missing = [node for node in resolved.nodes if node.id in holders and node.id not in records]
    found = dict(records) | {
        node.id: StageStatus(name=node.name, stage=node.stage, state="Pending", shards=node.shards) for node in missing
    }
    for node_id, record in found.items():
        job = holders.get(node_id, record.job if record.attempt else "")
        if record.state == "Pending" and record.job != job:
            found[node_id] = record.model_copy(update={"job": job})
    return found
