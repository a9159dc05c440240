"""The finished model: what is compared with the start model, and what its configuration may not say any more."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from srlm_contract.errors import BadInput
from srlm_contract.spec.training import DpoSpec, LoraSpec
from srlm_stages.training.config import WorkerConfig
from support.tiny_model import build_tiny_model

pytestmark = pytest.mark.heavy


def weights(folder: Path, **tensors: Any) -> Path:
    from safetensors.torch import save_file

    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    return folder


def test_weights_are_compared_whatever_the_modules_around_the_model_are_called(tmp_path: Path) -> None:
    import torch

    from srlm_stages.training.saving import changed_weights

    ones, name = torch.ones(4), "layers.0.mlp.up_proj.weight"
    new = weights(tmp_path / "new", **{f"model.{name}": torch.tensor([1.0, 1, 1, 2]), "lm_head.weight": ones})
    for number, around in enumerate(("model.", "model.language_model.", "language_model.model.", "")):
        old = weights(tmp_path / f"old-{number}", **{f"{around}{name}": ones})
        assert changed_weights(old, new) == 0.25
    twice = weights(
        tmp_path / "twice", **{f"model.{name}": ones, "lm_head.weight": ones.clone(), "model.rotary.inv_freq": ones + 1}
    )
    assert changed_weights(twice, new) == 0.125, "a head saved beside its embedding counts when both have it"
    other = weights(tmp_path / "other", **{f"vision_tower.{name}": ones})
    assert changed_weights(other, new) is None, "nothing in common is not nothing changed"


def config(model: Path, folder: Path, **fields: Any) -> WorkerConfig:
    where = {name: str(folder / name) for name in ("rows", "output", "result", "failures", "checkpoints")}
    return WorkerConfig(model=str(model), stage="train", dpo=DpoSpec(), **where, **fields)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = build_tiny_model(tmp_path_factory.mktemp("models") / "tiny")
    settings = json.loads((folder / "config.json").read_text())
    left = {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}
    (folder / "config.json").write_text(json.dumps(settings | left))
    return folder


def test_a_left_over_quantisation_is_loaded_without_and_not_passed_on(model: Path, tmp_path: Path) -> None:
    from srlm_stages.training.loading import load_config, load_model
    from srlm_stages.training.saving import describe

    assert load_model(str(model), load_config(str(model))).dtype.itemsize == 4
    (tmp_path / "out").mkdir()
    describe(model, tmp_path / "out", config(model, tmp_path))
    said = (tmp_path / "out" / "config.json").read_text()
    assert "quant" not in said
    assert json.loads(said)["hidden_size"] == 128


def test_weights_that_are_quantised_are_refused(model: Path, tmp_path: Path) -> None:
    import shutil

    import torch
    from safetensors.torch import load_file, save_file

    from srlm_stages.training.loading import load_config, load_model

    folder = Path(shutil.copytree(model, tmp_path / "copy"))
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    tensors[f"{name}_scale_inv"] = torch.ones(1)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(BadInput, match="weights are quantised") as error:
        load_model(str(folder), load_config(str(folder)))
    assert error.value.reason == "ModelNotUsable"


def test_merging_adapters_leaves_the_model_in_training_as_it_is(model: Path, tmp_path: Path) -> None:
    import torch
    from peft import get_peft_model

    from srlm_stages.training.loading import load_config, load_model, lora_config
    from srlm_stages.training.saving import save_model

    lora = LoraSpec(rank=2, alpha=4)
    live = get_peft_model(load_model(str(model), load_config(str(model))), lora_config(lora))
    with torch.no_grad():
        for name, parameter in live.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.01)
    before = {name: tensor.clone() for name, tensor in live.state_dict().items()}
    accelerator = SimpleNamespace(
        is_main_process=True, get_state_dict=lambda model: model.state_dict(), wait_for_everyone=lambda: None
    )
    for folder in ("first", "second"):  # a model kept on the way, then the finished one
        trainer = SimpleNamespace(accelerator=accelerator, model_wrapped=live)
        save_model(trainer, tmp_path / folder, config(model, tmp_path, lora=lora))
    assert all(torch.equal(before[name], tensor) for name, tensor in live.state_dict().items())
    first, second = ((tmp_path / folder / "model.safetensors").read_bytes() for folder in ("first", "second"))
    assert first == second
    merged = load_model(str(tmp_path / "first"), load_config(str(tmp_path / "first")))
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        torch.testing.assert_close(merged(ids).logits, live(ids).logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("settings", "enabled", "weight"),
    [({}, False, None), ({"num_experts": 8}, True, 0.001), ({"num_local_experts": 8}, False, 0.0)],
)
def test_the_router_loss_of_experts_is_said(settings: dict[str, int], enabled: bool, weight: float | None) -> None:
    from srlm_stages.training.worker import router_loss_weight

    text = SimpleNamespace(**settings)
    network = SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: text))
    trainer = SimpleNamespace(model=network, aux_loss_enabled=enabled, router_aux_loss_coef=0.001)
    assert router_loss_weight(trainer) == weight
