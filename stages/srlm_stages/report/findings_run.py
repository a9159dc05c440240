"""Findings about the run as a whole: why it stands still, what was missed, how much stands behind its figures."""

from __future__ import annotations

import re
from collections.abc import Iterator

from srlm_contract.graph import model_name
from srlm_contract.reasons import FAILURES, STALLED, WAITING, advised, remedy
from srlm_contract.scorers import SCORERS

from .collect import Collected
from .figures import Figures
from .finding import Finding, Level

#: The gate that a text of `status.iterations[].gates` names.
_GATE = re.compile(r"\bgates\.(\w+)")
#: Judge measures over fewer human-ordered pairs, and win rates over fewer comparisons, are noise.
FEW_PAIRS = 100
FEW_COMPARISONS = 50


def state(found: Collected) -> Iterator[Finding]:
    """Conditions and failures, with what to do."""
    status = found.status
    for condition in status.conditions:
        if condition.type == "Stalled" and condition.status == "True":
            yield Finding(
                "error", f"The run is stalled: {condition.reason}", _advice(condition.reason, condition.message)
            )
        elif condition.type == "Reconciling" and condition.status == "True" and condition.reason != "Progressing":
            yield Finding("note", f"The run waits: {condition.reason}", _advice(condition.reason, condition.message))
    singles = [("preflight", status.preflight_stage), ("report", status.report_stage)]
    records = [(s.id, s.record) for s in found.stages if s.manifest is None] + singles
    for name, record in records:
        if record is None or record.last_failure is None or record.state not in ("Failed", "Retrying"):
            continue
        failure = record.last_failure
        level: Level = "error" if record.state == "Failed" else "warning"
        what = "failed" if record.state == "Failed" else "is tried again"
        yield Finding(
            level,
            f"{name} {what}: {failure.reason}",
            f"Attempt {record.attempt}. {_advice(failure.reason, failure.message)}",
        )
    for warning in status.preflight.warnings:
        yield Finding("warning", "Preflight warns", warning)


def _advice(reason: str, message: str) -> str:
    """The message and what to do, which messages of conditions end with and those of failures do not."""
    if not message:
        return STALLED.get(reason) or FAILURES.get(reason) or WAITING.get(reason) or ""
    return advised(message, FAILURES.get(reason) or remedy(reason))


def gates(found: Collected) -> Iterator[Finding]:
    for record in found.status.iterations:
        for gate in record.gates:
            named = _GATE.search(gate)
            yield Finding("warning", "A gate is missed by", gate, record.name, named[1] if named else "")


def few_pairs(figures: Figures) -> Iterator[Finding]:
    """One note for all models whose judge measures stand on little."""
    few = {m.name: m.judge["pairwise"].n for m in figures.models if m.judge and m.judge["pairwise"].n < FEW_PAIRS}
    if few:
        stated = ", ".join(f"{name} {n}" for name, n in few.items())
        yield Finding(
            "note",
            "Few human-ordered pairs stand behind the judge measures",
            f"{stated}; look at the intervals, and raise seedData.eft.heldOutExamples to say more.",
        )


def few_comparisons(figures: Figures) -> Iterator[Finding]:
    """One note for all win rates that stand on little."""
    few = {
        f"{m.name} against {r.opponent}": r.compared
        for m in figures.models
        for r in m.against.values()
        if r.compared < FEW_COMPARISONS
    }
    if few:
        stated = ", ".join(f"{name} {n}" for name, n in few.items())
        yield Finding(
            "note",
            "Few comparisons stand behind the win rates",
            f"{stated}; raise evaluation.winRate.prompts to say more.",
        )


def recipe(found: Collected, figures: Figures) -> Iterator[Finding]:
    """Choices of the recipe that a reader must know to compare figures."""
    spec = found.spec
    remark = SCORERS[spec.judging.scorer].remark
    if remark is not None:
        yield Finding("note", *remark)
    if any(m.against for m in figures.models) and spec.evaluation.win_rate.judge.source != "External":
        judge = spec.evaluation.win_rate.judge.source
        name = {"Bootstrap": model_name(0), "Current": "each model itself", "Fixed": "a fixed model"}[judge]
        yield Finding(
            "note",
            f"Win rates are judged by {name}, not by people",
            "They compare models of this run with each other, in both orders, and nothing else.",
        )
