"""A conversation in the terminal: with a model in this process, and with one that is served."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from srlm_contract.errors import BadInput
from srlm_stages.talk import Conversation, Endpoint, Local, Style, main, talk
from support.http_server import QuietHandler, serving
from support.tiny_model import build_tiny_model

pytestmark = pytest.mark.heavy

EXACT = Style(temperature=0, top_p=1, max_tokens=12, seed=0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("model"))


class Server:
    """An OpenAI-compatible API that says again what it was told last, word by word."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.url = ""
        server = self

        class Handler(QuietHandler):
            def do_GET(self) -> None:
                self.reply(json.dumps({"data": [{"id": "served"}]}).encode())

            def do_POST(self) -> None:
                body = json.loads(self.body())
                server.asked.append(body | {"key": self.headers.get("Authorization")})
                last = body["messages"][-1]["content"]
                if last == "too long":
                    self.reply(b"the context has 8 tokens", "text/plain", 400)
                    return
                pieces = [{"choices": [{"delta": {"content": word + " "}}]} for word in last.split()]
                lines = [f"data: {json.dumps(piece)}\n\n" for piece in [*pieces, {"choices": []}]]
                self.reply("".join([*lines, "data: [DONE]\n\n"]).encode(), "text/event-stream")

        self.handler = Handler


@pytest.fixture
def served() -> Iterator[Server]:
    server = Server()
    with serving(server.handler) as address:
        server.url = f"{address}/v1"
        yield server


def test_pieces_make_up_the_answer_and_the_conversation_remembers_it(model: Path) -> None:
    conversation = Conversation("M1", Local(model, EXACT, "transformers"))
    first = list(conversation.ask("What is it?"))
    assert len(first) > 1, "it comes as it is written"
    assert [turn["role"] for turn in conversation.turns] == ["user", "assistant"]
    assert conversation.turns[1]["content"] == "".join(first)
    list(conversation.ask("And what is that?"))
    assert [turn["role"] for turn in conversation.turns] == ["user", "assistant", "user", "assistant"]


def test_an_answer_broken_off_stays_as_far_as_it_was(model: Path) -> None:
    conversation = Conversation("M1", Local(model, EXACT, "transformers"))
    pieces = conversation.ask("What is it?")
    begun = next(pieces)
    pieces.close()
    assert conversation.turns[-1] == {"role": "assistant", "content": begun}


def test_a_conversation_that_no_longer_fits_can_begin_anew(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    conversation = Conversation("M1", Local(model, EXACT, "transformers"))
    talk([conversation], iter(["word " * 1200, "/new", "Hi"]))
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("M1 › (the conversation has ")
    assert "and 1024 is the most; /new begins a new conversation)" in out[0]
    assert out[1] == "(a new conversation)"
    assert out[2].startswith("M1 › ")
    assert len(conversation.turns) == 2


def test_a_served_model(served: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "key-of-somebody")
    monkeypatch.setattr("sys.stdin", io.StringIO("one two\ntoo long\nthree\n"))
    assert main(["--endpoint", served.url, "--system", "Be short.", "--temperature", "0.5"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert [line.split("HTTP")[0].rstrip() for line in out] == [
        "model › one two",
        f"model › ({served.url}/chat/completions:",
        "model › three",
    ]
    assert "HTTP 400: the context has 8 tokens" in out[1]
    first, _, last = served.asked
    assert (first["model"], first["temperature"], first["key"]) == ("served", 0.5, "Bearer key-of-somebody")
    assert [turn["content"] for turn in last["messages"]] == ["Be short.", "one two", "one two ", "three"]


def test_a_server_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--endpoint", "http://127.0.0.1:9/v1"]) == 1
    assert capsys.readouterr().err.startswith("error: http://127.0.0.1:9/v1")
    with pytest.raises(BadInput, match=r"127\.0\.0\.1:9"):
        list(Endpoint("http://127.0.0.1:9/v1", "name", EXACT).answer([{"role": "user", "content": "Hi"}]))
