"""The sample with every stage of the method, as a user applies it, with a tiny model instead of a small one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from e2e.machine import Machine
from e2e.runs import SEED, manifests, stage_records, statistics
from srlm_operator.crd.yaml12 import load_documents

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

SAMPLE = Path(__file__).parents[2] / "crds/samples/one-machine-paper.yaml"
NAME = "one-machine-paper"


def sample(model: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(rubric, run): smaller still, and with what noise of a random model can keep."""
    rubric, run = load_documents(SAMPLE.read_text())
    spec = run["spec"]
    spec["baseModel"]["uri"], spec["seedData"]["uri"] = model.as_uri(), SEED.as_uri()
    spec["iterations"] = 1
    spec["seedData"] |= {"validationPrompts": 4, "ift": {"maxExamples": 16}}
    spec["seedData"]["eft"] |= {"maxExamples": 8, "heldOutExamples": 8}
    spec["prompts"] |= {"count": 6, "filters": {"minWords": 1, "maxRougeL": 0.99}}
    spec["prompts"]["sampling"] = {"temperature": 1.0, "topP": 1.0, "maxTokens": 24}
    spec["generation"]["sampling"] = {"temperature": 1.0, "topP": 1.0, "maxTokens": 48}
    spec["judging"] |= {"samples": 2, "minDigitMass": 0, "shards": 1}
    spec["judging"]["sampling"] = {"temperature": 1.0, "topP": 1.0, "maxTokens": 32}
    spec["preferences"] |= {"truncated": "Keep", "minYield": {"pairs": 7, "maxRounds": 2}}
    spec["training"]["dpo"] |= {"batchSize": 4, "maxLength": 512}
    spec["bootstrap"]["sft"] |= {"batchSize": 4, "maxLength": 1024}
    spec["evaluation"]["winRate"]["prompts"] = 3
    spec["gates"] = {"minPairs": 1, "minParseRate": 0.9, "maxTieRate": 1, "maxLengthGrowth": 100, "minJudgeAccuracy": 0}
    for stage in ("prompts", "generate", "judge", "choose", "evaluate"):
        spec["stages"][stage]["engine"] = {"name": "transformers"}
    return rubric, run


@pytest.fixture(scope="module")
def status(cluster: Machine, tiny_model: Path) -> dict[str, Any]:
    rubric, run = sample(tiny_model)
    run["spec"]["storage"] = {**cluster.storage(), "uri": cluster.storage()["uri"] + "/paper"}
    cluster.core.create_namespaced_config_map("default", rubric)
    cluster.apply(run)
    cluster.until(lambda: cluster.finished(NAME), 800, "the run did not end")
    found: dict[str, Any] = cluster.get(NAME)["status"]
    return found


def test_every_stage_of_the_method_ran(status: dict[str, Any], cluster: Machine) -> None:
    assert status["phase"] == "Succeeded", cluster.describe()
    records = stage_records(status)
    assert {name for name, record in records.items() if record["state"] == "Succeeded"} == {
        "M1/data", "M1/sft-ift", "M1/judge-ranked", "M1/select", "M1/sft", "M1/judge-heldout", "M1/evaluate",
        "M2/prompts", "M2/generate", "M2/judge", "M2/pairs", "M2/prompts-r2", "M2/generate-r2", "M2/judge-r2",
        "M2/pairs-r2", "M2/train", "M2/choose", "M2/judge-heldout", "M2/evaluate",
    }  # fmt: skip
    assert status["models"][1]["stage"] == "choose"


def test_what_each_of_them_left(status: dict[str, Any], cluster: Machine) -> None:
    found = {manifest["stage"]: manifest for manifest in manifests(cluster, "paper").values()}
    judged, chosen, trained = (found[stage] for stage in ("judge", "choose", "train"))
    assert judged["parameters"]["rubric"].startswith("sha256:")
    assert {"shadowAgreement", "scoreEntropy"} <= set(statistics(cluster, "paper", stage_records(status)["M2/judge"]))
    assert chosen["statistics"]["checkpoints"] >= 2
    assert any(file["path"].startswith("steps/1/") for file in trained["files"])
    series = trained["statistics"]["series"]
    assert [row["step"] for row in series] == list(range(1, len(series) + 1))
    assert all({"loss", "rewardMargin", "gradientNorm", "learningRate", "tokens"} <= set(row) for row in series)
    assert series[0]["learningRate"] == 1e-6
    assert trained["statistics"]["processes"] == 2
    pairs = stage_records(status)["M2/pairs-r2"]["statistics"]
    assert trained["statistics"]["rows"] == pairs["pairs"]
    met = statistics(cluster, "paper", stage_records(status)["M2/evaluate"])
    # A random model seldom means A or B: what it says instead is unreadable, not a tie.
    assert sum(met[name] for name in ("wins", "ties", "losses", "unreadable")) == 3
