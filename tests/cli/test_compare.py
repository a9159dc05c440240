"""`srlm compare`: runs side by side, as a table, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import re
from typing import Any

import pytest
from rich.console import Console

from srlm_cli import compare
from srlm_cli.comparison import Comparison, rows
from srlm_contract.status import RunStatus
from srlm_operator.values import Run
from support.builders import run, spec
from support.cluster.harness import SHORT, Harness
from support.person import become, srlm

STAGES = ("prompts", "generate", "judge", "pairs", "train", "evaluate")


def stages(*keys: str) -> list[dict[str, Any]]:
    """The loop's stages with these keys; the others have not begun."""
    given = dict(zip(STAGES, keys, strict=False))
    return [
        {"name": name, "stage": name, "state": "Succeeded", "key": given[name], "contentDigest": f"of {given[name]}"}
        if name in given
        else {"name": name, "stage": name, "state": "Pending"}
        for name in STAGES
    ]


def made(name: str, keys: str, figures: dict[str, Any], **changes: Any) -> Run:
    """A run whose M1 is that of everybody, and whose M2 has a key a letter."""
    first = [{"name": "sft", "stage": "sft", "state": "Succeeded", "key": "s", "contentDigest": "of s"}]
    status = RunStatus.parse(
        {
            "phase": "Running",
            "progress": {"percent": 41},
            "iterations": [
                {"name": "M1", "stages": first, "metrics": {"loss": 1.5, "tokens": 4000}},
                {"name": "M2", "stages": stages(*keys), "metrics": figures},
            ],
        }
    )
    return run(status, spec_=spec(**changes), name=name)


A = made("base", "abcdef", {"pairs": 600, "winRate": 0.5, "judgeAccuracy": 0.61, "judgeAccuracyPairs": 120})
B = made("sharp", "abcdxy", {"pairs": 600, "winRate": 0.625, "seconds": 3605}, training={"dpo": {"beta": 0.2}})
C = made("other", "m", {"pairs": 12}, seed=7, training={"dpo": {"beta": 0.1}})


def printed(found: Comparison, width: int = 80) -> str:
    out = io.StringIO()
    compare._print_table(found, Console(file=out, width=width))
    return out.getvalue()


def cells(text: str) -> dict[str, list[str]]:
    """Cells of each line, two blanks apart, by the first one."""
    lines = ([cell for cell in line.split("  ") if cell.strip()] for line in text.splitlines())
    return {found[0].strip(): [cell.strip() for cell in found[1:]] for found in lines if found}


def test_what_differs_stands_on_top_and_figures_follow_model_by_model() -> None:
    text = printed(Comparison((A, B)))
    assert [line.split()[0] for line in text.splitlines()[:3]] == ["base", "state", "training.dpo.beta"]
    found = cells(text)
    assert found["training.dpo.beta"] == ["0.1", "0.2"]
    assert found["win rate"] == ["50.0%", "62.5%"]
    assert found["judge agrees with people"] == ["61.0%", "–"]
    assert found["… pairs of answers"] == ["120", "–"]
    assert found["time"] == ["–", "1h 00m"]
    assert "tie rate" not in found, "nobody measured it"


def test_shared_artifacts_are_marked() -> None:
    text = printed(Comparison((A, B, C)))
    assert cells(text)["shared artifacts"] == ["4 of 6", "4 of 6", "0 of 1"]
    assert "M1  sft: base, sharp, other" in text
    assert "M2  prompts, generate, judge, pairs: base, sharp" in text


def test_three_runs_fit_a_small_terminal() -> None:
    lines = printed(Comparison((A, B, C))).splitlines()
    assert max(map(len, lines)) <= 80
    assert not any(re.search(r"\w…", line) for line in lines), "nothing is cut"


def test_settings_reach_no_terminal_as_they_are() -> None:
    text = printed(Comparison((A, made("evil", "a", {}, generation={"systemPrompt": "\x1b[2J[bold]x"}))))
    assert "⟨U+001B⟩[2J[bold]x" in text


def test_the_same_settings_are_told() -> None:
    assert "The settings are the same." in printed(Comparison((A, made("twin", "abcdef", {}))))


def test_runs_of_one_name_are_told_apart() -> None:
    twin = made("base", "abcdef", {})
    elsewhere = Run(**{**twin.__dict__, "namespace": "other"})
    assert Comparison((A, elsewhere)).names == ("team/base", "other/base")


def test_baselines_stand_before_the_models() -> None:
    status = A.status.wire(defaults=False) | {"baselines": [{"name": "M0", "metrics": {"winRate": 0.125}}]}
    found = Comparison((Run(**{**A.__dict__, "status": RunStatus.parse(status)}), B))
    assert (found.models, found.trained) == (("M0", "M1", "M2"), ("M1", "M2"))
    assert found.figures("M0")[0] == ("win rate", "12.5%", "–")
    assert found.wire()["runs"][0]["models"]["M0"]["figures"]["winRate"] == 0.125


def test_a_row_a_figure_for_spreadsheets() -> None:
    table = {(part, name): values for part, name, values in rows(Comparison((A, B, C)))}
    assert table["settings", "training.dpo.beta"] == (0.1, 0.2, 0.1)
    assert table["settings", "seed"] == (0, 0, 7)
    assert table["M2", "winRate"] == (0.5, 0.625, None)
    assert table["M2", "artifact train"] == ("e", "x", None)
    assert ("M2", "tieRate") not in table


def test_what_programs_read() -> None:
    found = Comparison((A, B, C)).wire()
    assert found["settings"][-1] == {"path": "training.dpo.beta", "values": [0.1, 0.2, 0.1]}
    assert found["runs"][1]["models"]["M2"]["figures"]["winRate"] == 0.625
    assert found["runs"][2]["models"]["M2"]["artifacts"] == {
        "prompts": {"stage": "prompts", "key": "m", "contentDigest": "of m"}
    }
    assert {"model": "M1", "stage": "sft", "key": "s", "runs": ["base", "sharp", "other"]} in found["shared"]


async def test_runs_of_a_cluster(
    h: Harness, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    await become(h, "read", monkeypatch)
    await h.start()
    for name, beta in (("first", 0.1), ("second", 0.3)):
        await h.create(name, **SHORT, training={"dpo": {"beta": beta}})
        await h.until(lambda name=name: h.condition("Ready", name))
    assert await srlm("compare", "first", "team/second", "-o", "json") == 0
    found = json.loads(capfd.readouterr().out)
    assert found["settings"] == [{"path": "training.dpo.beta", "values": [0.1, 0.3]}]
    assert [(one["model"], one["stage"]) for one in found["shared"]][-1] == ("M2", "pairs")
    assert await srlm("compare", "first", "second", "-o", "csv") == 0
    table = list(csv.reader(io.StringIO(capfd.readouterr().out)))
    assert table[:2] == [["part", "row", "first", "second"], ["settings", "training.dpo.beta", "0.1", "0.3"]]
    assert await srlm("compare", "first", "absent") == 1
    assert "run absent does not exist in namespace team" in capfd.readouterr().err
