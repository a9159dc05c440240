"""Which nodes a run has, what their keys are, and which are committed. Pure.

Status keeps stage details of the last iterations only. An older iteration is *closed*: its model stands in
`status.models`, what later stages read of it (prompts, evaluation, pairs) in short records, and it is trusted
as a whole. A preflight with a new key opens all iterations again, because it reports every committed node.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from srlm_contract.graph import Node, NodeId, Outcome, graph, model_node, node_key
from srlm_contract.spec.run import RunSpec
from srlm_contract.stages import STAGES
from srlm_contract.status import ModelStatus, StageStatus
from srlm_contract.tasks import ArtifactRef, Pins

from .world import Records


@dataclass(frozen=True)
class Resolved:
    """The graph of a run with keys and outcomes."""

    nodes: tuple[Node, ...] = ()
    keys: Mapping[str, str] = field(default_factory=dict)
    """Keys of the nodes whose inputs are committed."""
    revisions: Mapping[str, int] = field(default_factory=dict)
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)
    """Committed nodes."""
    closed: frozenset[int] = frozenset()

    def key(self, node: Node) -> str | None:
        return self.keys.get(node.id)

    def outcome(self, node_id: NodeId) -> Outcome | None:
        return self.outcomes.get(node_id)

    def done(self, node: Node) -> bool:
        return node.iteration in self.closed or self.outcome(node.id) is not None


def resolve(
    spec: RunSpec,
    pins: Pins,
    branch: ArtifactRef | None,
    records: Records,
    models: Mapping[str, ModelStatus],
    trust_closed: bool,
) -> Resolved:
    """Walk the graph until its rounds agree with what is committed."""
    closed = closed_iterations(spec, records, models) if trust_closed else frozenset()
    outcomes: dict[str, Outcome] = {}
    while True:
        nodes = graph(spec, pins, outcomes, branch)
        found, keys, revisions = _walk(spec, nodes, records, models, closed)
        fixed = spec.preferences.min_yield.max_rounds == 1
        if fixed or len(graph(spec, pins, found, branch)) == len(nodes):
            return Resolved(nodes, keys, revisions, found, closed)
        outcomes = found


def closed_iterations(spec: RunSpec, records: Records, models: Mapping[str, ModelStatus]) -> frozenset[int]:
    """Iterations whose model is finished and whose details are no longer kept."""
    found = set()
    for t in range(1, spec.iterations + 1):
        model = models.get(f"M{t + 1}")
        if model is not None and model.key and model_node(spec, t) not in records:
            found.add(t)
    return frozenset(found)


def _walk(
    spec: RunSpec,
    nodes: tuple[Node, ...],
    records: Records,
    models: Mapping[str, ModelStatus],
    closed: frozenset[int],
) -> tuple[dict[str, Outcome], dict[str, str], dict[str, int]]:
    found: dict[str, Outcome] = {}
    keys: dict[str, str] = {}
    revisions: dict[str, int] = {}
    for node in nodes:
        record = records.get(node.id)
        if node.iteration in closed:
            outcome = _trusted(spec, node, record, models)
            if outcome is not None:
                found[node.id] = outcome
            continue
        key, revision = _key(node, found, spec.seed, record)
        if key is None:
            continue
        keys[node.id], revisions[node.id] = key, revision
        if record is not None and record.state == "Succeeded" and record.key == key:
            found[node.id] = Outcome(key, record.content_digest, record.statistics)
    return found, keys, revisions


def _key(node: Node, found: Mapping[str, Outcome], seed: int, record: StageStatus | None) -> tuple[str | None, int]:
    """A record keeps the revision it was made with: a newer operator re-keys nothing that exists."""
    if record is not None and record.key:
        key = node_key(node, found, seed, record.revision)
        if key == record.key:
            return key, record.revision
    revision = STAGES[node.stage].revision
    return node_key(node, found, seed, revision), revision


def _trusted(
    spec: RunSpec, node: Node, record: StageStatus | None, models: Mapping[str, ModelStatus]
) -> Outcome | None:
    if node.id == model_node(spec, node.iteration):
        model = models[f"M{node.iteration + 1}"]
        return Outcome(model.key, model.content_digest)
    if record is None or record.state != "Succeeded":
        return None
    return Outcome(record.key, record.content_digest, record.statistics)
