"""DELETE: graceful periods, finalizers and propagation policies, as the generic registry does it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from srlm_local.store.clock import parse_time, to_seconds
from srlm_local.store.errors import conflict, invalid, unsupported
from srlm_local.store.resources import ResourceType

Object = dict[str, Any]
ORPHAN, FOREGROUND = "orphan", "foregroundDeletion"
POLICIES = ("Background", "Foreground", "Orphan")


@dataclass(frozen=True)
class DeleteOptions:
    """As in the API; `uid` and `version` are the preconditions."""

    propagation: str | None = None
    grace_period: int | None = None
    uid: str | None = None
    version: str | None = None

    def check(self) -> None:
        """Raises 422 for unknown values."""
        if self.propagation not in (None, *POLICIES):
            error = unsupported("propagationPolicy", self.propagation, POLICIES)
            raise invalid("DeleteOptions", "meta.k8s.io", "", [error])


def check_preconditions(rt: ResourceType, obj: Object, options: DeleteOptions) -> None:
    """409 if the object is not the one that was meant."""
    meta = obj["metadata"]
    for asked, key in ((options.uid, "uid"), (options.version, "resourceVersion")):
        if asked is not None and asked != meta[key]:
            why = f"the {key} in the precondition ({asked}) does not match the one in record ({meta[key]})"
            raise conflict(rt.kind, "", meta["name"], why)  # the real server names the kind without its group here


def mark(rt: ResourceType, obj: Object, options: DeleteOptions, now: datetime) -> bool:
    """Marks `obj` in place, as far as something still holds it; whether it has to stay.

    It stays for its finalizers and for its grace period, which a second deletion can only shorten.
    """
    meta = obj["metadata"]
    asked = rt.rules.grace_period(obj, options.grace_period)
    period = asked or 0
    if "deletionTimestamp" in meta:
        current = meta.get("deletionGracePeriodSeconds") or 0
        shorter = options.grace_period is not None and asked is not None and options.grace_period < current
        if current and not shorter:
            return True
        if current:
            period = int(options.grace_period or 0)
            start = parse_time(meta["deletionTimestamp"]) - timedelta(seconds=current)
            meta["deletionTimestamp"] = to_seconds(start + timedelta(seconds=period))
            meta["deletionGracePeriodSeconds"] = period
        else:
            period = 0
    elif asked is not None:
        _begin(meta, now, period)
    finalizers = _finalizers(meta.get("finalizers") or [], options, rt.rules.orphans_by_default)
    meta.pop("finalizers", None)
    if finalizers:
        meta["finalizers"] = finalizers
        if "deletionTimestamp" not in meta:
            _begin(meta, now, 0)
    return bool(finalizers) or period > 0


def _begin(meta: Object, now: datetime, period: int) -> None:
    meta["deletionTimestamp"] = to_seconds(now + timedelta(seconds=period))
    meta["deletionGracePeriodSeconds"] = period
    if meta.get("generation"):
        meta["generation"] += 1


def _finalizers(have: list[str], options: DeleteOptions, orphans_by_default: bool) -> list[str]:
    """The finalizers after the options have been turned into `orphan` or `foregroundDeletion`."""
    if options.propagation is not None:
        policy = options.propagation
    elif ORPHAN in have:
        policy = "Orphan"
    elif FOREGROUND in have:
        policy = "Foreground"
    else:
        policy = "Orphan" if orphans_by_default else "Background"
    wanted = {"Orphan": ORPHAN, "Foreground": FOREGROUND}.get(policy)
    if wanted in have and not ({ORPHAN, FOREGROUND} - {wanted}) & set(have):
        return list(have)
    kept = [name for name in have if name not in (ORPHAN, FOREGROUND)]
    return [*kept, wanted] if wanted else kept


def gone_after_update(new: Object, old: Object) -> bool:
    """Whether an update took the last finalizer of an object that only waited for that."""
    if new["metadata"].get("finalizers"):
        return False
    return "deletionTimestamp" in old["metadata"] and not old["metadata"].get("deletionGracePeriodSeconds")
