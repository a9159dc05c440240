"""One whole run through operator, API server, Jobs, S3 and stages, while the operator is killed again and again."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from e2e.machine import Machine
from e2e.pages import fetch, reported, tables
from e2e.runs import download_model, manifests, small_run, stage_records, statistics
from srlm_contract.figures import figure_groups
from srlm_contract.status import RunStatus

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

#: The run names no storage: the operator's default is used, which is the run's namespace in the cluster's bucket.
PREFIX = "default"


@pytest.fixture(scope="module")
def finished(cluster: Machine, tiny_model: Path) -> dict[str, Any]:
    """The run after it succeeded; the operator was killed after each newly committed stage of M2."""
    run = small_run(cluster, "whole.run", tiny_model, prefix=PREFIX)
    del run["spec"]["storage"]
    cluster.apply(run)
    killed: set[str] = set()
    seen: dict[str, str] = {}

    def done() -> bool:
        status = cluster.get("whole.run").get("status", {})
        for name, stage in stage_records({"iterations": status.get("iterations", [])}).items():
            digest = stage.get("contentDigest", "")
            if digest:
                assert seen.setdefault(name, digest) == digest, f"{name} was committed twice"
            if stage["state"] == "Running" and name.startswith("M2/") and name not in killed:
                killed.add(name)
                operator = cluster.operator()
                if operator is not None:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        operator.kill()
        return cluster.finished("whole.run") is not None

    cluster.until(done, 800, "the run did not end")
    assert len(killed) >= 4, f"the operator was killed only at {killed}"
    return cluster.get("whole.run")


def test_it_succeeds_with_three_models(finished: dict[str, Any], cluster: Machine) -> None:
    status = finished["status"]
    assert status["phase"] == "Succeeded", cluster.describe()
    assert [model["name"] for model in status["models"]] == ["M1", "M2", "M3"]
    conditions = {c["type"]: c["status"] for c in status["conditions"]}
    assert conditions["Ready"] == "True"
    assert not conditions.keys() & {"Reconciling", "Stalled"}
    assert status["observedGeneration"] == finished["metadata"]["generation"]


def test_every_artifact_leads_back_to_the_seed_data(finished: dict[str, Any], cluster: Machine) -> None:
    by_digest = {m["contentDigest"]: m for m in manifests(cluster, PREFIX).values()}
    last = finished["status"]["models"][-1]["contentDigest"]
    reached: set[str] = set()
    todo = [last]
    while todo:
        manifest = by_digest[todo.pop()]
        reached.add(manifest["stage"])
        todo += [i["contentDigest"] for i in manifest["inputs"].values() if i.get("contentDigest")]
    assert reached == {"train", "pairs", "judge", "generate", "prompts", "sft", "select", "data"}


def test_report_table_status_and_manifests_say_the_same(finished: dict[str, Any], cluster: Machine) -> None:
    status = RunStatus.parse(reported(cluster, "whole.run")["status"])
    page = fetch(cluster, status.report.uri).decode()
    assert "Status and manifests disagree" not in page
    head, *body = tables(page)["models"]
    assert head == ["", "M1", "M2", "M3"]
    groups = figure_groups([iteration.metrics for iteration in status.iterations])
    assert [tuple(row) for row in body if len(row) > 1] == [row for _, rows in groups for row in rows]
    assert {row[0] for row in body} >= {
        "new prompts", "candidates", "pairs", "parse rate", "tie rate", "candidates' mean score (0–5)",
        "answer length (characters)", "training loss", "DPO reward margin", "time",
    }  # fmt: skip


def test_figures_of_status_are_those_of_the_manifests(finished: dict[str, Any], cluster: Machine) -> None:
    committed = {m["contentDigest"]: m for m in manifests(cluster, PREFIX).values()}
    records = stage_records(finished["status"])
    for iteration in finished["status"]["iterations"]:
        for metric, stage, statistic in (
            ("pairs", "pairs", "pairs"), ("tieRate", "pairs", "tieRate"), ("loss", "train", "loss"),
            ("rewardMargin", "train", "rewardMargin"), ("meanScore", "judge", "meanScore"),
            ("judgeAccuracy", "evaluate", "judgeAccuracy"), ("winRate", "evaluate", "winRate"),
        ):  # fmt: skip
            record = records.get(f"{iteration['name']}/{stage}")
            if record is not None:
                measured = committed[record["contentDigest"]]["statistics"]
                assert iteration["metrics"].get(metric, 0) == pytest.approx(measured.get(statistic, 0), rel=1e-5)


def test_lineage_names_every_artifact_of_the_run(finished: dict[str, Any], cluster: Machine) -> None:
    status = reported(cluster, "whole.run")["status"]
    lineage = json.loads(fetch(cluster, status["report"]["uri"].replace("report.html", "lineage.json")))
    digests = {a["contentDigest"] for a in lineage["artifacts"]}
    assert digests == {s["contentDigest"] for s in stage_records(status).values()}
    assert [m["artifact"]["contentDigest"] for m in lineage["models"]] == [m["contentDigest"] for m in status["models"]]


def test_a_person_fetches_a_fresh_report(finished: dict[str, Any], cluster: Machine, tmp_path: Path) -> None:
    before = reported(cluster, "whole.run")["status"]
    environ = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
    environ |= {"KUBECONFIG": str(cluster.folder / "kubeconfig"), "HOME": str(tmp_path)}
    command = [sys.executable, "-m", "srlm_cli", "report", "whole.run", "-o", str(tmp_path / "page.html")]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    assert "<!doctype html>" in (tmp_path / "page.html").read_text()
    after = cluster.get("whole.run")["status"]
    assert after["reportStage"]["attempt"] > before["reportStage"]["attempt"]
    assert (after["phase"], after["models"]) == ("Succeeded", before["models"])


def test_no_job_ran_twice_for_a_key(finished: dict[str, Any], cluster: Machine) -> None:
    ran: dict[tuple[str, str], int] = {}
    for job in cluster.jobs():
        labels = job.metadata.labels
        if labels.get("selfrewarding.dev/run") == "whole.run" and job.status.succeeded:
            where = (labels["selfrewarding.dev/iteration"], labels["selfrewarding.dev/node"])
            ran[where] = ran.get(where, 0) + 1
    assert ran
    assert {where: n for where, n in ran.items() if n > 1 and where[1] not in ("preflight", "report")} == {}


def test_training_moved_the_weights(finished: dict[str, Any], cluster: Machine) -> None:
    records = stage_records(finished["status"])
    for model in ("M2", "M3"):
        assert statistics(cluster, PREFIX, records[f"{model}/train"])["changedWeights"] >= 0.05


def test_the_last_checkpoint_loads_and_answers(finished: dict[str, Any], cluster: Machine, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    download_model(cluster, PREFIX, finished["status"]["models"][-1], tmp_path)
    assert not list(tmp_path.rglob("*.bin"))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt")
    inputs = ids["input_ids"] if hasattr(ids, "keys") else ids
    answer = loaded.generate(inputs, max_new_tokens=8, do_sample=False)
    assert answer.shape[1] > inputs.shape[1]


def test_another_beta_reuses_everything_before_training(
    finished: dict[str, Any], cluster: Machine, tiny_model: Path
) -> None:
    run = small_run(cluster, "beta", tiny_model, prefix=PREFIX)
    run["spec"]["training"]["dpo"]["beta"] = 0.3
    run["spec"]["iterations"] = 1
    cluster.apply(run)
    cluster.until(lambda: cluster.finished("beta"), 300, "the second run did not end")
    found = cluster.get("beta")
    assert found["status"]["phase"] == "Succeeded", cluster.describe()
    ours = stage_records(found["status"])
    theirs = stage_records(finished["status"])
    reused = [name for name, stage in ours.items() if stage.get("reused")]
    assert set(reused) == {name for name in theirs if name.startswith("M1/")} | {
        "M2/prompts", "M2/generate", "M2/judge", "M2/pairs",
    }  # fmt: skip
    jobs = {
        job.metadata.labels["selfrewarding.dev/node"]
        for job in cluster.jobs()
        if job.metadata.labels.get("selfrewarding.dev/run") == "beta"
    }
    assert jobs - {"report"} == {"preflight", "train", "judge-heldout"}
    assert ours["M2/evaluate"]["job"] == ours["M2/judge-heldout"]["job"], "the model is loaded once"
    assert ours["M2/train"]["contentDigest"] != theirs["M2/train"]["contentDigest"]
