"""sft and train from task to committed model, under torchrun with a tiny model.

Processes take 10 s to import torch and TRL on a slow machine: there are two where what two do is looked at.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from srlm_contract.artifacts.layout import EVENTS_FILE
from srlm_contract.artifacts.manifest import Manifest
from srlm_contract.artifacts.s3 import S3Store
from srlm_contract.errors import BadInput, InvalidTask
from srlm_contract.rows import EftExample, Positive, PreferencePair, SeedExample
from srlm_contract.spec.storage import Place
from srlm_contract.spec.tracking import TrackingSpec
from srlm_contract.spec.training import DpoSpec, LoraSpec, SftSpec
from srlm_contract.tasks import ArtifactRef, ProcessSettings, SftParams, StageResult, StageTask, TrainParams
from support.s3_world import WRITER, Server, server
from support.stage_world import QUESTIONS, World
from support.tiny_model import build_tiny_model

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(600)]
DPO = DpoSpec(learning_rate=5e-5, min_learning_rate=5e-6, batch_size=4, max_length=256, dropout=0)
SFT = SftSpec(learning_rate=5e-5, min_learning_rate=5e-6, batch_size=4, epochs=1, max_length=256, dropout=0.1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = build_tiny_model(tmp_path_factory.mktemp("models") / "tiny")
    (folder / "pytorch_model.bin").write_bytes(b"a pickle that must not travel")
    return folder


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def pair(number: int, chosen: str = "Yes, here is a good answer.", rejected: str = "No.") -> PreferencePair:
    return PreferencePair(
        id=f"{number:016x}", prompt=f"{QUESTIONS[number % 6]} {number}", chosen=f"{chosen} {number}", rejected=rejected,
        chosen_id="a", rejected_id="b", chosen_score=4, rejected_score=1,
    )  # fmt: skip


def train_task(
    world: World, model: Path, params: Any, inputs: dict[str, ArtifactRef], processes: int = 1, **process: Any
) -> StageTask:
    settings = ProcessSettings(
        processes_per_node=processes, micro_batch_size=2, gradient_checkpointing=False, **process
    )
    return world.task(params, inputs=inputs, model=model).model_copy(update={"process": settings})


def run(world: World, task: StageTask) -> tuple[StageResult, Manifest, Path]:
    """Result, manifest and the model's folder."""
    result = world.run(task, **os.environ)
    manifest = world.manifest(result)
    folder = world.root / "result"
    world.artifacts().fetch(manifest.ref, folder)
    return result, manifest, folder


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return dict(load_file(folder / "model.safetensors"))


def answer(folder: Path) -> str:
    """What the saved model says, in plain transformers."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    turns = [{"role": "user", "content": QUESTIONS[0]}]
    prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    generated = model.generate(**prompt, max_new_tokens=8, do_sample=False)
    text: str = tokenizer.decode(generated[0, prompt["input_ids"].shape[1] :])
    return text


def test_preference_training_moves_the_model_towards_chosen_answers(world: World, model: Path) -> None:
    pairs = world.put("pairs", {"pairs.jsonl": [pair(i) for i in range(12)] + [pair(99, "long " * 400)]})
    task = train_task(
        world, model, TrainParams(dpo=DPO.model_copy(update={"epochs": 2.0})), {"pairs": pairs}, processes=2
    )
    result, manifest, folder = run(world, task)
    figures = result.statistics
    assert (figures["rows"], figures["rowsDropped"], figures["steps"], figures["processes"]) == (13, 1, 6, 2)
    assert "1 of 13 rows are longer than maxLength" in result.warnings[0]
    assert figures["rewardMargin"] > 0
    assert figures["rewardAccuracy"] > 0.5
    assert figures["changedWeights"] >= 0.05
    series = manifest.statistics["series"]
    assert [row["step"] for row in series] == [1, 2, 3, 4, 5, 6]
    assert {"loss", "rewardMargin", "rewardAccuracy", "gradientNorm", "learningRate", "tokens"} <= set(series[0])
    assert series[0]["learningRate"] == 5e-5
    assert series[-1]["loss"] < series[0]["loss"]
    assert not [f.path for f in manifest.files if f.path.endswith((".bin", ".pt"))]
    ours, theirs = (json.loads((f / "config.json").read_text()) for f in (folder, model))
    assert ours == theirs
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        assert (folder / name).read_bytes() == (model / name).read_bytes()
    assert answer(folder)


def test_supervised_training_on_seed_and_judge_tasks(
    world: World, model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = world.put(
        "data",
        {"ift.jsonl": [SeedExample(id=f"{i:016x}", prompt=QUESTIONS[i % 6], answer=f"Answer {i}.") for i in range(7)]},
    )
    eft = world.put("select", {"eft.jsonl": [
        EftExample(id="0" * 16, prompt="Judge this.", answer="Fine.\nScore: 4", score=4)]})  # fmt: skip
    params = SftParams(sft=SFT, system_prompt="Be short.", save_dtype="BFloat16")
    tracking = TrackingSpec.parse({"tensorboard": {}, "mlflow": {"uri": "http://127.0.0.1:9"}})
    task = train_task(world, model, params, {"data": data, "eft": eft})
    result, manifest, folder = run(world, task.model_copy(update={"tracking": tracking}))
    assert (result.statistics["rows"], result.statistics["steps"]) == (8, 2)
    (warning,) = result.warnings
    assert warning.startswith("tracking.mlflow has not got everything: http://127.0.0.1:9 does not answer")
    events = world.store.get(f"runs/default/world/tensorboard/M2/sft/{EVENTS_FILE}").data
    assert events.count(b"learningRate") == 2
    assert "STEP" not in capfd.readouterr().out, "lines between worker and entry are no log"
    assert result.statistics["loss"] > 0
    assert "rewardMargin" not in result.statistics
    assert {str(t.dtype) for t in weights(folder).values()} == {"torch.bfloat16"}
    config = json.loads((folder / "config.json").read_text())
    assert config["dtype"] == "bfloat16"
    assert config["attention_dropout"] == 0, "dropout is for training only"
    assert {"torch", "transformers", "trl"} <= set(manifest.versions)


def test_one_process_and_two_compute_the_same(tmp_path: Path, model: Path) -> None:
    import torch

    found = []
    for processes in (1, 2):
        world = World(tmp_path / str(processes))
        pairs = world.put("pairs", {"pairs.jsonl": [pair(i, rejected="No. " * (i % 5 + 1)) for i in range(8)]})
        params = TrainParams(dpo=DPO, precision="Float32")
        _, manifest, folder = run(world, train_task(world, model, params, {"pairs": pairs}, processes))
        found.append((weights(folder), [row["loss"] for row in manifest.statistics["series"]]))
    (one, losses_one), (two, losses_two) = found
    assert losses_one == pytest.approx(losses_two, rel=1e-3)
    # Sums over processes round differently, and Adam's first steps amplify that where gradients vanish.
    difference = max(float((one[n] - two[n]).abs().max()) for n in one)
    assert difference < 2e-4
    assert torch.isfinite(torch.tensor(losses_one)).all()


def test_positives_with_adapters_are_merged_into_the_model(world: World, model: Path) -> None:
    rows = [Positive(id=f"{i:016x}", prompt=QUESTIONS[i], answer="A perfect answer.", score=5) for i in range(4)]
    positives = world.put("pairs", {"positives.jsonl": rows})
    params = TrainParams(strategy="PositiveOnly", sft=SFT, lora=LoraSpec(rank=4, alpha=64))
    result, _, folder = run(world, train_task(world, model, params, {"pairs": positives}))
    assert result.statistics["rows"] == 4
    before, after = weights(model), weights(folder)
    assert set(before) == set(after)
    changed = {name for name in before if not before[name].equal(after[name])}
    assert changed
    assert all("proj" in name for name in changed), "adapters sit on linear layers only"
    assert answer(folder)


def test_another_reference_and_models_kept_on_the_way(world: World, model: Path, tmp_path: Path) -> None:
    from srlm_contract.tasks import SourceRef

    other = build_tiny_model(tmp_path / "other", seed=1)
    pairs = world.put("pairs", {"pairs.jsonl": [pair(i) for i in range(8)]})
    task = train_task(world, model, TrainParams(dpo=DPO, keep_checkpoints_every=1), {"pairs": pairs})
    task = task.model_copy(update={"sources": {**task.sources, "reference": SourceRef(uri=other.as_uri())}})
    _, manifest, folder = run(world, task)
    # Against its own start the first margin is 0; against another model it is not.
    assert abs(manifest.statistics["series"][0]["rewardMargin"]) > 0.01
    assert {"steps/1/model.safetensors", "steps/1/config.json"} <= {f.path for f in manifest.files}
    kept, last = weights(folder / "steps" / "1"), weights(folder)
    assert any(not kept[name].equal(last[name]) for name in last)


def test_what_went_wrong_in_a_worker_is_the_stages_failure(world: World, model: Path) -> None:
    pairs = world.put("pairs", {"pairs.jsonl": [pair(i) for i in range(4)]})
    short = TrainParams(dpo=DPO.model_copy(update={"max_length": 16}))
    with pytest.raises(BadInput, match="none of 4 rows fits 16 tokens") as error:
        world.run(train_task(world, model, short, {"pairs": pairs}), **os.environ)
    assert (error.value.exit_code, error.value.reason) == (65, "InputTooLong")
    exo = TrainParams(dpo=DPO.model_copy(update={"loss_type": ("exo_pair",)}))
    with pytest.raises(InvalidTask, match="exo_pair needs"):
        world.run(train_task(world, model, exo, {"pairs": pairs}), **os.environ)
    uneven = TrainParams(dpo=DPO.model_copy(update={"batch_size": 3}))
    with pytest.raises(InvalidTask, match="batchSize 3 cannot be split evenly over 2 processes"):
        world.run(train_task(world, model, uneven, {"pairs": pairs}, processes=2), **os.environ)


# Killed and started again, as pods are


@pytest.fixture
def s3(tmp_path: Path) -> Iterator[Server]:
    with server(tmp_path / "s3") as made:
        yield made


@pytest.fixture
def shared(
    tmp_path: Path, s3: Server, monkeypatch: pytest.MonkeyPatch
) -> tuple[World, Callable[[StageTask], StageTask]]:
    """A world in S3 that several processes share, and what points a task to it."""
    for name, value in WRITER.environ.items():
        monkeypatch.setenv(name, value)
    url = s3.url
    world = World(tmp_path / "world", S3Store.open(Place(uri="s3://made/runs", endpoint_url=url)))

    def there(task: StageTask) -> StageTask:
        storage = task.storage.model_copy(update={"uri": "s3://made/runs", "endpoint_url": url})
        return task.model_copy(update={"storage": storage})

    return world, there


def start(task: StageTask, folder: Path, pod: str, **environ: str) -> subprocess.Popen[str]:
    everything = os.environ | environ | WRITER.environ | {
        "SRLM_TASK": task.model_dump_json(by_alias=True), "SRLM_WORK_DIR": str(folder / pod), "SRLM_POD_UID": pod,
        "SRLM_TERMINATION_LOG": str(folder / f"{pod}.json"), "PYTHONPATH": os.pathsep.join(sys.path),
    }  # fmt: skip
    line = [sys.executable, "-m", "srlm_stages", task.stage]
    return subprocess.Popen(line, env=everything, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for_line(process: subprocess.Popen[str], text: str) -> None:
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        if text in line:
            return
        said.append(line)
    raise AssertionError(f"the stage ended without saying {text!r}: {''.join(said[-40:])}")


def processes_of(folder: Path) -> list[int]:
    """Processes whose command line names the folder: torchrun and its workers."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(folder).encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def gone(folder: Path) -> bool:
    """Whether they all end within a while: the kernel delivers the signal of a dead parent at once."""
    deadline = time.monotonic() + 20
    while processes_of(folder) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not processes_of(folder)


@pytest.mark.skipif(sys.platform != "linux", reason="dying with the parent is a service of the Linux kernel")
def test_killed_training_leaves_no_process_and_goes_on_where_it_was(
    tmp_path: Path, model: Path, shared: tuple[World, Callable[[StageTask], StageTask]]
) -> None:
    world, there = shared
    pairs = world.put("pairs", {"pairs.jsonl": [pair(i) for i in range(128)]})
    params = TrainParams(dpo=DPO, keep_checkpoints_every=6)
    task = there(train_task(world, model, params, {"pairs": pairs}, processes=2, checkpoint_every_steps=3))

    for attempt, killer in enumerate((signal.SIGKILL, signal.SIGTERM)):
        process = start(task, tmp_path, f"pod-{attempt}")
        wait_for_line(process, f"resume point of step {3 + 3 * attempt} is stored")
        assert len(processes_of(tmp_path / f"pod-{attempt}")) >= 3, "torchrun and two workers"
        process.send_signal(killer)
        process.communicate()
        assert process.returncode == (-9 if killer == signal.SIGKILL else 143)
        assert gone(tmp_path / f"pod-{attempt}")

    last = start(task, tmp_path, "last")
    log = last.communicate()[0]
    assert last.returncode == 0, log
    assert "resuming after step" in log
    result = StageResult.model_validate_json((tmp_path / "last.json").read_bytes())
    assert result.statistics["steps"] == 32
    manifest = world.manifest(result)
    series = manifest.statistics["series"]
    assert [row["step"] for row in series] == list(range(1, 33))
    assert [row["tokens"] for row in series] == sorted({row["tokens"] for row in series}), "tokens add up"
    kept = {path.split("/")[1] for path in (f.path for f in manifest.files) if path.startswith("steps/")}
    assert kept == {"6", "12", "18", "24", "30"}, "models to choose from survive the attempt that made them"
    left = list(world.store.list_objects(f"artifacts/train/{task.key}/checkpoints/"))
    assert left == [], "resume points go once the model is there; what a kill cut off is for the clean-up by age"
    folder = tmp_path / "fetched"
    world.artifacts().fetch(manifest.ref, folder)
    assert answer(folder)


def test_two_nodes_train_together_and_node_0_commits(
    tmp_path: Path, model: Path, shared: tuple[World, Callable[[StageTask], StageTask]]
) -> None:
    world, there = shared
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pairs = world.put("pairs", {"pairs.jsonl": [pair(i) for i in range(8)]})
    where = {"nodes": 2, "master_address": "127.0.0.1", "master_port": port}
    task = there(train_task(world, model, TrainParams(dpo=DPO), {"pairs": pairs}, processes=1, **where))
    pods = [start(task, tmp_path, f"pod-{i}", JOB_COMPLETION_INDEX=str(i)) for i in (0, 1)]
    logs = [pod.communicate()[0] for pod in pods]
    assert [pod.returncode for pod in pods] == [0, 0], logs
    first, second = (StageResult.model_validate_json((tmp_path / f"pod-{i}.json").read_bytes()) for i in (0, 1))
    assert (first.statistics["processes"], first.statistics["steps"]) == (2, 2)
    assert world.manifest(first).producer.pod_uid == "pod-0"
    assert second.content_digest == ""


def test_a_node_that_stays_alone_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its peer waits for a machine, say: temporary, with what to do, and no crash of the training."""
    from srlm_contract.errors import Temporary
    from srlm_stages.training import torchrun
    from srlm_stages.training.config import WorkerConfig

    monkeypatch.setattr(torchrun, "RENDEZVOUS_SECONDS", 1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = ProcessSettings(nodes=2, master_address="127.0.0.1", master_port=port)
    config = WorkerConfig(
        process=settings, dpo=DPO, stage="train", model="m", rows="r", output="o", result="x", checkpoints="c",
        failures=str(tmp_path / "failures"),
    )  # fmt: skip
    for index, says in (("0", "1/2 clients joined"), ("1", "trying to connect to")):
        environ = dict(os.environ) | {"JOB_COMPLETION_INDEX": index}
        with pytest.raises(Temporary, match=says):
            torchrun.run_workers(config, tmp_path, environ, lambda line: None)


def test_nodes_that_found_different_resume_points_begin_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate import utils

    from srlm_contract.errors import Temporary
    from srlm_stages.training.config import WorkerConfig
    from srlm_stages.training.worker import same_resume_point

    (tmp_path / "trainer_state.json").write_text('{"global_step": 8}')
    paths = dict.fromkeys(("model", "rows", "output", "result", "failures", "checkpoints"), str(tmp_path))
    config = WorkerConfig(dpo=DPO, stage="train", resume_from=str(tmp_path), **paths)
    monkeypatch.setattr(utils, "gather_object", lambda mine: [8, *mine])
    same_resume_point(config)
    monkeypatch.setattr(utils, "gather_object", lambda mine: [4, *mine])
    with pytest.raises(Temporary, match=r"steps \[4, 8\]"):
        same_resume_point(config)
    with pytest.raises(Temporary, match=r"steps \[0, 4\]"):
        same_resume_point(config.model_copy(update={"resume_from": None}))
