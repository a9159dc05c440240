"""A model of the task at work: its tokenizer, what fits its context, and its engine while something is asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

from srlm_contract.spec.loop import SamplingSpec
from srlm_contract.spec.pods import EngineSettings

from ..context import StageContext
from ..conversation.chat import Prompt
from ..conversation.templates import Conversing, tokenizer_of
from . import Engine, Request, context_length, long_context, open_engine, rounded_length
from .answers import Answer, answer_of


class Inferring(Conversing, Protocol):
    """Parameters of a stage that asks a model."""

    @property
    def engine(self) -> EngineSettings: ...


@dataclass(frozen=True)
class LanguageModel:
    """A model before, while and after its engine runs."""

    ctx: StageContext
    path: Path
    settings: EngineSettings
    tokenizer: Any
    context: int
    """Tokens of prompt and answer together at most."""

    @classmethod
    def of(cls, ctx: StageContext, params: Inferring, path: Path | None = None, system_prompt: str = "") -> Self:
        """path: the model's folder, by default that of the task's `model`."""
        path = path or ctx.model_path("model")
        tokenizer = tokenizer_of(ctx, params, path, system_prompt)
        return cls(ctx, path, params.engine, tokenizer, context_length(path))

    def fit(self, prompts: Sequence[Sequence[int]], room: int, what: str) -> list[int]:
        """Numbers of the prompts that leave `room` tokens of the context; says how many of `what` do not."""
        found = [i for i, prompt in enumerate(prompts) if len(prompt) + room <= self.context]
        if len(found) < len(prompts):
            self.ctx.warn(f"{len(prompts) - len(found)} of {len(prompts)} {what} are too long for the model's context")
        return found

    def length(self, needed: int) -> int:
        """What an engine for prompts and answers of together `needed` tokens is opened for."""
        return rounded_length(needed, self.context)

    def engine(self, needed: int, total: int, unit: str) -> Engine:
        """The engine for prompts and answers of together `needed` tokens; total, unit: the work, for progress.

        It is the pod's: one that an earlier question of these settings to this model left open, or a new one. Raises
        BadInput ModelNotUsable when the engine cannot load the model.
        """
        ctx, settings = self.ctx, self.settings

        def load(tokens: int) -> Engine:
            ctx.progress.begin(total, unit, f"starting {settings.name}, loading the model")
            return open_engine(settings, self.path, tokens)

        tokens, border = self.length(needed), long_context(self.path)
        long = 0 < border < tokens
        wanted = self.path, settings.model_dump_json() + (" long" if long else "")
        engine = ctx.pod.engine(wanted, tokens, border if border and not long else self.context, load)
        ctx.versions |= engine.versions
        ctx.progress.update(0, total, unit=unit)
        return engine

    def answers(
        self,
        asked: Sequence[tuple[Prompt, int]],
        sampling: SamplingSpec,
        unit: str,
        *,
        room: int = 0,
        then: Callable[[Engine, Sequence[Answer]], int] = lambda engine, answers: 0,
    ) -> tuple[list[Answer], int]:
        """(an answer to each prompt, drawn with the seed beside it; tokens generated or read).

        then: asks the same engine more, about the answers, with prompts of at most `room` tokens; returns the tokens
        it read.
        """
        if not asked:
            return [], 0
        requests = [
            Request(prompt.ids, seed, sampling.max_tokens, sampling.temperature, sampling.top_p)
            for prompt, seed in asked
        ]
        needed = max(room, max(len(request.prompt) for request in requests) + sampling.max_tokens)
        engine = self.engine(needed, len(requests), unit)
        completions = engine.generate(
            requests,
            lambda done, tokens: self.ctx.progress.update(done, len(requests), unit=unit, tokens=tokens),
        )
        said = [answer_of(self.tokenizer, c, p.opened) for (p, _), c in zip(asked, completions, strict=True)]
        read = then(engine, said)
        return said, sum(completion.tokens for completion in completions) + read
