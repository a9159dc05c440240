"""Preflight: what is outside, and what is committed already. Pure.

It runs at the start, after a spec change that matters and after lost status. It reports committed artifacts in
portions of one termination message each; while there are more it runs again with those known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from srlm_contract.base import Contract
from srlm_contract.graph import NodeId, Outcome
from srlm_contract.keys import canonical_json, sha256
from srlm_contract.spec.marks import PreflightIgnores
from srlm_contract.spec.run import RunSpec
from srlm_contract.stages import StageName
from srlm_contract.status import MAX_MESSAGE, PreflightStatus, StageStatus
from srlm_contract.tasks import ArtifactRef, Committed, Pins, PreflightParams, SourceRef, StageResult
from srlm_operator.jobs.job import Work
from srlm_operator.times import stamp

from .decisions import NOTHING, Draft, Note, normal, wake, warn
from .stage import drive, new_record, stop
from .world import PREFLIGHT, Records, World


def preflight_key(spec: RunSpec, branch: ArtifactRef | None) -> str:
    """Hash of the part of the spec that preflight checks: all fields without the mark `PreflightIgnores`."""
    # An empty section and a missing one are the same.
    looked_at = _looked_at(spec, spec.wire(defaults=False))
    body = {name: value for name, value in looked_at.items() if value not in ({}, None)}
    body["branch"] = branch.wire() if branch else {}
    if checked := _sizes(spec):
        body["sizes"] = checked
    return sha256(canonical_json(body))[7:31]


def _looked_at(part: Contract, body: Mapping[str, Any]) -> dict[str, Any]:
    """What `body`, a part of the spec as it is written, has at any depth without the ignored fields."""
    kept: dict[str, Any] = {}
    for alias, value, ignored in _fields(part):
        if ignored or alias not in body:
            continue
        if not isinstance(value, Contract) or not body[alias]:
            kept[alias] = body[alias]
        elif inner := _looked_at(value, body[alias]):
            kept[alias] = inner
    return kept


def _fields(part: Contract) -> Iterator[tuple[str, Any, bool]]:
    """(name as it is written, value, whether preflight ignores it) of every field."""
    for name, field in type(part).model_fields.items():
        yield field.alias or name, getattr(part, name), PreflightIgnores() in field.metadata


def _sizes(spec: RunSpec) -> Mapping[str, Any]:
    """What the memory of GPUs is checked against; empty where it is not known, and nothing is checked."""
    limits = {
        name: stage["resources"].get("limits", {})
        for name, stage in spec.stages.wire(defaults=False).items()
        if stage.get("resources")
    }
    known = {name: found for name, found in limits.items() if any("/mig-" in resource for resource in found)}
    if not spec.scheduling.gpu_memory and not known:
        return {}
    training = spec.training.wire(defaults=False)
    spread = {name: training[name] for name, _, ignored in _fields(spec.training) if ignored and name in training}
    return {"gpuMemory": spec.scheduling.gpu_memory or "", "limits": limits, "training": spread}


def resolve_branch(world: World, preflight: PreflightStatus) -> PreflightStatus | Note:
    """With the model of branchFrom pinned; or why it cannot be found."""
    source = world.spec.branch_from
    if not source.run:
        return preflight.model_copy(update={"branch_from": "", "branch": None})
    wanted = f"{source.run}/{source.model}"
    if preflight.branch is not None and preflight.branch_from == wanted:
        return preflight
    found = world.observed.branch
    if found is None:
        return Note("BranchNotFound", world.observed.branch_error or f"branchFrom: {wanted} does not exist")
    stage: StageName = found.stage  # type: ignore[assignment]  # written by this operator
    branch = ArtifactRef(stage=stage, key=found.key, content_digest=found.content_digest)
    return preflight.model_copy(update={"branch_from": wanted, "branch": branch})


def take_result(world: World, draft: Draft, result: StageResult | None) -> Draft | None:
    """The draft with the answer of a preflight that has just ended; None when there is none to take over."""
    if result is None or result.pins is None:
        return None
    before = draft.preflight
    key = preflight_key(world.spec, before.branch)
    # An answer to an older spec is dropped; status may have missed that the question was asked at all.
    if before.key != key and draft.records[PREFLIGHT].key != _job_key(key, {}):
        return None
    new = _committed(world, draft.records, result.committed)
    after = PreflightStatus(
        key=key,
        done=not (result.more and new),
        checked_at=stamp(world.now),
        pins=result.pins,
        warnings=tuple(w[:MAX_MESSAGE] for w in result.warnings[:16]),
        branch_from=before.branch_from,
        branch=before.branch,
    )
    decided = normal("ArtifactsReused", f"{len(result.committed)} committed artifacts found") if new else NOTHING
    for warning in result.warnings if before.warnings != after.warnings else ():
        decided += warn("PreflightWarning", warning)
    return Draft({**draft.records, **new}, after, draft.decided + decided)


def _committed(world: World, records: Records, committed: tuple[Committed, ...]) -> Records:
    """Records for artifacts that exist already, where there is none yet."""
    new: dict[NodeId, StageStatus] = {}
    for item in committed:
        node_id = NodeId.parse(item.node)
        record = records.get(node_id)
        if record is not None and record.key == item.key and (record.state == "Succeeded" or record.repair):
            continue
        if record is not None and record.key == item.key and record.state == "Running" and _chained(world, record):
            continue  # what it has committed itself, and its Job goes on
        new[node_id] = StageStatus(
            name=node_id.name,
            stage=node_id.stage,
            state="Succeeded",
            key=item.key,
            reused=True,
            attempt=record.attempt if record else world.last_attempt(node_id),
            content_digest=item.content_digest,
            statistics=item.statistics,
        )
    return new


def _chained(world: World, record: StageStatus) -> bool:
    job = world.job(record.job)
    return job is not None and bool(job.chain)


def pinned(spec: RunSpec, pins: Pins | None) -> RunSpec:
    """The spec with the revisions that an earlier preflight found for hub URIs without one.

    A repository moves on while a run lasts: asked again, the same URI would name another model and re-key everything.
    """
    if pins is None:
        return spec
    base, seed = spec.base_model, spec.seed_data
    generator, win_rate = spec.prompts.generator, spec.evaluation.win_rate
    judge = win_rate.judge.model_copy(update={"uri": _pinned_uri(win_rate.judge.uri, pins.judge_source)})
    writer = generator.model_copy(update={"uri": _pinned_uri(generator.uri, pins.prompt_source)})
    return spec.model_copy(
        update={
            "base_model": base.model_copy(update={"uri": _pinned_uri(base.uri, pins.base_model)}),
            "seed_data": seed.model_copy(update={"uri": _pinned_uri(seed.uri, pins.seed_data)}),
            "prompts": spec.prompts.model_copy(update={"generator": writer}),
            "evaluation": spec.evaluation.model_copy(update={"win_rate": win_rate.model_copy(update={"judge": judge})}),
        }
    )


def _pinned_uri(uri: str | None, found: SourceRef | None) -> str | None:
    """Files and objects have no revisions to go back to: they are looked at again."""
    if uri is None or found is None or not uri.startswith("hf://") or found.uri != uri:
        return uri  # also a URI with a revision: pins keep it without
    return f"{uri}@{found.revision}"


def _job_key(key: str, known: Mapping[str, str]) -> str:
    return sha256(canonical_json([key, known]))[7:31]


def run_preflight(world: World, draft: Draft, known: Mapping[str, Outcome]) -> Draft | None:
    """The draft with preflight brought one step on; None when it is done for the present spec.

    known: committed nodes of the present spec, from which a search in portions goes on.
    """
    before = draft.preflight
    key = preflight_key(world.spec, before.branch)
    if before.key == key and before.done and before.pins is not None:
        return None
    # An answer has come for this key, and it was only a portion.
    going_on = before.key == key and before.checked_at is not None
    digests = {node: outcome.content_digest for node, outcome in sorted(known.items())} if going_on else {}
    asking = {"key": key, "done": False, "checked_at": before.checked_at if going_on else None}
    work = Work(
        iteration=0,
        name="preflight",
        stage="preflight",
        key=_job_key(key, digests),
        params=PreflightParams(spec=pinned(world.spec, before.pins), branch=before.branch, known=digests),
        pins=before.pins,
    )
    record = draft.records.get(PREFLIGHT)
    if record is not None and record.key != work.key and record.state == "Running":
        stopped = stop(world, PREFLIGHT, record, "Superseded", "the spec changed what it looks at")
        step = stopped.after(wake(world.now))
    else:
        # A Succeeded one: its answer is gone (status was edited or lost in part), so it is asked again.
        if record is None or record.key != work.key or record.state == "Succeeded":
            record = new_record(record, work)
        step = drive(world, work, record, start=True)
    return replace(draft, preflight=before.model_copy(update=asking)).put(PREFLIGHT, step)
