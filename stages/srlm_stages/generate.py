"""N candidate answers a prompt from M_t."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from srlm_contract.errors import BadInput
from srlm_contract.keys import row_id
from srlm_contract.rows import Candidate, PromptRow
from srlm_contract.tasks import GenerateParams

from .context import StageContext
from .conversation.chat import chat_prompt, messages
from .engines import Request, context_length, open_engine, rounded_length
from .engines.answers import answer_of
from .runtime.rows import read_all, write_rows
from .runtime.statistics import Statistics, merge_shards


def run(ctx: StageContext) -> Statistics:
    """Writes candidates.jsonl (or this shard's part of it): prompts in input order, samples 0 .. N-1 each."""
    params = ctx.params(GenerateParams)
    sampling = params.sampling
    prompts = [row for row in read_all(ctx.input("prompts"), "prompts", PromptRow) if ctx.mine(row.id)]
    model = ctx.model_path("model")
    tokenizer = ctx.tokenizer(model, params.system_prompt)
    encoded = {row.id: chat_prompt(tokenizer, messages(row.prompt, params.system_prompt)) for row in prompts}
    limit = context_length(model)
    fitting = [row for row in prompts if len(encoded[row.id].ids) + sampling.max_tokens <= limit]
    if prompts and not fitting and ctx.shards == 1:
        raise none_fits(len(prompts))
    if len(fitting) < len(prompts):
        ctx.warn(f"{len(prompts) - len(fitting)} of {len(prompts)} prompts are too long for the model's context")

    asked = [(row, sample) for row in fitting for sample in range(params.candidates)]
    requests = [
        Request(
            encoded[row.id].ids,
            seed=ctx.seed("generate", row.id, sample),
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
        )
        for row, sample in asked
    ]
    completions = []
    if requests:
        needed = max(len(r.prompt) for r in requests) + sampling.max_tokens
        ctx.progress.begin(len(requests), "candidates", f"starting {params.engine.name}, loading the model")
        engine = open_engine(params.engine, model, rounded_length(needed, limit))
        ctx.versions |= engine.versions
        ctx.progress.update(0, len(requests), unit="candidates")
        try:
            completions = engine.generate(
                requests,
                lambda done, tokens: ctx.progress.update(done, len(requests), unit="candidates", tokens=tokens),
            )
        finally:
            engine.close()

    candidates, thoughts = [], 0
    for (row, sample), request, completion in zip(asked, requests, completions, strict=True):
        answer = answer_of(tokenizer, completion, encoded[row.id].opened)
        thoughts += answer.thought
        candidates.append(
            Candidate(
                id=row_id(row.prompt, answer.text, str(sample)),
                prompt_id=row.id,
                prompt=row.prompt,
                answer=answer.text,
                sample=sample,
                tokens=answer.tokens,
                truncated=answer.truncated,
                seed=request.seed,
            )
        )
    write_rows(ctx.rows_file("candidates"), candidates)
    return {
        "rows": len(candidates),
        "candidates": len(candidates),
        "prompts": len(fitting),
        "tooLong": len(prompts) - len(fitting),
        "truncated": sum(c.truncated for c in candidates),
        "empty": sum(not c.answer for c in candidates),
        "tokens": sum(c.tokens for c in completions),
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
