"""Time in which the cluster did not run counts for no deadline: clocks that were running go on where they stopped.

While the cluster runs it writes down the time every few seconds. The next start moves the beginnings that deadlines
are counted from by as long as nobody wrote.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from srlm_local.store.clock import Clock, parse_time, to_seconds
from srlm_local.store.cluster import Cluster

Object = dict[str, Any]
WRITE_SECONDS = 5
_RUNS = "selfrewardingruns.selfrewarding.dev"


def resume(file: Path, cluster: Cluster) -> timedelta:
    """Move every beginning by as long as the cluster of `file` stood still; to be called before anything runs.

    Returns how long that was; nothing for a new cluster, or where the clock was put back.
    """
    now, last = cluster.clock.now(), _last(file)
    still = max(now - last, timedelta()) if last is not None else timedelta()
    if still:
        for resource, shifted in (("jobs.batch", _with_start), ("pods", _with_start), (_RUNS, _with_budgets)):
            for obj in cluster.storage.list(resource):
                if (changed := shifted(obj, still)) is not None:
                    meta = obj["metadata"]
                    cluster.storage.put(resource, meta.get("namespace", ""), meta["name"], changed)
    write(file, now)
    return still


async def keep(file: Path, clock: Clock) -> None:
    """Write down the time until cancelled."""
    try:
        while True:
            await clock.sleep(WRITE_SECONDS)
            write(file, clock.now())
    finally:
        write(file, clock.now())


def write(file: Path, now: datetime) -> None:
    """Whole or not at all: the process may be killed at any moment."""
    new = file.with_suffix(".new")
    new.write_text(now.isoformat())
    new.replace(file)


def _last(file: Path) -> datetime | None:
    try:
        return parse_time(file.read_text())
    except (FileNotFoundError, ValueError):
        return None


def _with_start(obj: Object, still: timedelta) -> Object | None:
    """A Job or pod that has a deadline and is not finished, begun so much later; None for others."""
    status = obj.get("status") or {}
    ended = any(c["type"] in ("Complete", "Failed") and c["status"] == "True" for c in status.get("conditions") or ())
    ended = ended or status.get("phase") in ("Succeeded", "Failed")
    if ended or "startTime" not in status or "activeDeadlineSeconds" not in obj["spec"]:
        return None
    return {**obj, "status": {**status, "startTime": _later(status["startTime"], still)}}


def _with_budgets(run: Object, still: timedelta) -> Object | None:
    """A run with its budgets of time begun so much later: for temporary failures, and for clean-up once it is deleted.

    None where none has begun.
    """
    status = run.get("status") or {}
    changes: Object = {
        field: _stage(status[field], still)
        for field in ("preflightStage", "cleanupStage", "reportStage")
        if status.get(field)
    }
    if status.get("iterations"):
        changes["iterations"] = [
            {**iteration, "stages": [_stage(stage, still) for stage in iteration.get("stages") or ()]}
            for iteration in status["iterations"]
        ]
    meta = run["metadata"]
    if "deletionTimestamp" in meta:
        meta = {**meta, "deletionTimestamp": _later(meta["deletionTimestamp"], still)}
    changed = {**run, "metadata": meta} | ({"status": {**status, **changes}} if changes else {})
    return changed if changed != run else None


def _stage(stage: Object, still: timedelta) -> Object:
    since = stage.get("temporarySince")
    return {**stage, "temporarySince": _later(since, still)} if since else stage


def _later(moment: str, still: timedelta) -> str:
    return to_seconds(parse_time(moment) + still)
