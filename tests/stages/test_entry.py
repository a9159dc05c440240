"""`python -m srlm_stages` as a pod runs it: a process, S3 over HTTP, exit code and termination message."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from contract.artifacts.faulty_s3 import Fault, S3Server, error
from srlm_contract.artifacts.s3 import S3Store
from srlm_contract.keys import row_id
from srlm_contract.progress import parse_progress
from srlm_contract.rows import Candidate, PromptRow
from srlm_contract.spec.loop import ExternalJudgeSpec
from srlm_contract.spec.storage import Place
from srlm_contract.tasks import (
    ArtifactRef,
    JudgeParams,
    StorageLocation,
)
from srlm_stages.run import model_cache
from support.early_signal import end_while_importing
from support.judge_server import judge_server
from support.s3_world import s3_endpoint
from support.stage_pod import Pod, pool_task
from support.stage_world import World
from support.unmapped import unmapped


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3_endpoint(tmp_path_factory.mktemp("s3")) as url:
        yield url


@pytest.fixture
def world(endpoint: str, tmp_path: Path) -> World:
    return World(tmp_path, S3Store.open(Place(uri=f"s3://world/{tmp_path.name}", endpoint_url=endpoint)))


def test_a_stage_commits_and_a_second_pod_finds_it_done(world: World, endpoint: str, tmp_path: Path) -> None:
    task = pool_task(world, endpoint, tmp_path)
    first = Pod("prompts", task, tmp_path)
    code, result = first.end()
    assert code == 0, first.err
    assert result.statistics["prompts"] == 1
    assert result.manifest_uri == f"s3://world/{tmp_path.name}/artifacts/prompts/{task.key}/manifest.json"
    assert world.manifest(result).content_digest == result.content_digest
    progress = parse_progress(first.out.splitlines())
    assert progress is not None
    assert (progress.stage, progress.done, progress.total) == ("prompts", 1, 1)
    assert list((tmp_path / "work").iterdir()) == []

    nameless = Pod("prompts", task, tmp_path, command=unmapped("srlm_stages", "prompts"))
    code, again = nameless.end()
    assert code == 0, nameless.err
    assert again.reused
    assert (again.content_digest, again.statistics) == (result.content_digest, result.statistics)


def test_a_repair_makes_a_damaged_artifact_again(world: World, endpoint: str, tmp_path: Path) -> None:
    task = pool_task(world, endpoint, tmp_path)
    _, result = Pod("prompts", task, tmp_path).end()
    [entry] = world.manifest(result).files
    world.store.put(f"artifacts/prompts/{task.key}/parts/{entry.part}/{entry.path}", b"changed")
    code, repaired = Pod("prompts", task.model_copy(update={"repair": True}), tmp_path, SRLM_POD_UID="pod-2").end()
    assert code == 0
    assert not repaired.reused
    assert repaired.content_digest == result.content_digest
    assert len(world.rows(repaired, "prompts.jsonl", PromptRow)) == 1


@pytest.mark.parametrize(
    ("stage", "task", "says"),
    [
        ("prompts", None, "SRLM_TASK is not set"),
        ("prompts", "{not json", "does not fit"),
        ("prompts", '{"stage": "prompts"}', "params: Field required"),
    ],
)
def test_an_invalid_task_is_64_and_names_the_field(stage: str, task: str | None, says: str, tmp_path: Path) -> None:
    code, result = Pod(stage, task, tmp_path).end()
    assert code == 64
    assert result.error is not None
    assert result.error.reason == "InvalidTask"
    assert says in result.error.message


def test_an_image_without_what_the_stage_needs_is_64(world: World, endpoint: str, tmp_path: Path) -> None:
    """As when a run names the light image for training."""
    without = tmp_path / "site"
    without.mkdir()
    (without / "sitecustomize.py").write_text("import sys; sys.modules['boto3'] = None")
    path = os.pathsep.join([str(without), *(p for p in sys.path if p)])
    code, result = Pod("prompts", pool_task(world, endpoint, tmp_path), tmp_path, PYTHONPATH=path).end()
    assert code == 64
    assert result.error is not None
    assert result.error.reason == "InvalidTask"
    assert "no boto3, which the stage prompts needs" in result.error.message
    assert "self-rewarding-operator[inference]" in result.error.message


def test_the_wrong_stage_or_shard_is_64(world: World, endpoint: str, tmp_path: Path) -> None:
    task = pool_task(world, endpoint, tmp_path)
    code, result = Pod("judge", task, tmp_path).end()
    assert code == 64
    assert result.error is not None
    assert "task is for stage 'prompts'" in result.error.message
    code, result = Pod("prompts", task.model_copy(update={"shards": 4}), tmp_path).end()
    assert code == 64
    assert result.error is not None
    assert "JOB_COMPLETION_INDEX" in result.error.message


def test_a_missing_input_is_65_and_names_the_artifact(world: World, endpoint: str, tmp_path: Path) -> None:
    task = pool_task(world, endpoint, tmp_path)
    gone = ArtifactRef(stage="data", key="0123456789abcdef01234567", content_digest="sha256:" + "0" * 64)
    code, result = Pod("prompts", task.model_copy(update={"inputs": {"data": gone}}), tmp_path).end()
    assert code == 65
    assert result.error is not None
    assert result.error.reason == "InputDamaged"
    assert result.error.artifact == gone


def test_a_bucket_that_does_not_exist_is_77(world: World, endpoint: str, tmp_path: Path) -> None:
    task = pool_task(world, endpoint, tmp_path, uri="s3://no-such-bucket/x")
    code, result = Pod("prompts", task, tmp_path).end()
    assert code == 77
    assert result.error is not None
    assert result.error.reason == "StorageNotFound"


@pytest.mark.parametrize(
    ("fault", "times", "code"),
    [(error(503, "SlowDown"), 2, 0), (error(403, "AccessDenied"), 1, 77)],
)
def test_failed_requests_are_told_whether_the_stage_succeeds_or_not(
    endpoint: str, tmp_path: Path, fault: Any, times: int, code: int
) -> None:
    server = S3Server.start()
    try:
        boto3.client("s3", endpoint_url=server.url, region_name="us-east-1").create_bucket(Bucket="world")
        world = World(tmp_path, S3Store.open(Place(uri=f"s3://world/{tmp_path.name}", endpoint_url=server.url)))
        task = pool_task(world, server.url, tmp_path)
        server.app.faults = [Fault("PUT", f"/prompts/{task.key}/", fault, times=times)]
        ended, result = Pod("prompts", task, tmp_path).end()
    finally:
        server.stop()
    assert ended == code
    assert result.storage_errors == times
    assert (result.error is None) == (code == 0)


def test_a_judge_that_repeats_its_key_tells_nobody(world: World, endpoint: str, tmp_path: Path) -> None:
    key = 'sk-canary/"7+x'
    row = Candidate(id=row_id("q", "a"), prompt_id=row_id("q"), prompt="q", answer="a", sample=0, tokens=1)
    inputs = {"candidates": world.put("generate", {"candidates.jsonl": [row]})}

    def refuse(body: dict[str, Any], number: int) -> tuple[int, Any]:
        return 401, {"error": f"Incorrect API key provided: {key}"}

    with judge_server(refuse) as server:
        task = world.task(JudgeParams(external=ExternalJudgeSpec(url=server.url, model="m")), inputs=inputs)
        location = StorageLocation(uri=f"s3://world/{tmp_path.name}", endpoint_url=endpoint)
        pod = Pod("judge", task.model_copy(update={"storage": location}), tmp_path, SRLM_JUDGE_API_KEY=key)
        code, result = pod.end()
        assert server.keys == {f"Bearer {key}"}
    assert code == 77
    assert result.error is not None
    assert "Incorrect API key provided: [SRLM_JUDGE_API_KEY]" in result.error.message
    assert "sk-canary" not in pod.log.read_text() + pod.out + pod.err


def test_sigterm_ends_a_waiting_stage_at_once(world: World, endpoint: str, tmp_path: Path) -> None:
    row = Candidate(id=row_id("q", "a"), prompt_id=row_id("q"), prompt="q", answer="a", sample=0, tokens=1)
    inputs = {"candidates": world.put("generate", {"candidates.jsonl": [row]})}
    import threading

    forever = threading.Event()

    def hang(body: dict[str, Any], number: int) -> tuple[int, Any]:
        forever.wait(60)
        return 500, "too late"

    with judge_server(hang) as server:
        params = JudgeParams(external=ExternalJudgeSpec(url=server.url, model="m"))
        task = world.task(params, inputs=inputs)
        location = StorageLocation(uri=f"s3://world/{tmp_path.name}", endpoint_url=endpoint)
        pod = Pod("judge", task.model_copy(update={"storage": location}), tmp_path)
        assert server.asked.wait(60)
        pod.process.send_signal(signal.SIGTERM)
        code, result = pod.end()
        forever.set()
    assert code == 143
    assert result.error is not None
    assert result.error.reason == "Disrupted"
    assert list((tmp_path / "work").iterdir()) == []
    assert world.artifacts().lookup("judge", task.key) is None


def test_a_cache_that_cannot_be_written_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert model_cache({}) is None
    assert model_cache({"SRLM_MODEL_CACHE": str(tmp_path / "absent")}) is None
    found = model_cache({"SRLM_MODEL_CACHE": str(tmp_path), "SRLM_MODEL_CACHE_BYTES": "1000"})
    assert found is not None
    assert (found.root, found.max_bytes) == (tmp_path, 1000)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    assert model_cache({"SRLM_MODEL_CACHE": str(tmp_path)}) is None


def test_sigterm_during_imports_ends_the_stage(tmp_path: Path) -> None:
    assert end_while_importing(tmp_path, "srlm_stages.run", ["srlm_stages", "preflight"]) == (143, "importing\n")
