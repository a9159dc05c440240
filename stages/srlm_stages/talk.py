"""`python -m srlm_stages.talk M3=FOLDER [M1=FOLDER]`: a conversation in the terminal, with two models side by side.

What `srlm chat` starts. Each line of standard input is a turn of the user's; `/new` forgets what was said, and the end
of the input ends it. Ctrl-C ends an answer.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from srlm_contract.errors import BadInput, StageFailure
from srlm_contract.spec.pods import EngineSettings

from .conversation.chat import Message, encode_chat, load_tokenizer
from .engines import Request, context_length, open_engine
from .engines.transformers_engine import TransformersEngine

NEW = "/new"
#: Tokens of a conversation at most, for the memory's sake.
LONGEST = 8192
#: Of a GPU's memory, what vLLM takes unless it is told otherwise.
USUAL_SHARE = 0.9
#: What a token that is the first part of a character decodes to.
HALF = "\ufffd"


@dataclass(frozen=True)
class Style:
    """How answers are drawn."""

    temperature: float
    top_p: float
    max_tokens: int
    seed: int


class Speaker(Protocol):
    """Answers a conversation in pieces of text."""

    def answer(self, turns: Sequence[Message]) -> Iterator[str]:
        """turns: the whole conversation, a turn of the user's last. Raises StageFailure."""


class Local:
    """A model folder and an engine in this process. From transformers the answer comes as it is written, from vLLM
    whole."""

    def __init__(self, folder: Path, style: Style, engine: Literal["transformers", "vllm"], share: float = 1) -> None:
        """share: of the GPU's memory that engines may take."""
        self._style = style
        self._tokenizer = load_tokenizer(folder)
        self._context = min(context_length(folder), LONGEST)
        with redirect_stdout(sys.stderr):  # where answers go, nothing else does
            args = {"gpu_memory_utilization": USUAL_SHARE * share} if engine == "vllm" and share < 1 else {}
            settings = EngineSettings(name=engine, dtype="Auto", args=args)
            self._engine = open_engine(settings, folder, self._context)

    def answer(self, turns: Sequence[Message]) -> Iterator[str]:
        style, ids = self._style, encode_chat(self._tokenizer, turns)
        room = min(style.max_tokens, self._context - len(ids))
        if room < 1:
            raise BadInput("InputTooLong", f"the conversation has {len(ids)} tokens, and {self._context} is the most")
        request = Request(ids, style.seed, room, temperature=style.temperature, top_p=style.top_p)
        if not isinstance(self._engine, TransformersEngine):
            yield self._engine.generate([request])[0].text
            return
        said = ""
        for text in self._engine.stream(request):
            if text != said and not text.endswith(HALF):
                yield text.removeprefix(said)
                said = text


class Endpoint:
    """A model behind an OpenAI-compatible API, such as that of `vllm serve`."""

    def __init__(self, url: str, model: str, style: Style, key: str = "") -> None:
        import httpx

        self._http, self._style = httpx, style
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.Client(base_url=url.rstrip("/"), headers=headers, timeout=120)
        self._model = model or self._first_model()

    def answer(self, turns: Sequence[Message]) -> Iterator[str]:
        style = self._style
        body = {
            "model": self._model,
            "messages": [dict(turn) for turn in turns],
            "temperature": style.temperature,
            "top_p": style.top_p,
            "max_tokens": style.max_tokens,
            "stream": True,
        }
        try:
            with self._client.stream("POST", "/chat/completions", json=body) as response:
                if response.status_code != 200:
                    response.read()
                    raise self._refused(response)
                for line in response.iter_lines():
                    data = line.removeprefix("data:").strip()
                    if line.startswith("data:") and data != "[DONE]":
                        choices = json.loads(data).get("choices") or [{}]
                        yield (choices[0].get("delta") or {}).get("content") or ""
        except (self._http.HTTPError, self._http.InvalidURL, ValueError) as error:
            raise BadInput("ModelNotUsable", f"{self._client.base_url}: {error}") from error

    def _first_model(self) -> str:
        try:
            response = self._client.get("/models")
            if response.status_code != 200:
                raise self._refused(response)
            return str(response.json()["data"][0]["id"])
        except (self._http.HTTPError, self._http.InvalidURL) as error:
            raise BadInput("ModelNotUsable", f"{self._client.base_url}: {error}") from error
        except (ValueError, LookupError, TypeError) as error:
            raise BadInput("ModelNotUsable", f"{self._client.base_url} lists no models: name one") from error

    def _refused(self, response: Any) -> BadInput:
        return BadInput("ModelNotUsable", f"{response.url}: HTTP {response.status_code}: {response.text[:300]}")


@dataclass
class Conversation:
    """What was said to one speaker and by it."""

    name: str
    speaker: Speaker
    system: str = ""
    turns: list[Message] = field(default_factory=list)

    def ask(self, text: str) -> Generator[str]:
        """The answer in pieces; what was answered belongs to the conversation, also when it is broken off."""
        self.turns.append({"role": "user", "content": text})
        system: list[Message] = [{"role": "system", "content": self.system}] if self.system else []
        said: list[str] = []
        try:
            for piece in self.speaker.answer([*system, *self.turns]):
                said.append(piece)
                yield piece
        except StageFailure:
            self.turns.pop()
            raise
        finally:
            if self.turns[-1:] and self.turns[-1]["role"] == "user":
                self.turns.append({"role": "assistant", "content": "".join(said)})


def talk(conversations: Sequence[Conversation], lines: Iterator[str]) -> None:
    """Answers every line until there are no more."""
    for line in lines:
        text = line.strip()
        if not text:
            continue
        if text == NEW:
            for conversation in conversations:
                conversation.turns.clear()
            _write("(a new conversation)\n")
            continue
        for conversation in conversations:
            _write(f"{conversation.name} › ")
            try:
                with closing(conversation.ask(text)) as pieces:
                    for piece in pieces:
                        _write(piece)
            except KeyboardInterrupt:
                _write(" …")
            except StageFailure as problem:
                _write(f"({problem}; {NEW} begins a new conversation)")
            _write("\n")


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _lines() -> Iterator[str]:
    """Of the terminal with a prompt, or of whatever is piped in."""
    if not sys.stdin.isatty():
        yield from sys.stdin
        return
    import readline  # noqa: F401 - gives input() its editing

    while True:
        try:
            yield input("you › ")
        except (EOFError, KeyboardInterrupt):
            _write("\n")
            return


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="srlm_stages.talk", description=__doc__)
    parser.add_argument("models", nargs="*", metavar="NAME=FOLDER")
    parser.add_argument("--engine", choices=("transformers", "vllm"), default="transformers")
    parser.add_argument("--endpoint", metavar="URL", help="in place of folders")
    parser.add_argument("--served-model", default="", help="its name at the endpoint (default: the first there)")
    parser.add_argument("--system", default="", help="system prompt")
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--top-p", type=float, default=0.9)
    parser.add_argument("--max-tokens", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    style = Style(args.temperature, args.top_p, args.max_tokens, args.seed)
    try:
        conversations = list(_conversations(args, style))
        talk(conversations, _lines())
    except KeyboardInterrupt:
        return 130
    except StageFailure as problem:
        sys.stderr.write(f"error: {problem}\n")
        return 1
    return 0


def _conversations(args: argparse.Namespace, style: Style) -> Iterator[Conversation]:
    if args.endpoint:
        speaker = Endpoint(args.endpoint, args.served_model, style, os.environ.get("OPENAI_API_KEY", ""))
        yield Conversation(args.served_model or "model", speaker, args.system)
        return
    for model in args.models:
        name, _, folder = model.partition("=")
        share = 1 / len(args.models)
        yield Conversation(name, Local(Path(folder), style, args.engine, share), args.system)


if __name__ == "__main__":
    sys.exit(main())
