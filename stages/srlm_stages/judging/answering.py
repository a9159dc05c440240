"""One answer of a model to each validation prompt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from srlm_contract.rows import PromptRow, ValidationAnswer
from srlm_contract.tasks import ChooseParams, EvaluateParams

from ..context import StageContext
from ..conversation.chat import chat_prompt, messages
from ..engines.answers import Answer
from ..engines.model import LanguageModel
from .comparing import OwnChoices


def answer_prompts(
    ctx: StageContext,
    params: EvaluateParams | ChooseParams,
    prompts: Sequence[PromptRow],
    path: Path | None = None,
    own: OwnChoices | None = None,
) -> tuple[list[ValidationAnswer], int]:
    """(answers in the order of the prompts that fit the context, tokens generated or read).

    own: asks the model which it prefers, its answers or another's, while its engine is open.
    """
    if not prompts:
        return [], 0
    model = LanguageModel.of(ctx, params, path, params.system_prompt)
    encoded = [chat_prompt(model.tokenizer, messages(row.prompt, params.system_prompt)) for row in prompts]
    fitting = model.fit([prompt.ids for prompt in encoded], params.sampling.max_tokens, "validation prompts")
    asked = [(encoded[i], ctx.seed("evaluate", prompts[i].id, 0)) for i in fitting]

    def rows(answers: Sequence[Answer]) -> list[ValidationAnswer]:
        return [
            ValidationAnswer(
                id=prompts[i].id, prompt=prompts[i].prompt, answer=a.text, tokens=a.tokens, truncated=a.truncated
            )
            for i, a in zip(fitting, answers, strict=True)
        ]

    if own is None:
        answers, tokens = model.answers(asked, params.sampling, "answers")
    else:
        answers, tokens = model.answers(
            asked, params.sampling, "answers", room=own.room(model, params.sampling.max_tokens),
            then=lambda engine, said: own.ask(model, engine, rows(said)),
        )  # fmt: skip
    return rows(answers), tokens
