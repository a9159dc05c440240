"""The report of a run: one self-contained HTML page and `lineage.json`, also for unfinished and failed runs."""

from __future__ import annotations

from srlm_contract.artifacts.layout import lineage_key, report_key
from srlm_contract.tasks import ReportParams, StageResult

from ..context import StageContext


def run(ctx: StageContext) -> StageResult:
    """Writes `runs/<namespace>/<name>/report.html` and `lineage.json`; damaged artifacts are named, not fatal."""
    from .collect import collect
    from .examples import read_examples
    from .figures import measure
    from .findings import find
    from .lineage import lineage
    from .page import page
    from .tracked import track

    run = ctx.task.run
    ctx.progress.say("report: looking up artifacts")
    found = collect(ctx.artifacts, ctx.task, ctx.params(ReportParams))
    ctx.progress.say(f"report: reading rows of {sum(s.manifest is not None for s in found.stages)} artifacts")
    figures = measure(found)
    examples = read_examples(found)
    findings = find(found, figures)
    trace = lineage(found).to_bytes()
    html = page(found, figures, examples, findings).encode()
    ctx.store.put(lineage_key(run.namespace, run.name), trace)
    ctx.store.put(report_key(run.namespace, run.name), html)
    track(ctx, found, figures)
    uri = ctx.store.uri(report_key(run.namespace, run.name))
    ctx.progress.say(f"report: {uri}, {len(html) / 1024:,.0f} KiB, {len(findings)} findings")
    return StageResult(
        stage="report",
        manifest_uri=uri,
        statistics={
            "artifacts": len(found.committed),
            "models": len(figures.models),
            "findings": len(findings),
            "examples": examples.shown,
            "bytes": len(html),
        },
    )
