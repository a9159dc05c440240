"""The run that the demo makes of its sample: this machine's paths, and limits that fit the seed data."""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from srlm_cli.demo.command import DemoError, manifest
from srlm_contract.spec.run import RunSpec

FOUND = {"answerTokens": 128, "prompts": 46, "answers": 79, "of": 48}


def arguments(tmp_path: Path, seed: Path | None = None) -> argparse.Namespace:
    model = tmp_path / "model"
    model.mkdir(exist_ok=True)
    (model / "config.json").write_text("{}")
    return argparse.Namespace(seed_data=seed, model=model, folder=tmp_path / "demo", fresh=False)


def chosen(monkeypatch: pytest.MonkeyPatch, code: int = 0) -> list[list[str]]:
    """The choice of seed data without the stages' libraries; what was asked of it."""
    asked: list[list[str]] = []

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        return subprocess.CompletedProcess(command, code, json.dumps(FOUND) + "\n")

    monkeypatch.setattr(subprocess, "run", run)
    return asked


def test_limits_follow_the_seed_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, out = chosen(monkeypatch), io.StringIO()
    seed = tmp_path / "mine.jsonl"
    seed.write_text("{}")
    run = manifest(arguments(tmp_path, seed), Console(file=out, width=300))
    spec = RunSpec.parse(run["spec"])
    assert spec.seed_data.ift.max_answer_tokens == 128
    assert spec.generation.sampling.max_tokens > 128, "room for an answer that is a little longer"
    (command,) = asked
    assert str(seed) in command
    assert spec.seed_data.uri == Path(command[-1]).as_uri()
    assert not Path(command[-1]).is_relative_to(tmp_path / "demo"), "the folder of a finished demo is removed"
    assert "46 of 48 prompts with 79 answers of at most 128 tokens" in out.getvalue()


def test_other_seed_data_are_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen(monkeypatch)
    seed, uris = tmp_path / "mine.jsonl", set()
    for text in ("one", "two", "one"):
        seed.write_text(text)
        uris.add(manifest(arguments(tmp_path, seed), Console(file=io.StringIO()))["spec"]["seedData"]["uri"])
    assert len(uris) == 2


def test_seed_data_that_cannot_be_used_stop_the_demo_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen(monkeypatch, code=1)
    with pytest.raises(DemoError, match="is not a file"):
        manifest(arguments(tmp_path, tmp_path / "none.jsonl"), Console(file=io.StringIO()))
    (tmp_path / "bad.jsonl").write_text("no json")
    with pytest.raises(DemoError, match=r"bad\.jsonl cannot be used"):
        manifest(arguments(tmp_path, tmp_path / "bad.jsonl"), Console(file=io.StringIO()))


@pytest.mark.parametrize("there", [True, False])
def test_without_vllm_the_transformers_engine_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    chosen(monkeypatch)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: (there or None) if name == "vllm" else find(name))
    spec = RunSpec.parse(manifest(arguments(tmp_path), Console(file=io.StringIO()))["spec"])
    engines = {spec.stages.judge.engine.name, spec.stages.prompts.engine.name, spec.stages.evaluate.engine.name}
    assert engines == {"vllm" if there else "transformers"}


def test_no_stage_starts_an_engine_twice_where_one_core_would_wait_for_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen(monkeypatch)
    spec = RunSpec.parse(manifest(arguments(tmp_path), Console(file=io.StringIO()))["spec"])
    assert (spec.generation.shards, spec.judging.shards) == (1, 1)
