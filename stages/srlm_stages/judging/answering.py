"""One answer of a model to each validation prompt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from srlm_contract.rows import PromptRow, ValidationAnswer
from srlm_contract.tasks import ChooseParams, EvaluateParams

from ..context import StageContext
from ..conversation.chat import chat_prompt, messages
from ..engines import Request, context_length, open_engine, rounded_length
from ..engines.answers import answer_of


def answer_prompts(
    ctx: StageContext,
    params: EvaluateParams | ChooseParams,
    prompts: Sequence[PromptRow],
    model: Path | None = None,
) -> tuple[list[ValidationAnswer], int]:
    """(answers in the order of the prompts that fit the context, tokens generated)."""
    if not prompts:
        return [], 0
    model = model or ctx.model_path("model")
    tokenizer = ctx.tokenizer(model, params.system_prompt)
    sampling, limit = params.sampling, context_length(model)
    every = [(row, chat_prompt(tokenizer, messages(row.prompt, params.system_prompt))) for row in prompts]
    encoded = [(row, prompt) for row, prompt in every if len(prompt.ids) + sampling.max_tokens <= limit]
    if len(encoded) < len(prompts):
        ctx.warn(f"{len(prompts) - len(encoded)} of {len(prompts)} validation prompts are too long for the context")
    if not encoded:
        return [], 0
    needed = max(len(prompt.ids) for _, prompt in encoded) + sampling.max_tokens
    ctx.progress.begin(len(encoded), "answers", f"starting {params.engine.name}, loading the model")
    engine = open_engine(params.engine, model, rounded_length(needed, limit))
    ctx.versions |= engine.versions
    try:
        completions = engine.generate(
            [
                Request(
                    prompt.ids,
                    ctx.seed("evaluate", row.id, 0),
                    sampling.max_tokens,
                    sampling.temperature,
                    sampling.top_p,
                )
                for row, prompt in encoded
            ],
            lambda done, tokens: ctx.progress.update(done, len(encoded), unit="answers", tokens=tokens),
        )
    finally:
        engine.close()
    said = [answer_of(tokenizer, c, prompt.opened) for (_, prompt), c in zip(encoded, completions, strict=True)]
    answers = [
        ValidationAnswer(id=row.id, prompt=row.prompt, answer=a.text, tokens=a.tokens, truncated=a.truncated)
        for (row, _), a in zip(encoded, said, strict=True)
    ]
    return answers, sum(c.tokens for c in completions)
