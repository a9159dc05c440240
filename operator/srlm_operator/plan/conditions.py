"""Conditions as kstatus reads them, and the phase for people. Pure.

`Reconciling` and `Stalled` are absent when they do not hold; `Ready` always stands there.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from srlm_contract.reasons import advised, remedy
from srlm_contract.status import Condition, RunPhase
from srlm_operator.times import stamp

from .decisions import Note

#: The most telling reason first; what is not listed comes before `Progressing`.
_LAST = ("Retrying", "Progressing")
#: Characters of what happened; the remedy has room beside them.
_LONGEST_NOTES, _LONGEST = 3600, 4096


def waiting(waits: Sequence[Note]) -> Note:
    """The one reason to show of all that is waited for."""
    ordered = sorted(waits, key=lambda note: _LAST.index(note.reason) + 1 if note.reason in _LAST else 0)
    if not ordered:
        return Note("Progressing", "The next stage is being started")
    return _together([note for note in ordered if note.reason == ordered[0].reason])


def _together(notes: Sequence[Note]) -> Note:
    """The reason of the first, all messages, and what to do about them."""
    text = "; ".join(dict.fromkeys(note.message for note in notes))[:_LONGEST_NOTES]
    for reason in dict.fromkeys(note.reason for note in notes):
        text = advised(text, remedy(reason))
    return Note(notes[0].reason, text)


def conditions(
    *,
    waits: Sequence[Note],
    stalls: Sequence[Note],
    ready: bool,
    suspended: bool,
    generation: int,
    previous: Sequence[Condition],
    now: datetime,
) -> tuple[Condition, ...]:
    """Ready first, then whichever of Reconciling, Stalled and Suspended hold."""
    before = {condition.type: condition for condition in previous}

    def condition(kind: str, status: Literal["True", "False"], note: Note) -> Condition:
        old = before.get(kind)
        since = old.last_transition_time if old is not None and old.status == status else stamp(now)
        return Condition(
            type=kind,
            status=status,
            reason=note.reason,
            message=note.message[:_LONGEST],
            last_transition_time=since,
            observed_generation=generation,
        )

    if ready:
        found = [condition("Ready", "True", Note("Succeeded", "All iterations are done"))]
    elif suspended:
        note = Note("Suspended", "spec.suspend is set; what is committed stays")
        found = [condition("Ready", "False", note)]
    elif stalls:
        note = _together(stalls)
        found = [condition("Ready", "False", note), condition("Stalled", "True", note)]
    else:
        note = waiting(waits)
        found = [condition("Ready", "False", note), condition("Reconciling", "True", note)]
    if suspended:
        found.append(condition("Suspended", "True", Note("Suspended", "spec.suspend is set")))
    return tuple(found)


def phase(
    *, waits: Sequence[Note], stalls: Sequence[Note], ready: bool, suspended: bool, started: bool, active: bool
) -> RunPhase:
    """For people. Something stalled is `Failed` only when no Job is left that could go on by itself; a run of which
    any stage goes on is `Running`."""
    if ready:
        return "Succeeded"
    if suspended:
        return "Suspended"
    if any(note.reason == "Held" for note in stalls):
        return "Held"
    if stalls:
        return "Stalled" if active else "Failed"
    if not started:
        return "Pending"
    reasons = {note.reason for note in waits}
    if not reasons or "Progressing" in reasons:
        return "Running"
    return "Queued" if reasons == {"WaitingForQueue"} else "Waiting"
