"""One turn of the loop on a GPU, stage after stage in this process: M0 → M1 → candidates → verdicts → pairs → M2."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from srlm_contract.keys import row_id
from srlm_contract.rows import PromptRow
from srlm_contract.spec.loop import SamplingSpec
from srlm_contract.spec.pods import EngineSpec
from srlm_contract.spec.training import DpoSpec, SftSpec
from srlm_contract.tasks import (
    ArtifactRef,
    GenerateParams,
    JudgeParams,
    PairsParams,
    ProcessSettings,
    SftParams,
    StageResult,
    TrainParams,
)
from support.stage_world import QUESTIONS, World
from support.tiny_model import build_tiny_model

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(1200)]
ENGINE = EngineSpec(name="transformers")  # its type is Auto: what this GPU multiplies natively
SAMPLING = SamplingSpec(temperature=1.0, top_p=0.95, max_tokens=24)


def test_a_turn_of_the_loop(tmp_path: Path, gpu: str) -> None:
    import torch

    world, gpus = World(tmp_path), torch.cuda.device_count()
    trainers = ProcessSettings(processes_per_node=gpus, micro_batch_size=2)

    def ref(result: StageResult) -> ArtifactRef:
        print(f"{gpu}: {result.stage}: {dict(sorted(result.statistics.items()))}")
        return world.manifest(result).ref

    m0 = build_tiny_model(tmp_path / "m0")
    sft = SftParams(sft=SftSpec(learning_rate=5e-5, min_learning_rate=0, batch_size=2 * gpus, max_length=256))
    task = world.task(sft, inputs={"data": world.seed_data()}, model=m0)
    m1 = ref(world.run(task.model_copy(update={"process": trainers}), **os.environ))
    prompts = world.put("prompts", {"prompts.jsonl": [PromptRow(id=row_id(q), prompt=q) for q in QUESTIONS]})
    generate = GenerateParams(candidates=4, sampling=SAMPLING, engine=ENGINE)
    candidates = ref(world.run(world.task(generate, inputs={"prompts": prompts, "model": m1})))
    judge = JudgeParams(scorer="ExpectedScore", min_digit_mass=0, engine=ENGINE)
    judgements = ref(world.run(world.task(judge, inputs={"candidates": candidates, "model": m1})))
    found = world.run(world.task(PairsParams(truncated="Keep"), inputs={"judgements": judgements}))
    assert found.statistics["pairs"] >= 2
    dpo = DpoSpec(learning_rate=5e-5, min_learning_rate=0, batch_size=2 * gpus, max_length=256, dropout=0)
    task = world.task(TrainParams(dpo=dpo), inputs={"pairs": ref(found), "model": m1})
    result = world.run(task.model_copy(update={"process": trainers}), **os.environ)
    ref(result)
    assert world.manifest(result).statistics["series"][0]["rewardMargin"] == pytest.approx(0, abs=1e-4)
    assert result.statistics["changedWeights"] > 0
