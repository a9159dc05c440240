"""N candidate answers a prompt from M_t."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from srlm_contract.errors import BadInput
from srlm_contract.jsonl import write_rows
from srlm_contract.keys import row_id
from srlm_contract.rows import Candidate, PromptRow
from srlm_contract.tasks import GenerateParams

from .context import StageContext
from .conversation.chat import chat_prompt, messages
from .engines.model import LanguageModel
from .runtime.rows import read_all
from .runtime.statistics import Statistics, merge_shards


def run(ctx: StageContext) -> Statistics:
    """Writes candidates.jsonl (or this shard's part of it): prompts in input order, samples 0 .. N-1 each."""
    params = ctx.params(GenerateParams)
    prompts = [row for row in read_all(ctx.input("prompts"), "prompts", PromptRow) if ctx.mine(row.id)]
    model = LanguageModel.of(ctx, params, system_prompt=params.system_prompt)
    encoded = [chat_prompt(model.tokenizer, messages(row.prompt, params.system_prompt)) for row in prompts]
    fitting = model.fit([prompt.ids for prompt in encoded], params.sampling.max_tokens, "prompts")
    if prompts and not fitting and ctx.shards == 1:
        raise none_fits(len(prompts))

    wanted = [(i, sample) for i in fitting for sample in range(params.candidates)]
    seeds = [ctx.seed("generate", prompts[i].id, sample) for i, sample in wanted]
    asked = [(encoded[i], seed) for (i, _), seed in zip(wanted, seeds, strict=True)]
    answers, tokens = model.answers(asked, params.sampling, "candidates")
    candidates = [
        Candidate(
            id=row_id(prompts[i].prompt, answer.text, str(sample)),
            prompt_id=prompts[i].id,
            prompt=prompts[i].prompt,
            answer=answer.text,
            sample=sample,
            tokens=answer.tokens,
            truncated=answer.truncated,
            seed=seed,
        )
        for (i, sample), seed, answer in zip(wanted, seeds, answers, strict=True)
    ]
    thoughts = sum(answer.thought for answer in answers)
    write_rows(ctx.rows_file("candidates"), candidates)
    return {
        "rows": len(candidates),
        "candidates": len(candidates),
        "prompts": len(fitting),
        "tooLong": len(prompts) - len(fitting),
        "truncated": sum(c.truncated for c in candidates),
        "empty": sum(not c.answer for c in candidates),
        "tokens": tokens,
        "answers": len(candidates),
        "answerTokens": sum(c.tokens for c in candidates),
        "characters": sum(len(c.answer) for c in candidates),
        **({"thoughts": thoughts} if thoughts else {}),
    }


def none_fits(prompts: int) -> BadInput:
    """The error of a stage whose prompts are all too long."""
    return BadInput(
        "InputTooLong",
        f"none of {prompts} prompts fits the model's context beside generation.sampling.maxTokens; lower it or "
        "shorten the prompts (prompts.filters.maxWords)",
    )


def merge(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Statistics of all shards. Raises BadInput InputTooLong when no prompt of any shard fits the context."""
    merged = merge_shards(parts)
    if merged.get("tooLong") and not merged.get("prompts"):
        raise none_fits(int(merged["tooLong"]))
    return merged
