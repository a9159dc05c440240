"""The card beside a model: front matter, lineage, figures; equal runs give equal cards, untrusted text stays text."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from srlm_contract.artifacts.commits import Produced
from srlm_contract.rows import PromptRow
from srlm_contract.spec.training import DpoSpec
from srlm_contract.tasks import ArtifactRef, ChooseParams, SftParams, SourceRef, StageTask, TrainParams
from srlm_stages.context import StageContext
from srlm_stages.runtime.progress import ProgressReporter
from srlm_stages.training.model_card import card
from support.stage_world import World

HUB = SourceRef(uri="hf://example/small-model", revision="0123456789abcdef")
STATISTICS = {"rows": 40.0, "steps": 5.0, "loss": 1.25, "seconds": 12.5, "tokensPerSecond": 900.0, "rewardMargin": 0.5}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def context(world: World, task: StageTask, name: str = "a") -> StageContext:
    work = world.root / f"card-{name}"
    return StageContext(
        task, world.artifacts(), world.store, work, ProgressReporter(task.stage), lambda uri: world.store
    )


def model(world: World, stage: str, inputs: dict[str, Any], key: str) -> ArtifactRef:
    folder = world.root / key
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(key.encode())
    commit = world.artifacts().commit(stage, key, Produced(folder, inputs=inputs, model=True))
    return commit.manifest.ref


def front_matter(text: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(text.split("---\n")[1])
    return found


def test_the_first_model(world: World) -> None:
    data = world.put("data", {"validation.jsonl": [PromptRow(id="0" * 16, prompt="?")]})
    task = world.task(SftParams(), inputs={"data": data}, sources={"model": HUB}, iteration=0, seed=7)
    text = card(context(world, task), STATISTICS)
    assert front_matter(text) == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "base_model": "example/small-model",
        "tags": ["self-rewarding", "sft"],
    }
    assert "\n# M1\n" in text
    assert data.content_digest in text
    assert task.key in text
    assert "| loss, last quarter of the steps | 1.25 |" in text
    assert "from_pretrained" in text
    assert "licence of the base model" in text


def test_a_later_model_names_all_before_it(world: World) -> None:
    first = model(world, "sft", {"model": HUB}, "a" * 24)
    second = model(world, "train", {"model": first}, "b" * 24)
    pairs = world.put("pairs", {"pairs.jsonl": []})
    task = world.task(TrainParams(dpo=DpoSpec(beta=0.3)), inputs={"model": second, "pairs": pairs}, iteration=2)
    text = card(context(world, task), STATISTICS)
    assert front_matter(text)["base_model"] == "example/small-model"
    assert front_matter(text)["tags"] == ["self-rewarding", "dpo"]
    order = [text.index(part) for part in ("0123456789abcdef", first.content_digest, second.content_digest, task.key)]
    assert order == sorted(order)
    assert json.loads(text.split("```json\n")[1].split("\n```")[0])["dpo"] == {"beta": 0.3}


def test_the_choice_of_a_checkpoint(world: World) -> None:
    first = model(world, "sft", {"model": HUB}, "a" * 24)
    trained = model(world, "train", {"model": first}, "b" * 24)
    task = world.task(ChooseParams(), inputs={"train": trained, "judge": first}, iteration=1)
    text = card(context(world, task), {"checkpoints": 3, "chosenStep": 200, "winRate": 0.6})
    assert "| step chosen (-1: the last) | 200 |" in text
    assert first.content_digest in text


def test_equal_runs_give_equal_cards(world: World, tmp_path: Path) -> None:
    """Nothing of time, place, run or speed is in it; the place of a source with a digest neither."""
    texts = set()
    for i, place in enumerate(("file:///somewhere/model", "s3://elsewhere/model")):
        source = SourceRef(uri=place, revision="sha256:" + "5" * 64)
        task = world.task(SftParams(), sources={"model": source}, key="c" * 24, iteration=0)
        task = task.model_copy(
            update={
                "run": task.run.model_copy(update={"name": f"run-{i}", "uid": str(i)}),
                "attempt": i + 1,
                "node": f"0/sft{'-ift' * i}",
            }
        )
        speed = {"seconds": 10.0 + i, "tokensPerSecond": 3.0 * i, "processes": float(i)}
        texts.add(card(context(world, task, str(i)), STATISTICS | speed))
    assert len(texts) == 1
    assert "base_model" not in front_matter(texts.pop())


def test_a_lost_ancestor_loses_no_training(world: World) -> None:
    lost = ArtifactRef(stage="sft", key="d" * 24, content_digest="sha256:" + "1" * 64)
    text = card(context(world, world.task(TrainParams(), inputs={"model": lost})), STATISTICS)
    assert lost.content_digest in text


def test_untrusted_text_stays_text(world: World) -> None:
    """Nothing given by others opens HTML, ends the code block or adds a front matter field."""
    evil = "</code><script>alert(1)</script>\n```\n---\nlicense: evil\n---\n| [x](javascript:alert(1)) \u202e"
    source = SourceRef(uri=f"hf://a/b{evil}", revision=f"main{evil}", file=evil)
    task = world.task(SftParams(system_prompt=evil), sources={"model": source}, iteration=0)
    text = card(context(world, task), STATISTICS)
    assert "<" not in text
    assert text.count("```") == 4
    assert "license" not in front_matter(text)
    assert "base_model" not in front_matter(text)
    assert text.isascii()
    assert not re.search(r"\]\(javascript", text.split("```json")[0])
    assert json.loads(text.split("```json\n")[1].split("\n```")[0])["systemPrompt"] == evil
