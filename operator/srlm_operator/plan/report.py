"""The report: made whenever a run has come to an end, and when a person asks for one. Pure.

An end is `Succeeded`, or a stop that only a person can undo (a gate, the budget, attempts exhausted). Each end is
reported once, however often it is looked at again; a run with `spec.tracking` also after every iteration, as the report
is what trackers have its figures from. A person asks by a new value of the annotation
`selfrewarding.dev/report`, which the operator only reads. Conditions and phase are made up before the report is
thought of: nothing waits for it, and a report that fails fails nothing else.
"""

from __future__ import annotations

from srlm_contract.artifacts.layout import report_key
from srlm_contract.keys import canonical_json, sha256
from srlm_contract.status import ENDED, MAX_MESSAGE, ReportStatus, RunStatus, StageStatus
from srlm_operator.jobs.job import Work
from srlm_operator.names import REPORT_ANNOTATION
from srlm_operator.times import stamp

from .decisions import NOTHING, Decisions, Draft, Step, normal
from .report_task import report_deadline, report_params
from .resolve import Resolved
from .stage import drive, stop
from .status import fit
from .world import REPORT, World

#: Reasons for which a report could not be written or its Job not be made.
_HOPELESS = ("StorageNotFound", "StorageNotPermitted", "SecretNotFound", "InvalidPodTemplate", "Forbidden")
_MAX_TOKEN = 128


def plan_report(
    world: World, draft: Draft, resolved: Resolved, status: RunStatus, *, written: bool
) -> tuple[RunStatus, Decisions]:
    """`status` with the report brought one step on. `written`: whether a report Job has just ended well."""
    report, record, decided = status.report, status.report_stage, NOTHING
    if written:
        uri = report_uri(world)
        report = report.model_copy(update={"uri": uri, "made_at": stamp(world.now), "message": ""})
        decided = normal("ReportReady", f"the report is at {uri}")
    if not world.spec.suspend:
        ordered = _ordered(world, report, end_of(world, draft, resolved, status), measured_of(world, status))
        if ordered is not None:
            report = ordered
            record, stopped = _renewed(world, record, report)
            decided += stopped
        going = _driven(world, draft, record, status)
        if going is not None:
            record = going.record
            decided += going.decided
        hindrances = going.decided.hindrances if going is not None else ()
        message = f"{hindrances[0].reason}: {hindrances[0].message}" if hindrances else _failure(record)
        report = report.model_copy(update={"message": message[:MAX_MESSAGE]})
    if report == status.report and record == status.report_stage:
        return status, decided
    return fit(status.model_copy(update={"report": report, "report_stage": record}), world.spec), decided


def report_uri(world: World) -> str:
    return f"{world.storage.uri.rstrip('/')}/{report_key(world.run.namespace, world.run.name)}"


def end_of(world: World, draft: Draft, resolved: Resolved, status: RunStatus) -> str:
    """What the run has come to, as a digest; empty while it goes on, or where a report could not be written.

    Slow re-checks of what a person must mend come to the same end again.
    """
    reasons = sorted({note.reason for note in draft.decided.stalls})
    if status.phase not in ENDED or not resolved.outcomes or any(reason in _HOPELESS for reason in reasons):
        return ""
    # Of older iterations status forgets all stages but these.
    lasting = {n.id for n in resolved.nodes if n.stage == "evaluate" or n.iteration == status.iteration}
    outcomes = [[i, o.key, o.content_digest] for i, o in sorted(resolved.outcomes.items()) if i in lasting]
    wanted = status.models[: world.spec.iterations + 1]  # those of iterations that were cut off stay in status
    models = [[model.name, model.key, model.content_digest] for model in wanted]
    return sha256(canonical_json([status.phase, reasons, models, outcomes]))[7:31]


def measured_of(world: World, status: RunStatus) -> str:
    """The iterations that are over and that trackers shall hear of, as a digest; empty where there are none."""
    models = status.models[: status.iteration]
    if not world.spec.tracking.wanted or not models:
        return ""
    tracking = world.spec.tracking.wire(defaults=False)
    return sha256(canonical_json([tracking, [[m.name, m.key, m.content_digest] for m in models]]))[7:31]


def _ordered(world: World, report: ReportStatus, end: str, measured: str) -> ReportStatus | None:
    """A report is due for a new end, for further iterations, or for a new token; else None."""
    token = world.run.annotations.get(REPORT_ANNOTATION, "")[:_MAX_TOKEN]
    wanted = {"token": token, "end": end, "measured": measured}
    due = {name: value for name, value in wanted.items() if value not in ("", getattr(report, name))}
    return report.model_copy(update={**due, "message": ""}) if due else None


def _renewed(world: World, record: StageStatus | None, report: ReportStatus) -> tuple[StageStatus, Decisions]:
    """A record for the report that is due; a running one is out of date then."""
    about = [report.token, report.end, *([report.measured] if report.measured else [])]
    key = sha256(canonical_json(about))[7:31]
    if record is not None and record.key == key:
        return record, NOTHING
    attempt, decided = 0, NOTHING
    if record is not None:
        attempt = record.attempt  # no Job name is used twice
        why = "the run has come further, or a newer report was asked for"
        decided = stop(world, REPORT, record, "Superseded", why).decided
    return StageStatus(name="report", stage="report", state="Pending", key=key, attempt=attempt), decided


def _driven(world: World, draft: Draft, record: StageStatus | None, status: RunStatus) -> Step | None:
    """The Job of a report that is due brought one step on; None when none is."""
    if record is None or record.state == "Succeeded" or (record.state == "Failed" and not world.try_again):
        return None
    work = Work(
        iteration=0,
        name="report",
        stage="report",
        key=record.key,
        params=report_params(world.spec, draft.preflight, status),
        pins=draft.preflight.pins,
        deadline_seconds=report_deadline(world.spec),
    )
    return drive(world, work, record, start=True)


def _failure(record: StageStatus | None) -> str:
    """Why there is no report, once it is given up."""
    if record is None or record.state != "Failed" or record.last_failure is None:
        return ""
    return f"{record.last_failure.reason}: {record.last_failure.message}"
