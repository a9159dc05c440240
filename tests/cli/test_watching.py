"""`srlm status -w`: what fits a small terminal, what a log gets, and when it ends."""

from __future__ import annotations

import asyncio
import io
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console

from srlm_cli import status
from srlm_cli.watching import Changes, has_ended, small_screen
from srlm_contract.status import RunStatus
from srlm_operator.cluster.client import RUNS
from srlm_operator.cluster.views import parse_run
from support.builders import manifest_spec
from support.cluster.harness import SHORT, Harness
from support.person import become, srlm
from support.stage_script import error

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
STAGES = ("prompts", "generate", "judge", "pairs", "train", "judge-heldout", "evaluate")


def ago(minutes: int) -> str:
    return f"{NOW - timedelta(minutes=minutes):%Y-%m-%dT%H:%M:%SZ}"


def run(iterations: int, message: str = "", phase: str = "Running", baselines: tuple[str, ...] = ()) -> Any:
    """A run in its last iteration, where `judge` is at work."""
    made = []
    for number in range(1, iterations + 1):
        last = number == iterations
        states = ["Succeeded", "Succeeded", "Running", *["Pending"] * 4] if last else ["Succeeded"] * 7
        stages = [
            {"name": name, "stage": name.partition("-")[0], "state": state}
            | ({"startedAt": ago(9)} if state != "Pending" else {})
            | ({"finishedAt": ago(3)} if state == "Succeeded" else {})
            for name, state in zip(STAGES, states, strict=True)
        ]
        figures = {} if last else {"pairs": 1200, "parseRate": 0.991, "winRate": 0.55, "seconds": 3605}
        made.append({"name": f"M{number}", "stages": stages, "metrics": figures})
    found = {
        "phase": phase,
        "startedAt": ago(200),
        "currentModel": f"M{iterations - 1}",
        "iterations": made,
        "baselines": [{"name": name, "metrics": {"winRate": 0.25}} for name in baselines],
        "progress": {"percent": 41, "message": "judge 40/100 verdicts", "etaSeconds": 125},
        "conditions": [
            {"type": "Stalled", "status": "True", "reason": "SecretNotFound", "message": message,
             "lastTransitionTime": ago(1)}
        ] if message else [],
    }  # fmt: skip
    RunStatus.parse(found)
    metadata = {"name": "run", "namespace": "team", "uid": "u", "resourceVersion": "1", "generation": 1}
    return parse_run({"metadata": metadata, "spec": manifest_spec(), "status": found})


@pytest.mark.parametrize("message", ["", "word " * 400])
@pytest.mark.parametrize("iterations", [1, 3, 50])
def test_it_fits_a_small_terminal(iterations: int, message: str) -> None:
    out = io.StringIO()
    Console(file=out, width=80, height=24).print(small_screen(run(iterations, message), NOW, 80, 24))
    lines = out.getvalue().splitlines()
    assert len(lines) <= 23, "and the cursor's line"
    assert lines[0].startswith(f"team/run  Running  3h 20m  M{iterations - 1}  ")
    assert any("judge 40/100 verdicts, about 2m 05s left in this stage" in line for line in lines)
    assert any("✓ generate 6m 00s ▶ judge 9m 00s · pairs" in line for line in lines)
    rows = [line.split() for line in lines if line.startswith("M") and "/" in line]
    assert rows[-1] == [f"M{iterations}", "2/7", *([] if iterations == 1 else ["–"] * 3), "–"]
    if iterations > 1:
        assert rows[-2] == [f"M{iterations - 1}", "7/7", "1,200", "99.1%", "55.0%", "1h", "00m"]
        assert "MODEL  STAGES  PAIRS  PARSED   WINS    TIME" in lines


def test_what_m1_is_measured_against_stays_on_the_screen() -> None:
    out = io.StringIO()
    found = run(50, baselines=("M0", "SFT"))
    Console(file=out, width=80, height=24).print(small_screen(found, NOW, 80, 24))
    lines = out.getvalue().splitlines()
    assert len(lines) <= 23
    [head] = [n for n, line in enumerate(lines) if line.startswith("MODEL")]
    rows = [line.split() for line in lines[head + 1 : head + 3]]
    assert rows == [["M0", "–", "–", "25.0%"], ["SFT", "–", "–", "25.0%"]]
    assert lines[-1].split()[0] == "M50"


def test_a_log_gets_each_change_once() -> None:
    changes = Changes()
    first = list(changes.lines(run(2), NOW))
    assert [line.split("%  ")[1] for line in first[:2]] == ["Running", "M1 prompts: Succeeded"]
    assert first[-1].endswith(" 41%  M2 judge: Running")
    assert list(changes.lines(run(2), NOW)) == []
    [line] = changes.lines(run(2, "Secret team/s3 does not exist"), NOW)
    assert line.endswith("SecretNotFound: Secret team/s3 does not exist")
    assert list(changes.lines(run(2), NOW)) == []
    assert len(list(changes.lines(run(2, "Secret team/s3 does not exist"), NOW))) == 1, "again, as it came again"


@pytest.mark.parametrize(
    ("phase", "generation", "marks", "ended"),
    [
        ("Succeeded", 1, {}, True),
        ("Failed", 1, {}, True),
        ("Running", 1, {}, False),
        ("Succeeded", 2, {}, False),
        ("Failed", 1, {"retry": "again"}, False),
        ("Failed", 1, {"retry": "answered"}, True),
        ("Held", 1, {}, True),
        ("Held", 1, {"continue": "M1"}, True),
        ("Held", 1, {"continue": "M1,M2"}, False),
        ("Held", 1, {"continue": "all"}, False),
    ],
)
def test_an_end_that_somebody_has_changed_since_is_none(
    phase: Any, generation: int, marks: dict[str, str], ended: bool
) -> None:
    found = run(2)
    held = [iteration.model_copy(update={"gates": ("missed",)}) for iteration in found.status.iterations]
    known = {"phase": phase, "observed_generation": 1, "retry_token": "answered", "iterations": tuple(held)}
    annotations = {f"selfrewarding.dev/{name}": value for name, value in marks.items()}
    changed = replace(
        found, status=found.status.model_copy(update=known), generation=generation, annotations=annotations
    )
    assert has_ended(changed) is ended


async def test_it_ends_with_the_run_and_says_how(
    h: Harness, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(status, "LOOK_SECONDS", 0.05)
    await become(h, "read", monkeypatch)
    await h.start()
    await h.create("first", **SHORT)
    assert await srlm("status", "first", "-w") == 0
    out, _ = capfd.readouterr()
    assert out.splitlines()[-1].split("%  ")[1] in ("M2: is finished", "Succeeded", "M2 train: Succeeded")
    assert "M2: is finished" in out
    assert await srlm("status", "first", "-o", "json") == 0
    assert json.loads(capfd.readouterr().out)["phase"] == "Succeeded"


async def test_a_run_that_fails_or_goes(
    h: Harness, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(status, "LOOK_SECONDS", 0.05)
    await become(h, "read", monkeypatch)
    h.pods.stages.fail("train", error(65, "InputTooLong", "no row fits"))
    await h.start()
    await h.create(**SHORT)
    assert await srlm("status", "run", "-w") == 1
    assert "M2 train, attempt 1: InputTooLong: no row fits" in capfd.readouterr().out
    await h.admin.create(RUNS, h.namespace, h.manifest("held", **SHORT, suspend=True))
    watching = asyncio.create_task(srlm("status", "held", "-w"))
    said = ""
    while "Suspended" not in said:  # the watch has seen the run before it goes
        await asyncio.sleep(0.01)
        said += capfd.readouterr().out
    await h.delete("held")
    assert await watching == 1
    assert "run team/held was deleted" in capfd.readouterr().out
