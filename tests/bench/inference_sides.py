"""Our stages and bare `LLM.generate` in turn on one loaded vLLM engine; prints the ratios as JSON.

    python inference_sides.py generate|judge MODEL FOLDER

Same prompts, seeds and token limits on every side, and an empty prefix cache before each. The engine is loaded once
and shared: what is compared is what our code adds around it, not two ways to start vLLM.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pairs import Ratios, in_turn

from srlm_contract.keys import row_id
from srlm_contract.rows import Candidate, PromptRow
from srlm_contract.spec.loop import SamplingSpec
from srlm_contract.spec.pods import EngineSpec
from srlm_contract.tasks import GenerateParams, JudgeParams
from srlm_stages.conversation.chat import encode_chat, load_tokenizer, messages
from srlm_stages.engines import Completion, OnProgress, Request
from srlm_stages.engines import model as asking
from srlm_stages.engines.vllm_engine import VllmEngine
from support.stage_world import QUESTIONS, World

PROMPTS = [f"{question} (Variant {number}.)" for number in range(2) for question in QUESTIONS]
CANDIDATES, TOKENS = 4, 48
ANSWERS, SAMPLES, VERDICT_TOKENS = 8, 3, 24


class Kept:
    """One engine for all stages: remembers what it was last asked, and stays open."""

    def __init__(self, model: Path) -> None:
        self.engine = VllmEngine(model, EngineSpec(name="vllm", dtype="Auto"), 1024)
        self.versions = self.engine.versions
        self.asked: list[Request] = []

    def generate(self, requests: Sequence[Request], on_progress: OnProgress | None = None) -> list[Completion]:
        self.asked = list(requests)
        return self.engine.generate(requests, on_progress)

    def close(self) -> None:
        pass

    def bare(self, requests: Sequence[Request]) -> None:
        """`LLM.generate` itself."""
        prompts: list[Any] = [{"prompt_token_ids": list(request.prompt)} for request in requests]
        llm = self.engine._llm
        llm.generate(prompts, [self.engine._parameters(request) for request in requests], use_tqdm=False)

    def forget(self) -> None:
        self.engine._llm.llm_engine.reset_prefix_cache()

    def timed(self, what: Callable[[], object]) -> Callable[[], float]:
        """Seconds of a call that begins with an empty prefix cache."""

        def measure() -> float:
            self.forget()
            began = time.perf_counter()
            what()
            return time.perf_counter() - began

        return measure

    def one_by_one(self, requests: Sequence[Request]) -> None:
        """As a client asks that sends one verdict at a time to an engine without a prefix cache."""
        for request in requests:
            self.forget()
            self.bare([request])


def ratios(ours: Callable[[], float], theirs: Callable[[], float]) -> list[float]:
    """Rate of ours over rate of theirs."""
    a, b = in_turn(ours, theirs)
    return list(Ratios.of(b, a).values)


def generating(model: Path, folder: Path) -> dict[str, list[float]]:
    kept, world = Kept(model), World(folder)
    asking.open_engine = lambda *_: kept  # type: ignore[assignment]
    rows = [PromptRow(id=row_id(prompt), prompt=prompt, source="pool") for prompt in PROMPTS]
    prompts = world.put("prompts", {"prompts.jsonl": rows})
    params = GenerateParams(candidates=CANDIDATES, sampling=SamplingSpec(temperature=0.7, top_p=0.9, max_tokens=TOKENS))
    seeds = iter(range(1000))

    def stage() -> None:
        world.run(world.task(params, inputs={"prompts": prompts}, model=model, seed=next(seeds)))

    stage()
    requests = kept.asked
    bare = kept.timed(lambda: kept.bare(requests))
    return {
        "engine": ratios(kept.timed(lambda: kept.engine.generate(requests, lambda *_: None)), bare),
        "stage": ratios(kept.timed(stage), bare),
    }


def judging(model: Path, folder: Path) -> dict[str, list[float]]:
    kept, world = Kept(model), World(folder)
    asking.open_engine = lambda *_: kept  # type: ignore[assignment]
    tokenizer = load_tokenizer(model)
    answers = [
        Candidate(
            id=row_id(prompt, "a", "0"), prompt_id=row_id(prompt), prompt=prompt, answer="It depends on you. " * 10,
            sample=0, tokens=len(encode_chat(tokenizer, messages(prompt))), truncated=False, seed=0,
        )
        for prompt in PROMPTS[:ANSWERS]
    ]  # fmt: skip
    candidates = world.put("generate", {"candidates.jsonl": answers})
    params = JudgeParams(
        samples=SAMPLES, min_valid_samples=1, max_reasks=0, constrain="ScoreLine",
        sampling=SamplingSpec(temperature=0.7, top_p=0.9, max_tokens=VERDICT_TOKENS),
    )  # fmt: skip
    seeds = iter(range(1000))

    def stage() -> None:
        world.run(world.task(params, inputs={"candidates": candidates}, model=model, seed=next(seeds)))

    stage()
    requests = kept.asked
    return {
        "cached": ratios(kept.timed(stage), kept.timed(lambda: kept.bare(requests))),
        "uncached": ratios(kept.timed(stage), kept.timed(lambda: kept.one_by_one(requests))),
    }


def main() -> None:
    model, folder = Path(sys.argv[2]).resolve(), Path(sys.argv[3])
    found = {"generate": generating, "judge": judging}[sys.argv[1]](model, folder)
    (folder / "ratios.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
