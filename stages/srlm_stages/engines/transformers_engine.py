"""Plain transformers: for machines where vLLM cannot be installed, and for tests.

Rows are padded on the left and sampled one by one, each with its own random generator over tokens in vocabulary
order, so that a row's text does not depend on its neighbours (up to rounding of the matrix products).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from srlm_contract.errors import BadInput
from srlm_contract.spec.pods import EngineSettings
from srlm_stages.sources.text_models import register_text_models

from . import Completion, OnProgress, Request
from .choice_tokens import choice_tokens

BATCH = 16


@dataclass
class _Row:
    """A request while it is being answered."""

    request: Request
    generator: Any
    tokens: list[int] = field(default_factory=list)
    text: str = ""
    forced: list[int] = field(default_factory=list)
    """Tokens of the score line still to come, digit excluded."""
    scoring: bool = False
    done: bool = False
    truncated: bool = False


class TransformersEngine:
    """A model in transformers."""

    def __init__(self, model: Path, spec: EngineSettings, max_model_len: int) -> None:
        import torch
        import transformers

        self._torch = torch
        self.versions = {"transformers": str(transformers.__version__), "dtype": spec.dtype}
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype = {"BFloat16": torch.bfloat16, "Float16": torch.float16, "Float32": torch.float32}[spec.dtype]
        arguments = {"dtype": dtype, "trust_remote_code": False, **spec.args}
        register_text_models()
        try:
            self._model = transformers.AutoModelForCausalLM.from_pretrained(str(model), **arguments)
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(str(model), trust_remote_code=False)
        except (ValueError, OSError, KeyError, TypeError) as error:
            raise BadInput(
                "ModelNotUsable", f"transformers cannot load {model.name}: {type(error).__name__}: {error}"
            ) from error
        self._model.to(self._device).eval()
        self._ends = _end_tokens(self._model, self._tokenizer)

    def generate(self, requests: Sequence[Request], on_progress: OnProgress | None = None) -> list[Completion]:
        rows = [_Row(r, self._torch.Generator().manual_seed(r.seed), done=r.max_tokens < 1) for r in requests]
        # Similar lengths share a batch: less padding. The sort is stable, so batches are deterministic.
        order = sorted(range(len(rows)), key=lambda i: len(rows[i].request.prompt))
        finished = tokens = 0
        for start in range(0, len(order), BATCH):
            batch = [rows[i] for i in order[start : start + BATCH]]
            for _ in self._steps(batch):
                pass
            finished += len(batch)
            tokens += sum(len(row.tokens) for row in batch)
            if on_progress is not None:
                on_progress(finished, tokens)
        return [Completion(row.text, len(row.tokens), row.truncated, tuple(row.tokens)) for row in rows]

    def stream(self, request: Request) -> Iterator[str]:
        """The answer to one request as far as it has come, again and again until it is whole."""
        row = _Row(request, self._torch.Generator().manual_seed(request.seed), done=request.max_tokens < 1)
        for _ in self._steps([row]):
            yield row.text

    def next_token_probabilities(
        self, prompts: Sequence[tuple[int, ...]], tokens: Sequence[int], on_progress: OnProgress | None = None
    ) -> list[list[float]]:
        torch = self._torch
        wanted = torch.tensor(list(tokens))
        found: list[list[float]] = []
        for start in range(0, len(prompts), BATCH):
            with torch.inference_mode():
                output = self._model(**self._padded(prompts[start : start + BATCH]), logits_to_keep=1)
            probabilities = output.logits[:, -1].float().softmax(-1).cpu()
            found += probabilities[:, wanted].tolist()
            if on_progress is not None:
                on_progress(len(found), len(found))
        return found

    def close(self) -> None:
        del self._model

    def _steps(self, rows: list[_Row]) -> Iterator[None]:
        """Answer one batch to the end, a token of each row at a time."""
        torch = self._torch
        inputs = self._padded([row.request.prompt for row in rows])
        mask, past = inputs["attention_mask"], None
        with torch.inference_mode():
            while not all(row.done for row in rows):
                output = self._model(**inputs, past_key_values=past, use_cache=True, logits_to_keep=1)
                past = output.past_key_values
                logits = output.logits[:, -1].float().cpu()
                chosen = [self._ends[0] if row.done else self._advance(row, logits[i]) for i, row in enumerate(rows)]
                mask = torch.cat([mask, mask.new_ones((len(rows), 1))], dim=1)
                inputs = {
                    "input_ids": torch.tensor(chosen, device=self._device).unsqueeze(1),
                    "attention_mask": mask,
                    "position_ids": mask.sum(1, keepdim=True) - 1,
                }
                yield

    def _padded(self, prompts: Sequence[tuple[int, ...]]) -> dict[str, Any]:
        torch = self._torch
        width = max(len(p) for p in prompts)
        ids = [[self._ends[0]] * (width - len(p)) + list(p) for p in prompts]
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=self._device)
        return {
            "input_ids": torch.tensor(ids, device=self._device),
            "attention_mask": mask,
            "position_ids": (mask.cumsum(1) - 1).clamp(min=0),
        }

    def _advance(self, row: _Row, logits: Any) -> int:
        """Draw the row's next token and note what it means; returns the token to feed."""
        if row.request.constraint is not None:
            return self._advance_constrained(row, logits)
        token = self._sample(row, logits)
        if token in self._ends:
            row.done = True
            return token
        row.tokens.append(token)
        row.text = self._decode(row.tokens)
        for stop in row.request.stop:
            if stop in row.text:
                row.text, row.done = row.text[: row.text.index(stop)], True
        if not row.done and len(row.tokens) >= row.request.max_tokens:
            row.done = row.truncated = True
        return token

    def _advance_constrained(self, row: _Row, logits: Any) -> int:
        """Free text on one line, then the tokens of the score line, then one digit."""
        constraint = row.request.constraint
        assert constraint is not None
        lead, digits = self._score_line(constraint.lead)
        if not row.scoring:
            banned = [] if row.tokens else [*self._ends, *self._tokens_with_newline()]
            token = self._sample(row, logits, banned=banned)
            text = self._decode([*row.tokens, token])
            room = row.request.max_tokens - len(lead) - 2
            over = len(text) > constraint.max_characters or len(row.tokens) >= room
            if not (token in self._ends or "\n" in text or over):
                row.tokens.append(token)
                row.text = text
                return token
            row.scoring, row.forced = True, list(lead)
        if row.forced:
            token = row.forced.pop(0)
        else:
            token = self._sample(row, logits, allowed=list(digits))
            row.done = True
        row.tokens.append(token)
        row.text = self._decode(row.tokens)
        return token

    @lru_cache(maxsize=1)  # noqa: B019 - a process has few engines, open until its end
    def _score_line(self, lead: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return choice_tokens(self._tokenizer, "\n", lead, "012345")

    @lru_cache(maxsize=1)  # noqa: B019 - as above
    def _tokens_with_newline(self) -> list[int]:
        texts = self._tokenizer.batch_decode([[token] for token in range(len(self._tokenizer))])
        return [token for token, text in enumerate(texts) if "\n" in text]

    def _sample(self, row: _Row, logits: Any, banned: Sequence[int] = (), allowed: Sequence[int] | None = None) -> int:
        torch = self._torch
        request = row.request
        if allowed is not None:
            kept = torch.full_like(logits, float("-inf"))
            kept[list(allowed)] = logits[list(allowed)]
            logits = kept
        if banned:
            logits = logits.clone()
            logits[list(banned)] = float("-inf")
        if request.temperature == 0:
            return int(logits.argmax())
        probabilities = (logits.double() / request.temperature).softmax(-1)
        if request.top_p < 1:
            ordered, index = probabilities.sort(descending=True, stable=True)
            beyond = ordered.cumsum(0) - ordered >= request.top_p
            probabilities[index[beyond]] = 0
        total = probabilities.cumsum(0)
        point = torch.rand(1, generator=row.generator, dtype=torch.double) * total[-1]
        return min(int(torch.searchsorted(total, point, right=True)), len(total) - 1)

    def _decode(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True))


def _end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """Token ids that end an answer: the model's generation settings, else the tokenizer's."""
    ends = model.generation_config.eos_token_id
    if ends is None:
        ends = tokenizer.eos_token_id
    if ends is None:
        raise BadInput("ModelNotUsable", "neither generation_config.json nor the tokenizer names an end token")
    listed = [ends] if isinstance(ends, int) else list(ends)
    if tokenizer.eos_token_id is not None and tokenizer.eos_token_id not in listed:
        listed.append(tokenizer.eos_token_id)
    return listed
