"""What the report tells trackers of a run made by hand."""

from __future__ import annotations

from pathlib import Path

from srlm_contract.tasks import ReportParams
from srlm_stages.context import StageContext
from srlm_stages.report.collect import collect
from srlm_stages.report.figures import measure
from srlm_stages.report.tracked import track
from srlm_stages.runtime.progress import ProgressReporter
from support.report_world import MadeRun, report_task


def tracked(made: MadeRun, work: Path, **environ: str) -> list[str]:
    """The warnings of it."""
    params = ReportParams(spec=made.spec, status=made.status.wire(defaults=False), pins=made.pins)
    task = report_task(params)
    ctx = StageContext(
        task, made.world.artifacts(), made.world.store, work, ProgressReporter("report"), lambda uri: made.world.store,
        environ=environ,
    )  # fmt: skip
    found = collect(ctx.artifacts, task, params)
    track(ctx, found, measure(found))
    return ctx.warnings
