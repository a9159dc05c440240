"""How tools that know nothing of runs judge them: kstatus, in the order in which it decides.

Used by Flux, kpt, `kubectl` plug-ins and others. Deleted first, then a generation that was not observed, then the two
conditions for everybody, then `Ready`. An object without any of that counts as Current.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

Status = Literal["Terminating", "InProgress", "Failed", "Current"]


def kstatus(obj: Mapping[str, Any]) -> Status:
    """Status of an object with conditions."""
    meta, status = obj["metadata"], obj.get("status") or {}
    if "deletionTimestamp" in meta:
        return "Terminating"
    if "observedGeneration" in status and status["observedGeneration"] != meta["generation"]:
        return "InProgress"
    conditions = {condition["type"]: condition["status"] for condition in status.get("conditions") or ()}
    if conditions.get("Reconciling") == "True":
        return "InProgress"
    if conditions.get("Stalled") == "True":
        return "Failed"
    if conditions.get("Ready", "True") != "True":
        return "InProgress"
    return "Current"
