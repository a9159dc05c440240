"""`srlm chat NAME [--model M2] [--against M1]`: talks to finished models of a run in the terminal."""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack

from srlm_cli.models.fetch import add_cache_argument, cached, chosen
from srlm_cli.runs import add_endpoint_argument, add_run_arguments
from srlm_operator.errors import ConfigurationError

#: Options that go on as they are to the program that talks, with its defaults.
_DRAWING = ("system", "temperature", "top_p", "max_tokens", "seed")


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `srlm chat`."""
    parser.description = (
        "Fetches finished models of a run, unless they are in the cache ($XDG_CACHE_HOME/srlm/models) already, and "
        "talks to them: each line is a turn of yours, /new begins a new conversation, Ctrl-C ends an answer, Ctrl-D "
        "the command. With --serving nothing is fetched: the model answers where it is served."
    )
    add_run_arguments(parser)
    parser.add_argument("--model", metavar="M2", help="default: the newest")
    parser.add_argument("--against", metavar="M1", help="a second model that answers the same")
    parser.add_argument("--engine", choices=("transformers", "vllm"), default="transformers")
    parser.add_argument(
        "--serving", metavar="URL", help="an OpenAI-compatible API, such as http://localhost:8000/v1 of `vllm serve`; "
        "its key comes from OPENAI_API_KEY",
    )  # fmt: skip
    parser.add_argument("--served-model", help="the model's name there (default: the first it lists)")
    parser.add_argument("--system", help="system prompt")
    parser.add_argument("--temperature", type=float, help="0 for the likeliest answer (default: 0.7)")
    parser.add_argument("--top-p", type=float, help="default: 0.9")
    parser.add_argument("--max-tokens", type=int, help="length of an answer at most (default: 512)")
    parser.add_argument("--seed", type=int, help="default: 0")
    add_cache_argument(parser)
    add_endpoint_argument(parser)
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Fetch, then talk. Returns the exit status; raises OperatorError."""
    more: list[str] = []
    for name in _DRAWING:
        if (value := getattr(args, name)) is not None:
            more.append(f"--{name.replace('_', '-')}={value}")
    if args.serving:
        if args.against or args.model:
            raise ConfigurationError("--serving talks to one model, the served one: leave --model and --against out")
        served = [f"--served-model={args.served_model}"] if args.served_model else []
        return _talk([f"--endpoint={args.serving}", *served, *more])
    if importlib.util.find_spec("torch") is None:
        raise ConfigurationError(
            "running a model here needs torch: pip install 'self-rewarding-operator[cli,light]', or talk to "
            "a served model with --serving URL"
        )
    found, models = asyncio.run(chosen(args, [args.model, *([args.against] if args.against else [])]))
    with ExitStack() as kept:
        folders = [(model.name, kept.enter_context(cached(args, found, model))) for model in models]
        return _talk([*(f"{name}={folder}" for name, folder in folders), f"--engine={args.engine}", *more])


def _talk(arguments: Sequence[str]) -> int:
    """The conversation, in a process of its own: this package knows no stage. Ctrl-C is meant for it alone."""
    talking = subprocess.Popen([sys.executable, "-m", "srlm_stages.talk", *arguments])
    while True:
        try:
            return talking.wait()
        except KeyboardInterrupt:
            continue
