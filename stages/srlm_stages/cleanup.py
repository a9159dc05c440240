"""Removes what retention says of a deleted run: only artifacts it made itself and no other run refers to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from srlm_contract.artifacts.layout import events_prefix, is_events, lineage_key, report_key
from srlm_contract.artifacts.retention import (
    delete_artifact,
    delete_orphans,
    delete_unfinished,
    drop_refs,
    drop_uploads,
    removable,
)
from srlm_contract.tasks import CleanupParams, StageResult

from .context import StageContext

#: Data files that no manifest names may belong to an attempt that still runs; after this long they do not.
ORPHANS_AFTER = timedelta(days=7)


def run(ctx: StageContext) -> StageResult:
    """Answers how many artifacts and objects are gone. Safe to repeat after an interruption."""
    params = ctx.params(CleanupParams)
    retention = params.retention
    refs = removable(ctx.store, ctx.task.run, retention, params.intermediate)
    objects = 0
    for done, ref in enumerate(refs, 1):
        objects += delete_artifact(ctx.store, ref.stage, ref.key, ctx.task.run)
        ctx.progress.update(done, len(refs), unit="artifacts")
    objects += drop_uploads(ctx.store, ctx.task.run)
    if retention != "Retain":
        objects += delete_unfinished(ctx.store, ctx.task.run)
    # Last: an interrupted clean-up still knows what is left to remove. While results stay, so do the references
    # to them: they keep the clean-up of other runs away.
    if retention == "DeleteAll":
        run = ctx.task.run
        pages = [lineage_key(run.namespace, run.name), report_key(run.namespace, run.name)]
        ctx.store.delete([*pages, *_curves(ctx)])
        drop_refs(ctx.store, run)
    orphans = delete_orphans(ctx.store, datetime.now(UTC) - ORPHANS_AFTER, warn=ctx.warn)
    ctx.progress.say(f"cleanup: {len(refs)} artifacts ({objects} objects) and {orphans} orphaned objects removed")
    return StageResult(
        stage="cleanup",
        statistics={"artifacts": len(refs), "objects": objects, "orphans": orphans},
    )


def _curves(ctx: StageContext) -> list[str]:
    """Keys of the run's event files."""
    prefix = events_prefix(ctx.task.run.namespace, ctx.task.run.name)
    return [info.key for info in ctx.store.list_objects(prefix) if is_events(info.key.removeprefix(prefix))]
