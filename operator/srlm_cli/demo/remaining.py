"""How long the rest of the demo takes: what its stages usually take, at the pace of this machine so far."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from srlm_contract.graph import NodeId
from srlm_contract.status import RunStatus, StageStatus
from srlm_operator.times import parse

#: Seconds of each stage on two AVX2 cores: only their proportions matter once the first stages are done.
FIRST: Mapping[str, float] = {
    "data": 9, "sft-ift": 115, "judge-ranked": 105, "select": 3, "sft": 85, "judge-heldout": 48, "evaluate": 20,
    "evaluate-m0": 80,
}  # fmt: skip
LATER: Mapping[str, float] = {
    "prompts": 35, "generate": 25, "judge": 55, "pairs": 3, "train": 90, "judge-heldout": 52, "evaluate": 43,
}  # fmt: skip
#: How much the usual times count beside those seen, in seconds: the first short stages say little.
PRIOR_SECONDS = 60.0


def usual_seconds(iterations: int) -> dict[NodeId, float]:
    """Seconds by node id, such as `1/judge`, for a whole run."""
    found = {NodeId(0, name): seconds for name, seconds in FIRST.items()}
    for iteration in range(1, iterations + 1):
        found |= {NodeId(iteration, name): seconds for name, seconds in LATER.items()}
    return found


def seconds_left(status: RunStatus, iterations: int, now: datetime) -> float:
    """Seconds until the last stage is done. A stage that takes longer than usual lengthens those to come, too."""
    usual = usual_seconds(iterations)
    records = {NodeId(n, s.name): s for n, iteration in enumerate(status.iterations) for s in iteration.stages}
    _in_one_job(usual, records)
    took = expected = PRIOR_SECONDS
    for node, record in records.items():
        spent = _spent(record, now)
        if node not in usual or spent is None:
            continue
        if record.state == "Succeeded" or spent > usual[node]:  # of a running one this is a lower bound
            took, expected = took + spent, expected + usual[node]
    pace = took / expected
    left = 0.0
    for node, seconds in usual.items():
        known = records.get(node)
        if known is None or known.state == "Pending":
            left += seconds * pace
        elif known.state != "Succeeded":
            left += max(0.0, seconds * pace - (_spent(known, now) or 0.0))
    return max(left, status.progress.eta_seconds or 0.0)  # the whole takes no less than this stage


def _in_one_job(usual: dict[NodeId, float], records: Mapping[NodeId, StageStatus]) -> None:
    """What a running Job does behind its own stage belongs to the time of that stage until the Job has ended."""
    leads = {record.job: node for node, record in records.items() if record.state == "Running" and node in usual}
    for node, record in records.items():
        if record.state == "Pending" and record.job in leads and node in usual:
            usual[leads[record.job]] += usual.pop(node)


def _spent(record: StageStatus, now: datetime) -> float | None:
    """Seconds since a stage began, or that it took."""
    began = parse(record.started_at)
    if began is None or record.reused:
        return None
    return max(0.0, ((parse(record.finished_at) or now) - began).total_seconds())
