"""A local OpenAI-compatible chat server that answers as a test scripts it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from support.http_server import QuietHandler, serving

Answer = Callable[[dict[str, Any], int], tuple[int, Any]]
"""(request body, number of the request) → (HTTP status, JSON body or text)."""


class JudgeServer:
    """Where it listens and what it was asked."""

    def __init__(self, answer: Answer) -> None:
        self.requests: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self.asked = threading.Event()
        lock, outer = threading.Lock(), self

        class Handler(QuietHandler):
            def do_POST(self) -> None:
                body = json.loads(self.body())
                with lock:
                    outer.requests.append(body)
                    number = len(outer.requests)
                outer.keys.add(self.headers["Authorization"])
                outer.asked.set()
                status, said = answer(body, number)
                data = said.encode() if isinstance(said, str) else json.dumps(said).encode()
                self.reply(data, status=status)

        self.handler = Handler
        self.url = ""


def said(text: str, tokens: int = 10, finish: str = "stop") -> tuple[int, Any]:
    """A chat completion."""
    return 200, {
        "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": finish}],
        "usage": {"total_tokens": tokens},
    }


@contextmanager
def judge_server(answer: Answer) -> Iterator[JudgeServer]:
    """Runs until the block ends."""
    judge = JudgeServer(answer)
    with serving(judge.handler) as address:
        judge.url = f"{address}/v1"
        yield judge
