"""The tiny model of the tests: the same every time, and its answers end by themselves."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from support.tiny_model import VOCABULARY, build_tiny_model


@pytest.mark.heavy
def test_two_builds_are_the_same_bytes(tmp_path: Path) -> None:
    first, second = (build_tiny_model(tmp_path / name) for name in "ab")
    digests = [
        {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}
        for folder in (first, second)
    ]
    assert digests[0] == digests[1]
    other = build_tiny_model(tmp_path / "c", seed=1)
    weights = hashlib.sha256((other / "model.safetensors").read_bytes()).hexdigest()
    assert weights != digests[0]["model.safetensors"]


@pytest.mark.heavy
def test_most_answers_end_and_can_be_read(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = build_tiny_model(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert len(tokenizer) == VOCABULARY
    chat = [{"role": "user", "content": "How do I boil an egg?"}]
    inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt")
    torch.manual_seed(0)
    outputs = model.generate(**inputs, max_new_tokens=48, do_sample=True, num_return_sequences=40)
    answers = outputs[:, inputs["input_ids"].shape[1] :]
    ended = [tokenizer.eos_token_id in answer.tolist() for answer in answers]
    assert sum(ended) >= 30
    texts = tokenizer.batch_decode(answers, skip_special_tokens=True)
    assert all(text.isascii() for text in texts)
    assert len(set(texts)) >= 30


@pytest.mark.heavy
def test_a_base_model_without_a_chat_template_can_be_had(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(build_tiny_model(tmp_path, chat_template=False))
    assert tokenizer.chat_template is None
