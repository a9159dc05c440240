"""The report: made whenever a run has come to an end, and when a person asks for one. Pure.

An end is `Succeeded`, or a stop that only a person can undo (a gate, the budget, attempts exhausted). Each end is
reported once, however often it is looked at again. A person asks by a new value of the annotation
`selfrewarding.dev/report`, which the operator only reads. Conditions and phase are made up before the report is
thought of: nothing waits for it, and a report that fails fails nothing else.
"""

from __future__ import annotations

from srlm_contract.artifacts.layout import report_key
from srlm_contract.keys import canonical_json, sha256
from srlm_contract.status import ReportStatus, RunStatus, StageStatus
from srlm_operator.jobs.job import Work
from srlm_operator.names import REPORT_ANNOTATION
from srlm_operator.times import stamp

from .draft import REPORT, Draft
from .report_task import report_deadline, report_params
from .resolve import Resolved
from .stage import drive, stop
from .status import fit_again

ENDED = ("Succeeded", "Failed", "Held")
#: Reasons for which a report could not be written or its Job not be made.
_HOPELESS = ("StorageNotFound", "StorageNotPermitted", "SecretNotFound", "InvalidPodTemplate", "Forbidden")
_MAX_TOKEN, _MAX_MESSAGE = 128, 1000


def plan_report(draft: Draft, resolved: Resolved, status: RunStatus) -> RunStatus:
    """`status` with the report brought one step on."""
    found = _written(draft, status.report)
    if not draft.spec.suspend:
        found = _ordered(draft, found, end_of(draft, resolved, status))
        found = _driven(draft, found, status)
    record = draft.records.get(REPORT)
    if found == status.report and record == status.report_stage:
        return status
    return fit_again(draft, status.model_copy(update={"report": found, "report_stage": record}))


def _written(draft: Draft, report: ReportStatus) -> ReportStatus:
    """Take over the answer of a report Job that has just ended."""
    if REPORT not in draft.results:
        return report
    uri = report_uri(draft)
    draft.normal("ReportReady", f"the report is at {uri}")
    return report.model_copy(update={"uri": uri, "made_at": stamp(draft.now), "message": ""})


def report_uri(draft: Draft) -> str:
    return f"{draft.storage.uri.rstrip('/')}/{report_key(draft.run.namespace, draft.run.name)}"


def end_of(draft: Draft, resolved: Resolved, status: RunStatus) -> str:
    """What the run has come to, as a digest; empty while it goes on, or where a report could not be written.

    Slow re-checks of what a person must mend come to the same end again.
    """
    reasons = sorted({note.reason for note in draft.stalls})
    if status.phase not in ENDED or not resolved.outcomes or any(reason in _HOPELESS for reason in reasons):
        return ""
    # Of older iterations status forgets all stages but these.
    lasting = {n.id for n in resolved.nodes if n.stage == "evaluate" or n.iteration == status.iteration}
    outcomes = [[i, o.key, o.content_digest] for i, o in sorted((resolved.outcomes or {}).items()) if i in lasting]
    wanted = status.models[: draft.spec.iterations + 1]  # those of iterations that were cut off stay in status
    models = [[model.name, model.key, model.content_digest] for model in wanted]
    return sha256(canonical_json([status.phase, reasons, models, outcomes]))[7:31]


def _ordered(draft: Draft, report: ReportStatus, end: str) -> ReportStatus:
    """Order a report of a new end, or for a new token; a running one is out of date then."""
    token = draft.run.annotations.get(REPORT_ANNOTATION, "")[:_MAX_TOKEN]
    if token in ("", report.token) and end in ("", report.end):
        return report
    report = report.model_copy(update={"token": token or report.token, "end": end or report.end, "message": ""})
    record = draft.records.get(REPORT)
    key = sha256(canonical_json([report.token, report.end]))[7:31]
    if record is None or record.key != key:
        if record is not None:
            stop(draft, REPORT, "Superseded", "the run has come further, or a newer report was asked for")
        attempt = record.attempt if record is not None else 0  # no Job name is used twice
        draft.records[REPORT] = StageStatus(name="report", stage="report", state="Pending", key=key, attempt=attempt)
    return report


def _driven(draft: Draft, report: ReportStatus, status: RunStatus) -> ReportStatus:
    """Bring the Job of an ordered report one step on."""
    record = draft.records.get(REPORT)
    if record is None or record.state == "Succeeded" or (record.state == "Failed" and not draft.new_generation):
        return report.model_copy(update={"message": _failure(draft)})
    pins = draft.preflight.pins
    work = Work(
        iteration=0,
        name="report",
        stage="report",
        key=record.key,
        params=report_params(draft, status),
        pins=pins,
        deadline_seconds=report_deadline(draft.spec),
    )
    waits, stalls = len(draft.waits), len(draft.stalls)
    drive(draft, work, start=True)
    notes = [*draft.stalls[stalls:], *(note for note in draft.waits[waits:] if note.reason != "Progressing")]
    message = f"{notes[0].reason}: {notes[0].message}" if notes else _failure(draft)
    return report.model_copy(update={"message": message[:_MAX_MESSAGE]})


def _failure(draft: Draft) -> str:
    """Why there is no report, once it is given up."""
    record = draft.records.get(REPORT)
    if record is None or record.state != "Failed" or record.last_failure is None:
        return ""
    return f"{record.last_failure.reason}: {record.last_failure.message}"[:_MAX_MESSAGE]
