"""One answer of a model to each validation prompt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from srlm_contract.rows import PromptRow, ValidationAnswer
from srlm_contract.tasks import ChooseParams, EvaluateParams

from ..context import StageContext
from ..conversation.chat import chat_prompt, messages
from ..engines.model import LanguageModel


def answer_prompts(
    ctx: StageContext,
    params: EvaluateParams | ChooseParams,
    prompts: Sequence[PromptRow],
    path: Path | None = None,
) -> tuple[list[ValidationAnswer], int]:
    """(answers in the order of the prompts that fit the context, tokens generated)."""
    if not prompts:
        return [], 0
    model = LanguageModel.of(ctx, params, path, params.system_prompt)
    encoded = [chat_prompt(model.tokenizer, messages(row.prompt, params.system_prompt)) for row in prompts]
    fitting = model.fit([prompt.ids for prompt in encoded], params.sampling.max_tokens, "validation prompts")
    asked = [(encoded[i], ctx.seed("evaluate", prompts[i].id, 0)) for i in fitting]
    answers, tokens = model.answers(asked, params.sampling, "answers")
    return [
        ValidationAnswer(
            id=prompts[i].id, prompt=prompts[i].prompt, answer=a.text, tokens=a.tokens, truncated=a.truncated
        )
        for i, a in zip(fitting, answers, strict=True)
    ], tokens
