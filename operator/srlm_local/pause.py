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
        for resource, shifted in (("jobs.batch", _with_start), (_RUNS, _with_budgets)):
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


def _with_start(job: Object, still: timedelta) -> Object | None:
    """A Job that has a deadline and is not finished, begun so much later; None for others."""
    status = job.get("status") or {}
    ended = any(c["type"] in ("Complete", "Failed") and c["status"] == "True" for c in status.get("conditions") or ())
    if ended or "startTime" not in status or "activeDeadlineSeconds" not in job["spec"]:
        return None
    return {**job, "status": {**status, "startTime": _later(status["startTime"], still)}}


def _with_budgets(run: Object, still: timedelta) -> Object | None:
    """A run with its budgets of time begun so much later: for temporary failures, and for clean-up once it is deleted.

    None where none has begun.
    """
    meta = run["metadata"]
    if "deletionTimestamp" in meta:
        meta = {**meta, "deletionTimestamp": _later(meta["deletionTimestamp"], still)}
    changed = {**run, "metadata": meta} | ({"status": _moved(run["status"], still)} if "status" in run else {})
    return changed if changed != run else None


def _moved(value: Any, still: timedelta) -> Any:
    """A part of a run's status with every `temporarySince` in it so much later."""
    if isinstance(value, list):
        return [_moved(item, still) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: _later(item, still) if key == "temporarySince" else _moved(item, still) for key, item in value.items()}


def _later(moment: str, still: timedelta) -> str:
    return to_seconds(parse_time(moment) + still)
