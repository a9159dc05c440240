"""The vLLM engine with a tiny random model, and a whole evaluation: two engines one after the other."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from srlm_contract.rows import Comparison, ValidationAnswer
from srlm_contract.spec.loop import SamplingSpec
from srlm_contract.spec.pods import EngineSpec
from srlm_contract.tasks import EvaluateParams, SourceRef
from srlm_stages.conversation.chat import encode_chat, load_tokenizer, messages
from srlm_stages.engines import Engine, Request, ScoreLine, open_engine
from srlm_stages.engines.choice_tokens import choice_tokens
from srlm_stages.judging.verdict import parse_score
from srlm_stages.pod import Pod
from support.stage_world import QUESTIONS, World
from support.tiny_model import build_tiny_model

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.vllm,
    pytest.mark.timeout(400),
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed"),
    # vLLM runs in this process and uses parts of its own libraries that they have deprecated.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def test_a_busy_machine_does_not_lose_constrained_requests() -> None:
    from vllm import envs

    from srlm_stages.engines import vllm_engine

    assert vllm_engine.VllmEngine is not None  # imported: it sets what vLLM reads
    assert envs.VLLM_REGEX_COMPILATION_TIMEOUT_S >= 600


def test_seeded_constrained_and_choice_requests(model: Path) -> None:
    tokenizer = load_tokenizer(model)
    engine = open_engine(EngineSpec(name="vllm", dtype="Float32"), model, 512)
    try:
        prompts = [encode_chat(tokenizer, messages(q)) for q in QUESTIONS]
        requests = [Request(p, seed=i * 7919, max_tokens=20, top_p=0.95) for i, p in enumerate(prompts)]
        seen: list[tuple[int, int]] = []
        completions = engine.generate(requests, lambda done, tokens: seen.append((done, tokens)))
        assert seen[-1] == (len(requests), sum(c.tokens for c in completions))
        assert engine.generate(requests) == completions
        assert len({c.text for c in completions}) > 3
        assert all(c.truncated == (c.tokens == 20) for c in completions)

        scored = [Request(p, seed=i, max_tokens=48, constraint=ScoreLine(24)) for i, p in enumerate(prompts)]
        for completion in engine.generate(scored):
            assert parse_score(completion.text) is not None
            assert not completion.truncated

        lead, digits = choice_tokens(tokenizer, "What is it?\n", "Score: ", "012345")
        probabilities = engine.next_token_probabilities([lead], digits)
        plain = open_engine(EngineSpec(name="transformers", dtype="Float32"), model, 512)
        assert probabilities[0] == pytest.approx(plain.next_token_probabilities([lead], digits)[0], rel=1e-3)
        plain.close()
    finally:
        engine.close()


def test_a_model_and_its_judge_take_turns(model: Path, tmp_path: Path) -> None:
    """As in a chain without a GPU: both stay open."""
    tokenizer = load_tokenizer(model)
    requests = [Request(encode_chat(tokenizer, messages(q)), seed=i, max_tokens=12) for i, q in enumerate(QUESTIONS)]
    settings = EngineSpec(name="vllm", dtype="Float32")
    other = build_tiny_model(tmp_path / "other", seed=1)
    opened: list[Path] = []
    with Pod(tmp_path, chained=True) as pod:

        def texts(path: Path) -> list[str]:
            def load(length: int) -> Engine:
                opened.append(path)
                return open_engine(settings, path, length)

            return [c.text for c in pod.engine((path, ""), 256, 1024, load).generate(requests)]

        first, second = texts(model), texts(other)
        assert first != second
        assert (texts(model), texts(other)) == (first, second)
    assert opened == [model, other]


def test_answers_by_one_engine_and_comparisons_by_the_next(model: Path, tmp_path: Path) -> None:
    world = World(tmp_path)
    params = EvaluateParams(
        model="M1",
        prompts=2,
        sampling=SamplingSpec(temperature=1.0, max_tokens=16),
        engine=EngineSpec(name="vllm"),
    )
    data = world.seed_data()
    one = world.run(world.task(params, inputs={"data": data}, model=model, iteration=0))
    later = params.model_copy(update={"model": "M2", "opponents": ("M1",), "headline": "M1"})
    inputs = {"data": data, "answers-M1": world.manifest(one).ref}
    judge = {"judge": SourceRef(uri=model.as_uri())}
    two = world.run(world.task(later, inputs=inputs, model=model, sources=judge))
    assert [a.prompt for a in world.rows(two, "answers.jsonl", ValidationAnswer)] == QUESTIONS[4:]
    assert len(world.rows(two, "comparisons.jsonl", Comparison)) == 2
    assert "vllm" in world.manifest(two).versions
