"""Run manifests for end-to-end tests: the whole loop in the smallest sizes that still mean something."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from e2e.machine import Machine
from srlm_contract.stages import INFERENCE, TRAINERS

SEED = Path(__file__).parents[2] / "stages/srlm_stages/demo/seed.trees.jsonl"


def small_run(
    cluster: Machine,
    name: str,
    model: Path,
    *,
    prefix: str,
    engine: str = "transformers",
    seed_data: Path = SEED,
) -> dict[str, Any]:
    """A run of every stage with a tiny model."""
    storage = cluster.storage()
    stages: dict[str, Any] = {
        stage: {"resources": {"requests": {"cpu": 1}}} for stage in ("preflight", "data", "select", "pairs", *INFERENCE)
    }
    for stage in INFERENCE:
        stages[stage]["engine"] = {"name": engine}
    for stage in TRAINERS:
        stages[stage] = {"resources": {"requests": {"cpu": 2}}}
    return {
        "apiVersion": "selfrewarding.dev/v1alpha1",
        "kind": "SelfRewardingRun",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "baseModel": {"uri": model.as_uri()},
            "iterations": 2,
            "storage": {**storage, "uri": f"{storage['uri']}/{prefix}"},
            "seedData": {
                "uri": seed_data.as_uri(),
                "validationPrompts": 4,
                "ift": {"maxExamples": 16},
                "eft": {"maxExamples": 8, "heldOutExamples": 8},
            },
            "bootstrap": {"sft": {"learningRate": 1e-3, "minLearningRate": 1e-4, "batchSize": 4, "epochs": 1,
                                  "maxLength": 1024, "dropout": 0}},
            "prompts": {"count": 6, "style": "Completion", "filters": {"minWords": 1, "maxRougeL": 0.99},
                        "sampling": {"temperature": 1.0, "topP": 1.0, "maxTokens": 24}},
            "generation": {"candidates": 3, "shards": 2,
                           "sampling": {"temperature": 1.0, "topP": 1.0, "maxTokens": 48}},
            "judging": {"samples": 1, "minValidSamples": 1, "constrain": "ScoreLine", "unconstrainedSample": 2,
                        "shards": 1, "sampling": {"temperature": 1.0, "topP": 1.0, "maxTokens": 32}},
            "preferences": {"truncated": "Keep", "lengthPenalties": [0]},
            "training": {
                "dpo": {"learningRate": 1e-3, "minLearningRate": 1e-4, "batchSize": 4, "epochs": 2,
                        "maxLength": 512, "dropout": 0},
                "checkpointEverySteps": 0, "parallelism": "DDP", "processesPerNode": 2, "microBatchSize": 2,
                "gradientCheckpointing": False,
            },
            "evaluation": {"winRate": {"prompts": 3}},
            "gates": {"minPairs": 1, "minParseRate": 0, "maxLengthGrowth": 1000, "onFailure": "Continue"},
            "failurePolicy": {"backoffSeconds": 1, "stageDeadlineSeconds": 600},
            "stages": stages,
        },
    }  # fmt: skip


def manifests(cluster: Machine, prefix: str) -> dict[str, dict[str, Any]]:
    """Every committed manifest below a prefix, by object key."""
    s3, bucket = cluster.s3(), cluster.storage()["uri"].removeprefix("s3://")
    found = {}
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/artifacts/"):
        for entry in page.get("Contents", []):
            parts = entry["Key"].removeprefix(f"{prefix}/artifacts/").split("/")
            if len(parts) == 3 and parts[2] == "manifest.json":
                found[entry["Key"]] = json.loads(s3.get_object(Bucket=bucket, Key=entry["Key"])["Body"].read())
    return found


def statistics(cluster: Machine, prefix: str, record: dict[str, Any]) -> dict[str, Any]:
    """All that the manifest of a stage record's artifact says; the record itself has what figures are made of."""
    key = f"{prefix}/artifacts/{record['stage']}/{record['key']}/manifest.json"
    found: dict[str, Any] = manifests(cluster, prefix)[key]["statistics"]
    return found


def stage_records(status: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Stage records by `<model>/<name>`."""
    return {
        f"{iteration['name']}/{stage['name']}": stage
        for iteration in status["iterations"]
        for stage in iteration["stages"]
    }


def download_model(cluster: Machine, prefix: str, model: dict[str, Any], folder: Path) -> Path:
    """The files of a model of `status.models`, as its manifest lists them."""
    base = f"{prefix}/artifacts/{model['stage']}/{model['key']}"
    bucket = cluster.storage()["uri"].removeprefix("s3://")
    for file in manifests(cluster, prefix)[f"{base}/manifest.json"]["files"]:
        target = folder / file["path"]
        target.parent.mkdir(parents=True, exist_ok=True)
        cluster.s3().download_file(bucket, f"{base}/parts/{file['part']}/{file['path']}", str(target))
    return folder
