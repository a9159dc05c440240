"""What researchers set reaches the trainers; what a machine or a model cannot do is refused by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from srlm_contract.errors import BadInput, InvalidTask
from srlm_contract.spec.training import DeepSpeedSpec, DpoSpec, FsdpSpec, SftSpec
from srlm_contract.tasks import ProcessSettings
from srlm_stages.training.config import WorkerConfig
from support.tiny_model import build_tiny_model

pytestmark = pytest.mark.heavy
OPTIMIZER = {
    "optim": "adamw_torch_fused", "weight_decay": 0.1, "adam_beta1": 0.8, "adam_beta2": 0.95, "max_grad_norm": 0.5,
}  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def config(folder: Path, **fields: Any) -> WorkerConfig:
    where = {name: str(folder / name) for name in ("rows", "output", "result", "failures", "checkpoints")}
    return WorkerConfig(model=str(folder), stage="train", precision="Float32", **where, **fields)


def reaches(arguments: Any, expected: dict[str, Any]) -> None:
    assert {name: getattr(arguments, name) for name in expected} == expected


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings that need no process group."""
    from srlm_stages.training import arguments

    settings = arguments.trainer_settings
    monkeypatch.setattr(arguments, "trainer_settings", lambda *args: settings(*args) | {"ddp_backend": None})


@pytest.mark.usefixtures("alone")
def test_options_of_supervised_training_reach_trl(tmp_path: Path) -> None:
    from srlm_stages.training.arguments import sft_arguments

    asked = config(tmp_path, sft=SftSpec(packing=True, **OPTIMIZER), process=ProcessSettings(padding_free=True))
    arguments = sft_arguments(asked, 1)
    reaches(arguments, OPTIMIZER | {"packing": True, "padding_free": True})
    plain = {"optim": "adamw_torch", "weight_decay": 0, "adam_beta1": 0.9, "adam_beta2": 0.999, "max_grad_norm": 1}
    reaches(sft_arguments(config(tmp_path, sft=SftSpec()), 1), plain | {"packing": False, "padding_free": False})


@pytest.mark.usefixtures("alone")
def test_options_of_preference_training_reach_trl(tmp_path: Path) -> None:
    from srlm_stages.training.arguments import dpo_arguments

    dpo = DpoSpec(loss_type=("sigmoid", "sft"), loss_weights=(1, 0.2), ld_alpha=0.5, **OPTIMIZER)
    reaches(dpo_arguments(config(tmp_path, dpo=dpo), 1), OPTIMIZER | {"loss_weights": [1, 0.2], "ld_alpha": 0.5})
    reaches(dpo_arguments(config(tmp_path, dpo=DpoSpec()), 1), {"loss_weights": None, "ld_alpha": None})


@pytest.mark.parametrize("name", ["adamw_bnb_8bit", "paged_adamw_8bit", "paged_adamw_32bit"])
def test_an_optimizer_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    from srlm_stages.training import arguments

    monkeypatch.setattr(arguments, "find_spec", lambda package: None)
    with pytest.raises(InvalidTask, match=f"{name} needs the package bitsandbytes"):
        arguments.optimizer(name)
    monkeypatch.setattr(arguments, "find_spec", lambda package: package)
    monkeypatch.setattr(arguments.torch.cuda, "is_available", lambda: False)
    with pytest.raises(InvalidTask, match=f"{name} needs a GPU"):
        arguments.optimizer(name)
    assert arguments.optimizer("adamw_torch") == "adamw_torch"


def test_options_of_sharding(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from srlm_stages.training import sharding

    monkeypatch.setattr(sharding, "loads_once", lambda config: True)
    options = FsdpSpec(cpu_offload=True, reshard_after_forward=False, dp_replicate_size=2)
    settings = sharding.fsdp_settings(config(tmp_path, dpo=DpoSpec(), process=ProcessSettings(fsdp=options)), 8)
    assert settings["fsdp_config"] == {
        "activation_checkpointing": False, "cpu_offload": True, "reshard_after_forward": False,
        "state_dict_type": "FULL_STATE_DICT", "cpu_ram_efficient_loading": True,
    }  # fmt: skip
    mesh = settings["parallelism_config"]
    assert (mesh.dp_replicate_size, mesh.dp_shard_size) == (2, 4)
    assert "parallelism_config" not in sharding.fsdp_settings(config(tmp_path, dpo=DpoSpec()), 8)
    for replicas, processes in ((3, 8), (8, 8), (16, 8)):
        with pytest.raises(InvalidTask, match=f"dpReplicateSize {replicas} does not divide {processes} processes"):
            sharding.hybrid_settings(replicas, processes)


def test_deepspeed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from srlm_stages.training import sharding

    offload = DeepSpeedSpec(offload_param_device="cpu")
    asked = config(tmp_path, dpo=DpoSpec(), process=ProcessSettings(parallelism="DeepSpeed", deepspeed=offload))
    monkeypatch.setattr(sharding, "find_spec", lambda package: None)
    with pytest.raises(InvalidTask, match="needs the package deepspeed"):
        sharding.deepspeed_settings(asked)
    monkeypatch.setattr(sharding, "find_spec", lambda package: package)
    zero = sharding.deepspeed_settings(asked)["deepspeed"]["zero_optimization"]
    assert (zero["stage"], zero["offload_param"], zero["offload_optimizer"]["device"]) == (3, {"device": "cpu"}, "none")


def test_packed_examples_see_themselves_only(model: Path) -> None:
    import torch
    from datasets import Dataset
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    from srlm_stages.training.loading import load_config, load_model
    from srlm_stages.training.worker import packed

    rows = [[5 + i * 7 % 90 for i in range(start, start + length)] for start, length in ((0, 9), (40, 5), (70, 7))]
    dataset = packed(Dataset.from_list([{"input_ids": row, "labels": row} for row in rows]), 16)
    assert sorted(map(len, dataset["input_ids"])) == [5, 16]
    batch = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)(list(dataset))
    network = load_model(str(model), load_config(str(model))).eval()
    with torch.no_grad():
        together = network(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits[0]
        ids, stop = batch["input_ids"][0], 0
        for length in (length for lengths in dataset["seq_lengths"] for length in lengths):
            start, stop = stop, stop + length
            alone = network(input_ids=ids[None, start:stop]).logits[0]
            torch.testing.assert_close(together[start:stop], alone, atol=1e-4, rtol=1e-4)


# Models that cannot be loaded


def load(folder: Path, attention: str | None = None) -> Any:
    from srlm_stages.training.loading import load_config, load_model

    return load_model(str(folder), load_config(str(folder)), attention=attention)


def copied(model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model, tmp_path / "copy"))


def test_missing_weights_are_not_replaced_by_random_ones(model: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = copied(model, tmp_path)
    tensors = load_file(folder / "model.safetensors")
    lost = [name for name in tensors if "layers.1." in name]
    save_file({n: t for n, t in tensors.items() if n not in lost}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(BadInput, match=rf"no weights named model\.layers\.1\..* and {len(lost) - 5} more") as error:
        load(folder)
    assert error.value.reason == "ModelNotUsable"


def test_a_head_saved_twice_is_tied_and_one_that_differs_is_refused(model: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = copied(model, tmp_path)
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"tie_word_embeddings": True}))
    with pytest.raises(BadInput, match="tie_word_embeddings") as error:
        load(folder)
    assert error.value.reason == "ModelNotUsable"
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    tied = load(folder)
    assert tied.get_output_embeddings().weight is tied.get_input_embeddings().weight


@pytest.mark.parametrize("damage", ["truncated", "gone", "shape", "type"])
def test_a_model_that_cannot_be_loaded_is_not_usable(model: Path, tmp_path: Path, damage: str) -> None:
    folder = copied(model, tmp_path)
    weights, settings = folder / "model.safetensors", json.loads((folder / "config.json").read_text())
    if damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:-1000])
    elif damage == "gone":
        weights.unlink()
    elif damage == "shape":
        (folder / "config.json").write_text(json.dumps(settings | {"intermediate_size": 64}))
    else:
        (folder / "config.json").write_text(json.dumps(settings | {"model_type": "not-known"}))
    with pytest.raises(BadInput) as error:
        load(folder)
    assert (error.value.reason, error.value.exit_code) == ("ModelNotUsable", 65)
    assert str(tmp_path) not in str(error.value)


def test_attention_kernels_that_are_not_installed_are_refused(model: Path) -> None:
    with pytest.raises(InvalidTask, match=r"training\.attnImplementation flash_attention_2 cannot be used"):
        load(model, attention="flash_attention_2")
    assert load(model, attention="eager").config._attn_implementation == "eager"


def test_weights_that_another_process_reads_take_no_memory_and_tie_as_they_should(model: Path) -> None:
    import torch

    from srlm_stages.training.loading import load_config, load_model

    read, unset = load(model), load_model(str(model), load_config(str(model)), read=False)
    assert [(n, p.shape, p.dtype) for n, p in unset.named_parameters()] == [
        (n, p.shape, torch.float32) for n, p in read.named_parameters()
    ]
    buffers = dict(unset.named_buffers())
    assert all(torch.equal(buffers[name], buffer) for name, buffer in read.named_buffers())
