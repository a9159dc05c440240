"""DELETE: graceful periods, finalizers and propagation policies, as the generic registry does it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from srlm_contract.schema import FieldError
from srlm_local.clock import parse_time, to_seconds
from srlm_local.errors import conflict, invalid
from srlm_local.jsontools import copy
from srlm_local.request import Request

if TYPE_CHECKING:
    from srlm_local.cluster import Cluster
    from srlm_local.resources import ResourceType

Object = dict[str, Any]
ORPHAN, FOREGROUND = "orphan", "foregroundDeletion"
POLICIES = {"Foreground", "Background", "Orphan"}


@dataclass
class DeleteOptions:
    """As in the API; `uid` and `version` are the preconditions."""

    grace_period: int | None = None
    propagation: str | None = None
    orphan_dependents: bool | None = None
    uid: str | None = None
    version: str | None = None

    def check(self) -> None:
        """Raises 422 for contradictory or unknown values."""
        errors: list[FieldError] = []
        policy = self.propagation
        if policy is not None and self.orphan_dependents is not None:
            message = f'Invalid value: "{policy}": orphanDependents and deletionPropagation cannot be both set'
            errors.append(FieldError("propagationPolicy", message, "FieldValueInvalid"))
        elif policy is not None and policy not in POLICIES:
            supported = '"Foreground", "Background", "Orphan", "nil"'
            message = f'Unsupported value: "{policy}": supported values: {supported}'
            errors.append(FieldError("propagationPolicy", message, "FieldValueNotSupported"))
        if errors:
            raise invalid("DeleteOptions", "meta.k8s.io", "", errors)


def check_preconditions(rt: ResourceType, obj: Object, uid: str | None, version: str | None) -> None:
    """409 if the object is not the one that was meant."""
    meta = obj["metadata"]
    why = ""
    if uid is not None and uid != meta["uid"]:
        why = (
            f"the UID in the precondition ({uid}) does not match the UID in record ({meta['uid']}). "
            "The object might have been deleted and then recreated"
        )
    elif version is not None and version != meta["resourceVersion"]:
        why = (
            f"the ResourceVersion in the precondition ({version}) does not match the ResourceVersion in record "
            f"({meta['resourceVersion']}). The object might have been modified"
        )
    if why:
        # The real server names the kind without its group here.
        raise conflict(rt.kind, "", meta["name"], why)


def delete(
    cluster: Cluster, rt: ResourceType, obj: Object, options: DeleteOptions, request: Request
) -> tuple[Object, bool]:
    """Returns what is left, and True if it is gone from the store."""
    check_preconditions(rt, obj, options.uid, options.version)
    strategy = cluster.strategy(rt)
    obj = copy(obj)
    meta = obj["metadata"]
    if strategy.begin_deletion(cluster, obj):
        changed = obj != cluster.get(rt, meta["name"], meta.get("namespace", ""))
        return (cluster.write(rt, obj, request) if changed else obj), False
    graceful, period = False, 0
    if "deletionTimestamp" in meta:
        current = meta.get("deletionGracePeriodSeconds") or 0
        if current:
            asked = strategy.grace_period(obj, options.grace_period)
            if options.grace_period is None or asked is None or options.grace_period >= current:
                return obj, False
            period = options.grace_period
            start = parse_time(meta["deletionTimestamp"]) - timedelta(seconds=current)
            meta["deletionTimestamp"] = to_seconds(start + timedelta(seconds=period))
            meta["deletionGracePeriodSeconds"] = period
            graceful = True
    else:
        asked = strategy.grace_period(obj, options.grace_period)
        if asked is not None:
            graceful, period = True, asked
            _mark(obj, cluster, period)
    finalizers = _finalizers(meta.get("finalizers") or [], options, strategy.orphans_by_default)
    changed = finalizers != (meta.get("finalizers") or [])
    if changed or finalizers or graceful:
        if finalizers:
            meta["finalizers"] = finalizers
        else:
            meta.pop("finalizers", None)
        if not graceful and finalizers and "deletionTimestamp" not in meta:
            _mark(obj, cluster, 0)
        if graceful or finalizers:
            obj = cluster.write(rt, obj, request)
        if finalizers or period > 0:
            return obj, False
    if request.dry_run:
        return obj, True
    return cluster.erase(rt, obj), True


def _mark(obj: Object, cluster: Cluster, period: int) -> None:
    meta = obj["metadata"]
    meta["deletionTimestamp"] = to_seconds(cluster.clock.now() + timedelta(seconds=period))
    meta["deletionGracePeriodSeconds"] = period
    if meta.get("generation"):
        meta["generation"] += 1


def _finalizers(have: list[str], options: DeleteOptions, orphans_by_default: bool) -> list[str]:
    """The finalizers after the options have been turned into `orphan` or `foregroundDeletion`."""
    if options.orphan_dependents is not None:
        policy = "Orphan" if options.orphan_dependents else "Background"
    elif options.propagation is not None:
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
