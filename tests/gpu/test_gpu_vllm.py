"""vLLM on a GPU against transformers, where vLLM is installed."""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path

import pytest

from srlm_contract.spec.pods import EngineSpec
from srlm_stages.conversation.chat import encode_chat, load_tokenizer, messages
from srlm_stages.engines import Request, open_engine
from srlm_stages.engines.choice_tokens import choice_tokens
from support.stage_world import QUESTIONS
from support.tiny_model import build_tiny_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"),
]


def test_vllm_says_what_transformers_says(tmp_path: Path, gpu: str) -> None:
    model = build_tiny_model(tmp_path / "tiny")
    tokenizer = load_tokenizer(model)
    prompts = [encode_chat(tokenizer, messages(f"{q} {i}")) for i in range(32) for q in QUESTIONS]
    requests = [Request(p, seed=i * 7919, max_tokens=64, top_p=0.95) for i, p in enumerate(prompts)]
    lead, digits = choice_tokens(tokenizer, "What is it?\n", "Score: ", "012345")
    found = {}
    for name in ("vllm", "transformers"):
        engine = open_engine(EngineSpec(name=name, dtype="Float32"), model, 512)
        try:
            found[name] = engine.next_token_probabilities([lead], digits)[0]
            began = time.monotonic()
            completions = engine.generate(requests)
            speed = sum(c.tokens for c in completions) / (time.monotonic() - began)
            print(f"{gpu}: {name}: {speed:,.0f} tokens/s over {len(requests)} requests")
            assert all(c.tokens <= 64 for c in completions)
        finally:
            engine.close()
    assert found["vllm"] == pytest.approx(found["transformers"], rel=1e-2)
