"""Whether a model's template and context serve what the run will ask: tried by preflight as the stages do it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from srlm_contract.errors import BadInput
from srlm_contract.scorers import SCORERS
from srlm_contract.spec.run import RunSpec

from ..conversation.chat import encode_chat, merges_system_prompt, messages
from ..judging.rubric import Rubric
from ..judging.scoring import MIN_VERDICT_TOKENS
from ..training.encoding import encode_answer

QUESTION, ANSWER = "Is this a question?", "This is an answer."


class _Ask(NamedTuple):
    field: str
    wanted: int
    """Tokens that the field asks for."""
    prompt: int
    """Tokens of the shortest prompt that could come before them."""


def check_conversations(
    tokenizer: Any, spec: RunSpec, context: int | None, rubric: str, *, judges: bool = True, writes: bool = True
) -> Iterator[str]:
    """Yields warnings. Raises BadInput TemplateNotUsable for a template that training or generation could not use, and
    InputTooLong for limits that the model's context can never hold.

    judges, writes: whether this model scores answers, and writes new prompts.
    """
    system = spec.generation.system_prompt
    encode_answer(tokenizer, system, QUESTION, ANSWER)
    if system and merges_system_prompt(tokenizer):
        yield "the chat template has no system role: generation.systemPrompt goes into the first user turn"
    if context is None:
        return
    answers = spec.generation.sampling.max_tokens
    asked = [
        _Ask("generation.sampling.maxTokens", answers, len(encode_chat(tokenizer, messages(QUESTION, system)))),
    ]
    if writes:
        asked.append(_Ask("prompts.sampling.maxTokens", spec.prompts.sampling.max_tokens, 1))
    for ask in asked:
        if ask.prompt + ask.wanted > context:
            raise BadInput(
                "InputTooLong",
                f"{ask.field} {ask.wanted} does not fit the model's context of {context} tokens beside a prompt of at "
                f"least {ask.prompt}; lower it to {max(1, context - ask.prompt)} or less",
            )
    if judges:
        yield from _check_verdicts(tokenizer, spec, context, rubric)


def _check_verdicts(tokenizer: Any, spec: RunSpec, context: int, rubric: str) -> Iterator[str]:
    """The judge's task with the shortest of answers must fit, with the longest it should."""
    prompt = len(encode_chat(tokenizer, messages(Rubric.parse(rubric).fill(QUESTION, ANSWER))))
    wanted = SCORERS[spec.judging.scorer].tokens(spec.judging.sampling.max_tokens)
    if prompt + min(wanted, MIN_VERDICT_TOKENS) > context:
        raise BadInput(
            "InputTooLong",
            f"the judge's task takes {prompt} tokens even for a short answer and leaves no room for a verdict in the "
            f"model's context of {context} tokens; use a shorter rubric (judging.templateRef) or another model",
        )
    longest = prompt + spec.generation.sampling.max_tokens + wanted
    if longest > context:
        yield (
            f"the longest answers will not be judged: the judge's task ({prompt} tokens), an answer of "
            f"generation.sampling.maxTokens {spec.generation.sampling.max_tokens} and a verdict of {wanted} make "
            f"{longest} tokens, and the model's context has {context}"
        )
