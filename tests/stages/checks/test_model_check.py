"""What preflight says of the checkpoints that people bring."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from srlm_contract.errors import BadInput
from srlm_stages.checks.model import CheckedModel, check_model
from srlm_stages.sources.origins import FileOrigin
from support.tiny_model import CONTEXT, VOCABULARY, build_tiny_model, build_tokenizer

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("made") / "model")


@pytest.fixture
def model(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "model"))


def check(model: Path) -> CheckedModel:
    work = model.parent / "work"
    work.mkdir(exist_ok=True)
    return check_model(FileOrigin.open(model.as_uri()), work, None)


def refused(model: Path) -> str:
    with pytest.raises(BadInput) as found:
        check(model)
    assert found.value.reason == "ModelNotUsable"
    assert f"{model.as_uri()} cannot be used: " in str(found.value)
    return str(found.value)


def configure(model: Path, file: str = "config.json", **fields: Any) -> None:
    path = model / file
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def change_weights(model: Path, change: Callable[[dict[str, Any]], None]) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(model / "model.safetensors")
    change(weights)
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})


def test_a_whole_model_is_known_exactly(model: Path) -> None:
    from safetensors.torch import load_file

    found = check(model)
    weights = load_file(model / "model.safetensors")
    assert found.architecture.parameters == sum(tensor.numel() for tensor in weights.values())
    assert (found.architecture.embedding, found.architecture.context) == (VOCABULARY, CONTEXT)
    assert found.tokenizer.eos_token == "<|im_end|>"


# Weights


def test_missing_weights_are_named(model: Path) -> None:
    change_weights(model, lambda w: [w.pop(name) for name in list(w) if "layers.1.mlp" in name] and None)
    says = refused(model)
    assert "3 weights are missing, and training would begin with random ones" in says
    assert "model.layers.1.mlp.down_proj.weight" in says


def test_fewer_layers_than_the_configuration_says(model: Path) -> None:
    configure(model, num_hidden_layers=6, layer_types=None)
    assert "model.layers.5" in refused(model)


def test_weights_of_another_shape_are_named(model: Path) -> None:
    configure(model, intermediate_size=384)
    says = refused(model)
    assert "15 weights do not have the shape that config.json asks for" in says
    assert "model.layers.0.mlp.down_proj.weight is (128, 320), not (128, 384)" in says


def test_weights_of_quite_another_model(model: Path) -> None:
    def rename(weights: dict[str, Any]) -> None:
        for name in list(weights):
            weights[f"encoder.{name}"] = weights.pop(name)

    change_weights(model, rename)
    assert "the checkpoint has encoder.lm_head.weight" in refused(model)


def test_tied_weights_may_be_saved_once_and_more_weights_than_needed_are_fine(model: Path) -> None:
    import torch

    def change(weights: dict[str, Any]) -> None:
        del weights["lm_head.weight"]
        weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(16)
        weights["mtp.layers.0.proj.weight"] = torch.ones(4, 4)
        weights["vision_tower.patch.weight"] = torch.ones(4, 4)

    change_weights(model, change)
    assert "lm_head.weight" in refused(model)
    configure(model, tie_word_embeddings=True)
    assert check(model).architecture.parameters < 1_000_000


def test_names_without_the_prefix_of_the_head_are_renamed_as_transformers_does(model: Path) -> None:
    def rename(weights: dict[str, Any]) -> None:
        for name in [n for n in weights if n.startswith("model.")]:
            weights[name.removeprefix("model.")] = weights.pop(name)

    change_weights(model, rename)
    check(model)


def test_quantised_weights_are_refused_though_the_configuration_does_not_say_so(model: Path) -> None:
    import torch

    change_weights(model, lambda w: w.update({"lm_head.weight": w["lm_head.weight"].to(torch.float8_e4m3fn)}))
    assert "its weights are quantised (F8_E4M3)" in refused(model)


def test_a_truncated_file(model: Path) -> None:
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    assert "model.safetensors is cut off or too long" in refused(model)


# Kinds of checkpoints


def test_an_adapter_without_a_model(model: Path) -> None:
    (model / "model.safetensors").rename(model / "adapter_model.safetensors")
    (model / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "their/base"}')
    assert "it is an adapter (adapter_config.json)" in refused(model)
    (model / "config.json").unlink()
    assert "merge_and_unload" in refused(model)


def test_an_adapter_left_beside_a_model(model: Path) -> None:
    (model / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "their/base"}')
    assert "remove the adapter's files" in refused(model)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("quantization_config", {"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
        ("quantization_config", {"quant_method": "gptq", "bits": 4}, "gptq"),
        ("quantization_config", {"quant_method": "awq", "bits": 4}, "awq"),
        ("quantization_config", {"quant_method": "compressed-tensors"}, "compressed-tensors"),
        ("quantization_config", {"quant_method": "fp8"}, "fp8"),
        ("compression_config", {"format": "pack-quantized"}, "compression_config"),
        ("text_config", {"quantization_config": {"quant_method": "mxfp4"}}, "mxfp4"),
    ],
)
def test_quantised_checkpoints(model: Path, field: str, value: dict[str, Any], says: str) -> None:
    configure(model, **{field: value})
    assert f"it is quantised ({says}), which cannot be trained" in refused(model)


def test_an_encoder_decoder_model(model: Path) -> None:
    configure(model, architectures=["T5ForConditionalGeneration"], model_type="t5", is_encoder_decoder=True)
    assert "an encoder-decoder model" in refused(model)
    configure(model, architectures=["BartForCausalLM"], model_type="bart")
    assert "an encoder-decoder model" in refused(model)


def test_an_architecture_that_transformers_does_not_know(model: Path) -> None:
    configure(model, model_type="of-tomorrow", architectures=["TomorrowForCausalLM"])
    assert "cannot read its config.json" in refused(model)
    configure(model, auto_map={"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"})
    assert "needs code from its repository, which is not run" in refused(model)


def test_a_configuration_that_makes_no_model(model: Path) -> None:
    configure(model, hidden_size="large")
    assert "hidden_size" in refused(model)


TEXT = {"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}  # fmt: skip
VISION = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
          "image_size": 28, "patch_size": 14}  # fmt: skip


def vision_language_model(kind: str) -> Any:
    import transformers

    if kind == "Gemma3":
        return transformers.Gemma3ForConditionalGeneration(
            transformers.Gemma3Config(text_config=dict(TEXT), vision_config=dict(VISION))
        )
    text, vision = {"model_type": "mistral", **TEXT}, {"model_type": "pixtral", "head_dim": 16, **VISION}
    return transformers.Mistral3ForConditionalGeneration(
        transformers.Mistral3Config(text_config=text, vision_config=vision)
    )


@pytest.mark.parametrize("kind", ["Gemma3", "Mistral3"])
def test_a_vision_language_model_with_a_text_path(tmp_path: Path, kind: str) -> None:
    import torch

    from srlm_stages.training.loading import load_config, load_model

    made = vision_language_model(kind)
    model = tmp_path / "model"
    made.save_pretrained(model)
    build_tokenizer().save_pretrained(model)
    found = check(model)
    assert found.architecture.parameters == made.num_parameters()
    assert found.architecture.config.hidden_size == 32
    # It trains on text: what gets no gradient is not waited for.
    loaded = load_model(str(model), load_config(str(model)))
    ids = torch.tensor([[5, 6, 7, 8]])
    loaded(input_ids=ids, labels=ids).loss.backward()
    without = {name for name, p in loaded.named_parameters() if p.requires_grad and p.grad is None}
    frozen = {name.split(".")[1] for name, p in loaded.named_parameters() if not p.requires_grad}
    assert without == set()
    assert frozen == {"vision_tower", "multi_modal_projector"}


def test_a_vision_language_model_without_one(model: Path) -> None:
    configure(model, architectures=["LlavaForConditionalGeneration"], model_type="llava")
    assert "has no causal language model of type 'llava'" in refused(model)


def test_experts_saved_one_by_one(tmp_path: Path) -> None:
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    made = Qwen3MoeForCausalLM(
        Qwen3MoeConfig(
            vocab_size=VOCABULARY, hidden_size=32, intermediate_size=32, moe_intermediate_size=16, num_hidden_layers=1,
            num_attention_heads=2, num_key_value_heads=1, num_experts=4, num_experts_per_tok=2,
        )
    )  # fmt: skip
    model = tmp_path / "model"
    made.save_pretrained(model)
    build_tokenizer().save_pretrained(model)
    assert check(model).architecture.parameters == made.num_parameters()
    change_weights(model, lambda w: w.pop("model.layers.0.mlp.experts.2.up_proj.weight"))
    assert "model.layers.0.mlp.experts.gate_up_proj cannot be made of the checkpoint's weights" in refused(model)


# Tokenizers


def test_the_template_is_given_the_arguments_of_the_run(model: Path) -> None:
    def change(tokenizer: Any) -> None:
        refusal = "{% if not brief %}{{ raise_exception('which?') }}{% endif %}"
        tokenizer.chat_template = refusal + tokenizer.chat_template

    retoken(model, change)
    work = model.parent / "work"
    work.mkdir()
    origin = FileOrigin.open(model.as_uri())
    with pytest.raises(BadInput, match=r"model: the chat template cannot render this conversation: which\?"):
        check_model(origin, work, None)
    check_model(origin, work, None, {"brief": True})


def retoken(model: Path, change: Callable[[Any], None]) -> None:
    tokenizer = build_tokenizer()
    change(tokenizer)
    tokenizer.save_pretrained(model)


def test_template_tokens_without_a_row_of_the_embedding(model: Path) -> None:
    def change(tokenizer: Any) -> None:
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|turn|>"]})
        tokenizer.chat_template = tokenizer.chat_template.replace("<|im_start|>", "<|turn|>")

    retoken(model, change)
    says = refused(model)
    assert f"more tokens than its embedding has rows ({VOCABULARY}): '<|turn|>' is number {VOCABULARY}" in says
    assert "resize_token_embeddings" in says


def test_a_padding_token_without_a_row(model: Path) -> None:
    retoken(model, lambda t: t.add_special_tokens({"pad_token": "[PAD]"}) and None)
    assert "'[PAD]' is number" in refused(model)


def test_a_word_without_a_row(model: Path) -> None:
    retoken(model, lambda t: t.add_tokens(["<think>"]) and None)
    assert "'<think>' is number" in refused(model)


def test_a_special_token_that_nothing_uses_may_lie_outside(model: Path) -> None:
    retoken(model, lambda t: t.add_special_tokens({"additional_special_tokens": ["<image_soft_token>"]}) and None)
    check(model)


def without_tokenizer(model: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (model / name).unlink()


def test_a_model_without_a_tokenizer(model: Path) -> None:
    without_tokenizer(model)
    assert re.search(r"has no tokenizer in Hugging Face format .*model\); put the tokenizer", refused(model))
    (model / "tekken.json").write_text("{}")
    assert "but Mistral's own (tekken.json)" in refused(model)


def test_a_tokenizer_is_read_from_whatever_files_the_stages_read_it_from(model: Path) -> None:
    without_tokenizer(model)
    (model / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nthis\nis\na\nquestion\n")
    (model / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", "eos_token": "[SEP]"}))
    assert check(model).tokenizer.eos_token_id == 3


def test_a_tokenizer_that_needs_code_of_its_repository(model: Path) -> None:
    classes = ["tokenization_own.OwnTokenizer", None]
    configure(model, "tokenizer_config.json", tokenizer_class="OwnTokenizer", auto_map={"AutoTokenizer": classes})
    with pytest.raises(BadInput, match=r"needs code from its repository, which is not run; save it as tokenizer\.json"):
        check(model)


def test_a_tokenizer_without_an_end_token(model: Path) -> None:
    configure(model, "tokenizer_config.json", eos_token=None)
    assert "no end token" in refused(model)
