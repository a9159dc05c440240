"""Whether the loop learns: a judge from outside wants short answers, and over two iterations they become short.

The whole run is real: SmolLM2-135M as the model, vLLM, DPO through torchrun. Only the judge is a small server here,
since a model of this size is none. A second run of one iteration has the same candidates and a judge of the opposite
mind: its pairs are the first run's with chosen and rejected swapped, and its model must not get better.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
from collections.abc import Iterator
from itertools import product
from math import comb
from pathlib import Path
from typing import Any

import pytest

from e2e.machine import Machine
from e2e.runs import SEED, manifests, stage_records, statistics
from support.judge_server import JudgeServer, judge_server, said

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.vllm,
    pytest.mark.timeout(2400),
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed"),
]

MODEL = Path(__file__).parents[2] / os.environ.get("MODEL", ".cache/models/smollm2-135m-instruct")
#: Characters of a short answer: M1 gives some.
SHORT = 130
#: Longest answer, in characters, for 5, 4, ... 1 points.
BANDS = (40, 75, 110, 150, 190)
#: Asked with this temperature, the judge is of the opposite mind.
CONTRARY = 0.5
ANSWER = re.compile(r"\nAnswer:\n(.*)\n\nJustify the points", re.DOTALL)
PAIRING = re.compile(r"\nAnswer A:\n(.*)\n\nAnswer B:\n(.*)\n\nWhich answer", re.DOTALL)
KINDS = (
    "What is {}?", "Why do people like {}?", "Give one fact about {}.", "How would you explain {} to a child?",
    "What should a beginner know about {}?", "Write a sentence about {}.",
)  # fmt: skip
SUBJECTS = ("rain", "bread", "the moon", "chess", "bicycles", "honey", "volcanoes", "music")


def points(answer: str) -> int:
    """5 for the shortest answers, 0 for the longest."""
    return sum(len(answer) <= longest for longest in BANDS)


def judge(task: str, wants_short: bool) -> str:
    """What the judge replies to a task of the judge stage, or to a comparison."""
    if found := ANSWER.search(task):
        score = points(found[1].strip())
        return f"Score: {score if wants_short else 5 - score}"
    found = PAIRING.search(task)
    assert found is not None, task
    first = (len(found[1]) < len(found[2])) == wants_short
    return f"The better answer is Answer {'A' if first else 'B'}"


@pytest.fixture(scope="module")
def server() -> Iterator[JudgeServer]:
    """One for both runs: its address is in the keys of what they share."""
    with judge_server(
        lambda body, _: said(judge(body["messages"][0]["content"], body["temperature"] != CONTRARY))
    ) as started:
        yield started


def run(
    cluster: Machine, name: str, server: JudgeServer, pool: Path, iterations: int, temperature: float = 1.0
) -> dict[str, Any]:
    storage = cluster.storage()
    cpus = {"preflight": 1, "data": 1, "prompts": 1, "generate": 2, "judge": 1, "pairs": 1, "train": 2, "evaluate": 2}
    return {
        "apiVersion": "selfrewarding.dev/v1alpha1",
        "kind": "SelfRewardingRun",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "baseModel": {"uri": MODEL.as_uri()},
            "iterations": iterations,
            "storage": {**storage, "uri": f"{storage['uri']}/learns"},
            "seedData": {"uri": SEED.as_uri(), "validationPrompts": 24, "ift": {"maxExamples": 8},
                         "eft": {"enabled": False, "heldOutExamples": 0}},
            "bootstrap": {"strategy": "None"},
            "prompts": {"count": 8, "generator": {"source": "Pool", "uri": pool.as_uri()},
                        "filters": {"minWords": 1, "maxRougeL": 0.99}},
            "generation": {"candidates": 4, "shards": 1, "systemPrompt": "Answer in one or two sentences.",
                           "sampling": {"temperature": 1.0, "topP": 0.95, "maxTokens": 40}},
            "judging": {"samples": 1, "minValidSamples": 1, "shards": 1, "sampling": {"temperature": temperature},
                        "external": {"url": server.url, "model": "ruler"}},
            "preferences": {"truncated": "Keep", "lengthPenalties": [0]},
            "training": {
                "dpo": {"learningRate": 7e-5, "minLearningRate": 7e-6, "batchSize": 4, "epochs": 2, "maxLength": 128,
                        "dropout": 0},
                "checkpointEverySteps": 0, "parallelism": "DDP", "processesPerNode": 2, "microBatchSize": 2,
                "gradientCheckpointing": False,
            },
            "evaluation": {"winRate": {"prompts": 24, "judge": {"source": "External"}}},
            "gates": {"minPairs": 1, "maxLengthGrowth": 1000, "onFailure": "Continue"},
            "failurePolicy": {"backoffSeconds": 1, "stageDeadlineSeconds": 1500},
            "stages": {stage: {"resources": {"requests": {"cpu": n}}} for stage, n in cpus.items()},
        },
    }  # fmt: skip


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prompts for all iterations, so that none has to be written."""
    path = tmp_path_factory.mktemp("pool") / "pool.txt"
    path.write_text("".join(kind.format(subject) + "\n" for kind, subject in product(KINDS, SUBJECTS)))
    return path


@pytest.fixture(scope="module")
def learned(cluster: Machine, server: JudgeServer, pool: Path) -> dict[str, Any]:
    cluster.apply(run(cluster, "learns", server, pool, 2))
    cluster.until(lambda: cluster.finished("learns"), 1500, "the run did not end")
    status: dict[str, Any] = cluster.get("learns")["status"]
    assert status["phase"] == "Succeeded", cluster.describe()
    return status


def rows(cluster: Machine, status: dict[str, Any], stage: str, file: str) -> list[dict[str, Any]]:
    """Rows of a committed file of the artifact of `<model>/<stage>`."""
    key = stage_records(status)[stage]["key"]
    base = f"learns/artifacts/{stage.partition('/')[2]}/{key}"
    manifest = manifests(cluster, "learns")[f"{base}/manifest.json"]
    part = next(f["part"] for f in manifest["files"] if f["path"] == file)
    bucket = cluster.storage()["uri"].removeprefix("s3://")
    body = cluster.s3().get_object(Bucket=bucket, Key=f"{base}/parts/{part}/{file}")["Body"].read()
    return [json.loads(line) for line in body.splitlines()]


def short_answers(cluster: Machine, status: dict[str, Any], model: str) -> dict[str, bool]:
    """Whether a model's answer to each validation prompt is short and finished."""
    answers = rows(cluster, status, f"{model}/evaluate", "answers.jsonl")
    return {a["id"]: len(a["answer"]) <= SHORT and not a.get("truncated") for a in answers}


def sign_test(gained: int, lost: int) -> float:
    """P(at least `gained` of `gained + lost` changes are gains, were both as likely): the exact sign test."""
    n = gained + lost
    return sum(comb(n, k) for k in range(gained, n + 1)) / 2**n


def test_validation_answers_become_what_the_judge_wants(cluster: Machine, learned: dict[str, Any]) -> None:
    first, second, last = (short_answers(cluster, learned, model) for model in ("M1", "M2", "M3"))
    assert first.keys() == last.keys()
    gained = sum(last[i] and not first[i] for i in first)
    lost = sum(first[i] and not last[i] for i in first)
    p = sign_test(gained, lost)
    print(f"short answers of {len(first)}: {[sum(m.values()) for m in (first, second, last)]}, p = {p:.2g}")
    assert 0 < sum(first.values()) < len(first)
    assert p < 0.01, (gained, lost)


@pytest.fixture(scope="module")
def misled(cluster: Machine, learned: dict[str, Any], server: JudgeServer, pool: Path) -> dict[str, Any]:
    """One iteration with the candidates of the first run, judged by one that wants long answers."""
    cluster.apply(run(cluster, "misled", server, pool, 1, CONTRARY))
    cluster.until(lambda: cluster.finished("misled"), 900, "the second run did not end")
    status: dict[str, Any] = cluster.get("misled")["status"]
    assert status["phase"] == "Succeeded", cluster.describe()
    return status


def test_with_chosen_and_rejected_swapped_they_do_not(
    cluster: Machine, learned: dict[str, Any], misled: dict[str, Any]
) -> None:
    right, swapped = (
        {p["prompt"]: (points(p["chosen"]), points(p["rejected"])) for p in rows(cluster, s, "M2/pairs", "pairs.jsonl")}
        for s in (learned, misled)
    )
    assert right
    assert swapped == {prompt: (rejected, chosen) for prompt, (chosen, rejected) in right.items()}
    first, second = short_answers(cluster, learned, "M1"), short_answers(cluster, misled, "M2")
    gained = sum(second[i] and not first[i] for i in first)
    lost = sum(first[i] and not second[i] for i in first)
    print(f"short answers of {len(first)} with pairs swapped: {sum(first.values())}, {sum(second.values())}")
    assert gained <= lost


def test_only_what_comes_after_the_judge_ran_again(misled: dict[str, Any]) -> None:
    reused = {name for name, record in stage_records(misled).items() if record.get("reused")}
    assert reused == {"M1/data", "M1/evaluate", "M2/prompts", "M2/generate"}


def test_the_models_that_vllm_served_differ_in_their_weights(cluster: Machine, learned: dict[str, Any]) -> None:
    for model in ("M2", "M3"):
        assert statistics(cluster, "learns", stage_records(learned)[f"{model}/train"])["changedWeights"] >= 0.05
