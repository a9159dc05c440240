"""What commands print for programs is what operator/README.md says, in name and place."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from srlm_cli import main
from srlm_cli.answers import read_samples, sources
from srlm_cli.comparison import Comparison
from srlm_cli.listing import row
from support.builders import run
from support.report_world import make_run, spec
from support.stage_world import World

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "crds" / "samples"
#: Fields whose own names are anybody's: models, stages, figures.
FREE = ("models", "artifacts", "figures")


def documented(command: str) -> set[str]:
    """Words in backticks of the command's line."""
    text = (ROOT / "operator" / "README.md").read_text(encoding="utf-8")
    section = text.partition("### For programs")[2].partition("\n## ")[0]
    [line] = [one for one in section.splitlines() if one.startswith(f"| `srlm {command}") and "-o json" in one]
    return set(re.findall(r"`([A-Za-z]+)`", line.split("|", 2)[2]))


def names(value: Any) -> Iterator[str]:
    """Names of all fields."""
    for item in value if isinstance(value, list) else []:
        yield from names(item)
    for name, child in value.items() if isinstance(value, dict) else []:
        yield name
        inner = list(child.values()) if name in FREE and isinstance(child, dict) else child
        if name != "figures":
            yield from names(inner)


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """The document, which is all of standard output; standard error may have notes."""
    main([*arguments, "-o", "json"])
    return json.loads(capsys.readouterr().out)


def answers(folder: Path) -> Any:
    made = make_run(World(folder), spec(1))
    found = read_samples(made.world.store, sources(made.status, "M1"), 2)
    assert found is not None
    return found.wire()


def comparison(folder: Path) -> Any:
    made = make_run(World(folder), spec(1))
    return Comparison((run(made.status, name="a"), run(made.status, name="b", spec_=spec(2)))).wire()


@pytest.mark.parametrize(
    ("command", "make"),
    [("list", lambda folder: [row(run())]), ("compare", comparison), ("samples", answers)],
)
def test_documents_of_runs(command: str, make: Callable[[Path], Any], tmp_path: Path) -> None:
    found = set(names(json.loads(json.dumps(make(tmp_path)))))
    assert found
    assert found - documented(f"{command}") == set()


def test_validate(capsys: pytest.CaptureFixture[str]) -> None:
    bad = ROOT / "tests" / "support" / "manifests" / "invalid" / "unknown-field-short-slip.yaml"
    found = printed(capsys, "validate", "-f", str(bad))
    assert (found["runs"], [one["path"] for one in found["problems"]]) == (1, ["spec.storage.url"])
    assert set(names(found)) == documented("validate")
    assert main(["validate", "-f", str(bad), "-o", "json"]) == 1
    capsys.readouterr()
    assert printed(capsys, "validate", "-f", str(SAMPLES / "minimal.yaml"))["problems"] == []


def test_plan(capsys: pytest.CaptureFixture[str]) -> None:
    [found] = printed(capsys, "plan", "-f", str(SAMPLES / "minimal.yaml"))
    assert set(names(found)) == documented("plan")
    assert len(found["jobs"]) == 23
    jobs = {job["name"]: job for job in found["jobs"]}
    assert (jobs["judge"]["job"], jobs["generate"]["job"]) == ("generate", "generate")
    assert jobs["generate"]["tokens"] == 1000 * 4 * 1024
    assert (jobs["judge-ranked"]["tokens"], jobs["report"]["model"], jobs["data"]["gpuSeconds"]) == (None, None, 0)
    assert found["space"]["modelsBytes"] == 4 * found["space"]["modelBytes"]
    assert main(["plan", "-f", str(SAMPLES / "absent.yaml"), "-o", "json"]) == 1
    assert capsys.readouterr().out == ""
