"""The split that the demo's README states is the one the demo's run asks for and gets."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from srlm_contract.spec.run import RunSpec
from srlm_operator.crd.yaml12 import load_documents
from srlm_stages.demo.seed import answer_limit, chosen, token_counter
from srlm_stages.seed.formats import read_seed_data
from srlm_stages.seed.split import split_prompts

pytestmark = pytest.mark.heavy  # what the demo takes depends on the tokens of its model, which `make heavy` fetches

ROOT = Path(__file__).parents[3]
MODEL = ROOT / os.environ.get("MODEL", ".cache/models/smollm2-135m-instruct")
DEMO = ROOT / "stages/srlm_stages/demo"


def test_the_stated_split_is_the_real_one() -> None:
    (document,) = load_documents((ROOT / "crds/samples/demo.yaml").read_text(encoding="utf-8"))
    spec = RunSpec.parse(document["spec"])
    data = spec.seed_data
    prompts = read_seed_data(DEMO / "seed.trees.jsonl", data.format, data.language).prompts
    length = token_counter(MODEL)
    limit = answer_limit(prompts, length)
    assert limit == data.ift.max_answer_tokens
    split = split_prompts(
        chosen(prompts, limit, length),
        seed=spec.seed,
        ift_examples=data.ift.max_examples,
        heldout_answers=data.eft.held_out_examples,
        validation_prompts=data.validation_prompts,
        train_judge=data.eft.enabled,
    )
    heldout = sum(len(p.ranked) for p in split.ranked_heldout)
    train = sum(len(p.ranked) for p in split.ranked_train)
    readme = (DEMO / "README.md").read_text(encoding="utf-8")
    for stated in (
        f"`seedData.validationPrompts: {data.validation_prompts}` | {len(split.validation)} prompts |",
        f"`seedData.eft.heldOutExamples: {data.eft.held_out_examples}` | "
        f"{len(split.ranked_heldout)} prompts, {heldout} answers |",
        f"`seedData.ift.maxExamples: {data.ift.max_examples}` | {len(split.ift)} prompts",
        f"| ranked train | the rest | {len(split.ranked_train)} prompts, {train} answers |",
    ):
        assert stated in readme
