"""Loads checkpoints in vLLM: prints for each folder the log-probability of a fixed text and an answer, as JSON."""

from __future__ import annotations

import gc
import json
import os
import sys

TEXT = "The capital of France is Paris, and the river that runs through it is the Seine."
QUESTION = "What is the capital of France?"


def main(folders: list[str]) -> None:
    os.environ.update(VLLM_ENABLE_V1_MULTIPROCESSING="0", VLLM_CPU_KVCACHE_SPACE="1", VLLM_LOGGING_LEVEL="ERROR")
    from vllm import LLM, SamplingParams

    for folder in folders:
        engine = LLM(folder, dtype="bfloat16", max_model_len=512, max_num_batched_tokens=512,
                     enforce_eager=True, enable_chunked_prefill=False, seed=0)  # fmt: skip
        scored = engine.generate([TEXT], SamplingParams(max_tokens=1, prompt_logprobs=0), use_tqdm=False)[0]
        logprob = sum(next(iter(step.values())).logprob for step in scored.prompt_logprobs if step)
        answer = engine.chat(
            [{"role": "user", "content": QUESTION}], SamplingParams(max_tokens=24, temperature=0), use_tqdm=False
        )[0].outputs[0]
        print(json.dumps({"logprob": logprob, "answer": answer.text, "tokens": len(answer.token_ids)}), flush=True)
        del engine
        gc.collect()


if __name__ == "__main__":
    main(sys.argv[1:])
