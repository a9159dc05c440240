"""`srlm status NAME`: what stands where on the screen."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Any

from rich.console import Console

from srlm_cli.status import screen
from srlm_operator.cluster.views import parse_run
from support.builders import manifest_spec

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
GATE = "tie rate 0.50, gates.maxTieRate is 0.3"


def shown(**status: Any) -> str:
    found = {"phase": "Held", "iterations": [], **status}
    metadata = {"name": "run", "namespace": "team", "uid": "u", "resourceVersion": "1", "generation": 1}
    out = io.StringIO()
    run = parse_run({"metadata": metadata, "spec": manifest_spec(), "status": found})
    Console(file=out, width=100).print(screen(run, NOW))
    return out.getvalue()


def iteration(name: str, **metrics: float) -> dict[str, Any]:
    stages = [{"name": "evaluate", "stage": "evaluate", "state": "Succeeded"}]
    return {"name": name, "stages": stages, "metrics": metrics}


def test_warnings_stand_after_the_results() -> None:
    text = shown(iterations=[iteration("M1", loss=2)], preflight={"warnings": ["a store without conditional puts"]})
    assert text.index("training loss") < text.index("warning: a store without conditional puts")


def test_a_gate_that_the_state_of_the_run_names_is_told_once() -> None:
    held = {"type": "Stalled", "status": "True", "reason": "Held", "message": f"M2: {GATE}. Annotate to go on",
            "lastTransitionTime": "2026-01-01T11:00:00Z"}  # fmt: skip
    missed = iteration("M2", pairs=4) | {"gates": [GATE]}
    assert shown(iterations=[missed], conditions=[held]).count(GATE) == 1
    assert shown(iterations=[missed]).count(f"gate: {GATE}") == 1, "a run that goes on says it there"


def test_figures_stand_under_what_they_stand_on_and_say_what_that_is() -> None:
    text = shown(
        iterations=[
            iteration("M1", heldoutScore=2.15, heldoutJudged=16, answers=6, answerLength=60),
            iteration("M2", heldoutScore=1.9, heldoutJudged=16, meanScore=1.99, candidates=54, meanLength=114),
        ]
    )
    lines = [line for line in text.splitlines() if line.startswith("│")]
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]
    assert cells[:9] == [
        ["Candidates on the way to it", "", ""],
        ["candidates", "–", "54"],
        ["candidates' mean score (0–5)", "–", "1.99"],
        ["candidates' length (characters)", "–", "114"],
        ["Its judging of held-out answers", "", ""],
        ["held-out answers scored", "16", "16"],
        ["held-out mean score (0–5)", "2.15", "1.90"],
        ["Its answers to validation prompts", "", ""],
        ["validation answers", "6", "–"],
    ]
    assert "Candidates on the way to it: Answers of the model before to new prompts" in " ".join(text.split())


def test_baselines_have_columns_before_m1() -> None:
    text = shown(
        iterations=[iteration("M1", answers=6, answerLength=60)],
        baselines=[{"name": "M0", "metrics": {"answers": 6, "answerLength": 90, "winRate": 0.25}}],
    )
    lines = [[cell.strip() for cell in line.strip("│┃").split("│")] for line in text.splitlines()]
    assert ["answer length (characters)", "90", "60"] in lines
    assert ["win rate", "25.0%", "–"] in lines
    assert ["time of evaluate", "", "–"] in lines


def test_a_stage_that_waits_in_the_job_of_another_one_says_so() -> None:
    begun = {"state": "Running", "job": "one", "startedAt": "2026-01-01T11:59:00Z"}
    lead = {"name": "judge-heldout", "stage": "judge", **begun}
    links = [{"name": name, "stage": name, "state": "Pending", "job": "one"} for name in ("evaluate", "prompts")]
    other = {"name": "generate", "stage": "generate", "state": "Pending"}
    text = shown(
        phase="Running",
        iterations=[{"name": "M1", "stages": [lead, links[0]]}, {"name": "M2", "stages": [links[1], other]}],
    )
    assert "M1   ▶ judge-heldout 1m 00s · evaluate (same Job)" in text
    assert "M2   · prompts (same Job) · generate\n" in text
