"""The HTML page: what the template is given, and the policy that lets nothing run but its own script."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from srlm_contract.graph import model_name
from srlm_contract.scorers import SCORERS

from . import curves, plots
from .collect import Collected, Stage, first_and_last, moment
from .examples import Examples
from .figures import Figures
from .finding import LEVELS, Finding
from .headline import headline
from .tables import (
    candidates_table,
    cost_table,
    glance_table,
    head_to_head_table,
    judge_table,
    kinds_table,
    loop_table,
    win_matrix,
    yield_table,
)
from .text import finalize

TEMPLATES = files(__package__) / "templates"


def page(
    found: Collected, figures: Figures, examples: Examples, findings: Sequence[Finding], now: datetime | None = None
) -> str:
    """The whole page. `now`: the time it says it was made at."""
    style, script = _asset("style.css"), _asset("search.js")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, finalize=finalize, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"duration": plots.duration, "digest": digest}
    template = environment.from_string(_asset("page.html.j2"))
    return template.render(
        style=Markup(style),  # noqa: S704 - our own file
        script=Markup(script),  # noqa: S704 - our own file
        policy=policy(style, script),
        found=found,
        status=found.status,
        spec=found.spec,
        perfect_score=SCORERS[found.spec.judging.scorer].perfect_score,
        run=found.run,
        now=f"{now or datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        figures=figures,
        headline=headline(found, figures),
        took=_took(found),
        findings=findings,
        counts={level: sum(f.level == level for f in findings) for level in LEVELS},
        examples=examples,
        model_name=model_name,
        glance=glance_table(figures),
        times=loop_table(found),
        judge=judge_table(figures),
        met=head_to_head_table(figures),
        kinds=kinds_table(figures),
        candidates=candidates_table(figures),
        matrix=win_matrix(figures),
        yields=yield_table(found),
        cost=cost_table(found),
        timelines=[plot for t in _timelines(found) if (plot := curves.timeline(found, t)) is not None],
        judge_plots=_drawn(plots.judge_shares(figures), plots.judge_correlations(figures)),
        win_plots=_drawn(plots.win_rates(figures)),
        score_plots=_drawn(plots.verdict_scores(figures), plots.heldout_scores(figures), plots.lengths(figures)),
        training_plots=curves.training_curves(figures),
        models=[m for t in found.iterations if (m := found.model(t)) is not None],
        inputs=inputs,
        configuration=json.dumps(found.spec.wire(), indent=2, ensure_ascii=False),
        changed=json.dumps(found.spec.wire(defaults=False), indent=2, ensure_ascii=False),
        pins=json.dumps(found.pins.wire(), indent=2, ensure_ascii=False) if found.pins else "",
    )


def policy(style: str, script: str) -> str:
    """Content-Security-Policy: this style and this script by their hash, and nothing from anywhere."""
    return (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def digest(text: str) -> str:
    """A digest short enough for a table."""
    return text.removeprefix("sha256:")[:12]


def inputs(stage: Stage) -> list[tuple[str, str]]:
    """(input name, where it comes from) of a committed stage."""
    if stage.manifest is None:
        return []
    found: list[tuple[str, str]] = []
    for name, ref in sorted(stage.manifest.inputs.items()):
        data: dict[str, Any] = ref.wire()
        if "contentDigest" in data:
            node = stage.node.inputs.get(name) if stage.node is not None else None
            found.append((name, f"{node or data['stage']} {digest(data['contentDigest'])}"))
        else:
            place = f"{data['uri']}#{data['file']}" if data.get("file") else data["uri"]
            found.append((name, f"{place} @ {data.get('revision', '')[:19] or 'unpinned'}"))
    return found


def _took(found: Collected) -> float | None:
    """Seconds from start to end of a run that has ended."""
    begin, end = moment(found.status.started_at), moment(found.status.finished_at)
    return (end - begin).total_seconds() if begin is not None and end is not None and end >= begin else None


def _timelines(found: Collected) -> list[int]:
    """The iterations whose stages are drawn."""
    return first_and_last(sorted({s.iteration for s in found.stages if s.span is not None}), plots.MAX_SHOWN)


def _drawn(*drawings: Markup | None) -> list[Markup]:
    return [drawing for drawing in drawings if drawing is not None]


def _asset(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
