"""A judge behind an OpenAI-compatible HTTP API."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

from srlm_contract.errors import BadInput, NotPermitted, Temporary
from srlm_contract.spec.loop import ExternalJudgeSpec, SamplingSpec

from ..engines import Completion, OnProgress
from ..engines.answers import foreign_text
from ..runtime.redaction import redacted

CONCURRENCY = 16
#: What servers say when a prompt does not fit the context (OpenAI, vLLM, llama.cpp, TGI).
_TOO_LONG = re.compile(r"context.{0,12}(?:length|size|window)|too (?:long|large)|maximum.{0,20}tokens", re.IGNORECASE)
TRIES = 6
TIMEOUT_SECONDS = 120.0
LONGEST_WAIT_SECONDS = 30.0


@dataclass(frozen=True)
class Ask:
    """One user turn and the seed of its answer."""

    text: str
    seed: int


class ExternalJudge:
    """`POST <url>/chat/completions`, several at once, tried again when the service is busy."""

    def __init__(
        self,
        spec: ExternalJudgeSpec,
        sampling: SamplingSpec,
        api_key: str | None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        import httpx

        self._http, self._spec, self._sampling, self._sleep = httpx, spec, sampling, sleep
        self._key = api_key or ""
        if not (self._key.isascii() and self._key.isprintable()):
            raise NotPermitted(
                "NotPermitted",
                "the Secret of judging.external.apiKeySecretRef has characters that no header may have",
            )
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        self._client = httpx.Client(headers=headers, timeout=TIMEOUT_SECONDS)
        self.url = f"{(spec.url or '').rstrip('/')}/chat/completions"

    def ask(self, asks: Sequence[Ask], on_progress: OnProgress | None = None) -> list[Completion | None]:
        """One answer an ask, in order; None where the task is too long for the judge.

        Raises NotPermitted, BadInput JudgeNotUsable or Temporary.
        """
        answers: dict[int, Completion | None] = {}
        tokens = 0
        pool = ThreadPoolExecutor(CONCURRENCY)
        try:
            pending = {pool.submit(self._ask, ask): i for i, ask in enumerate(asks)}
            for future in as_completed(pending):
                answer = answers[pending[future]] = future.result()
                tokens += answer.tokens if answer is not None else 0
                if on_progress is not None:
                    on_progress(len(answers), tokens)
        finally:
            # After an error nobody waits for requests under way.
            pool.shutdown(wait=False, cancel_futures=True)
        return [answers[i] for i in range(len(asks))]

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _ask(self, ask: Ask) -> Completion | None:
        body = {
            "model": self._spec.model,
            "messages": [{"role": "user", "content": ask.text}],
            "temperature": self._sampling.temperature,
            "top_p": self._sampling.top_p,
            "max_tokens": self._sampling.max_tokens,
            "seed": ask.seed,
        }
        trouble = ""
        for attempt in range(TRIES):
            if attempt:
                self._sleep(min(2.0**attempt, LONGEST_WAIT_SECONDS))
            try:
                response = self._client.post(self.url, json=body)
            except self._http.InvalidURL as error:
                raise BadInput("JudgeNotUsable", f"judging.external.url {self.url}: {error}") from error
            except self._http.HTTPError as error:
                trouble = f"{type(error).__name__}: {error}"
                continue
            if response.status_code == 200:
                return self._completion(response)
            trouble = f"HTTP {response.status_code}: {self._shown(response)}"
            if response.status_code in (400, 413, 422) and _TOO_LONG.search(response.text):
                return None
            if response.status_code in (401, 403):
                raise NotPermitted(
                    "NotPermitted",
                    f"{self.url} refuses the key ({trouble}); check judging.external.apiKeySecretRef",
                )
            if response.status_code < 500 and response.status_code not in (408, 409, 425, 429):
                raise BadInput("JudgeNotUsable", f"{self.url} refuses the request: {trouble}; check url and model")
        raise Temporary("Temporary", f"{self.url} does not answer after {TRIES} tries: {trouble}")

    def _shown(self, response: Any) -> str:
        """The beginning of an answer, without the key: cut first, a part of it would not be found."""
        return redacted(response.text, {"SRLM_JUDGE_API_KEY": self._key})[:300]

    def _completion(self, response: Any) -> Completion:
        try:
            answer = response.json()
            choice = answer["choices"][0]
            text = choice["message"]["content"] or ""
            tokens = int((answer.get("usage") or {}).get("total_tokens") or 0)
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise BadInput(
                "JudgeNotUsable",
                f"{self.url} does not answer like an OpenAI-compatible API: {self._shown(response)}",
            ) from error
        said, whole = foreign_text(str(text))
        return Completion(said, tokens, choice.get("finish_reason") == "length" or not whole)
