"""Finds out which artifacts of a run exist already, by walking the stage graph key by key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from srlm_contract.artifacts.artifacts import ArtifactStore
from srlm_contract.artifacts.manifest import Manifest
from srlm_contract.errors import ArtifactDamaged
from srlm_contract.graph import Node, Outcome, graph, node_key
from srlm_contract.spec.run import RunSpec
from srlm_contract.tasks import MAX_RESULT_BYTES, ArtifactRef, Committed, Pins, StageResult

from ..runtime.statistics import figures
from ..runtime.termination import encoded

#: Room kept free in the termination message for what the entry adds.
SPARE_BYTES = 256


@dataclass
class Found:
    """Committed nodes in graph order, with their manifests, and damaged ones in words."""

    committed: list[tuple[Node, Manifest]] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)


def find_committed(artifacts: ArtifactStore, spec: RunSpec, pins: Pins, branch: ArtifactRef | None) -> Found:
    """Look up every node whose inputs are committed. A damaged manifest counts as not committed: its stage
    finds the damage itself and repairs it."""
    found = Found()
    outcomes: dict[str, Outcome] = {}
    seen: set[str] = set()
    while True:
        # The graph may grow with what is found: an iteration with too few pairs has further rounds.
        new = [n for n in graph(spec, pins, outcomes, branch) if n.id not in seen]
        keyed = ((n, key) for n in new if (key := node_key(n, outcomes, spec.seed)) is not None)
        node, key = next(keyed, (None, ""))
        if node is None:
            return found
        seen.add(node.id)
        try:
            manifest = artifacts.lookup(node.stage, key)
        except ArtifactDamaged as error:
            found.damaged.append(f"{node.id} will be made again: {error}")
            continue
        if manifest is not None:
            outcomes[node.id] = Outcome(key, manifest.content_digest, figures(manifest.statistics))
            found.committed.append((node, manifest))


def fit(result: StageResult, found: Found, known: Mapping[str, str]) -> StageResult:
    """`result` with as many committed nodes as the termination message holds; `more` when some are left out.

    known: content digests by node id that the operator has already; they are not told again.
    """
    committed: list[Committed] = []
    for node, manifest in found.committed:
        if known.get(node.id) == manifest.content_digest:
            continue
        entry = Committed(
            node=node.id,
            key=manifest.key,
            content_digest=manifest.content_digest,
            statistics=_short(figures(manifest.statistics)),
        )
        longer = result.model_copy(update={"committed": (*committed, entry), "more": True})
        if committed and len(encoded(longer)) > MAX_RESULT_BYTES - SPARE_BYTES:
            return result.model_copy(update={"committed": tuple(committed), "more": True})
        committed.append(entry)
    return result.model_copy(update={"committed": tuple(committed)})


def _short(statistics: Mapping[str, float]) -> dict[str, float]:
    """Figures for status and gates: without counts of causes, six digits."""
    return {
        name: float(f"{value:.6g}")
        for name, value in statistics.items()
        if not name.startswith("dropped") and not name.endswith("Sum")
    }
