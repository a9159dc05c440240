"""`srlm`, also installed as `kubectl-srlm`: one module a subcommand."""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
from collections.abc import Sequence
from pkgutil import resolve_name

from srlm_operator.errors import OperatorError

#: What a subcommand does, and the function that gives its parser arguments, in which module of this package. Loaded on
#: use: `srlm validate` needs no Kubernetes client and `srlm operator` no terminal library.
COMMANDS = {
    "demo": ("a whole run on this machine", "demo.command:configure"),
    "validate": ("check manifests offline", "validate:configure"),
    "plan": ("show what a run would do, without a cluster", "plan:configure"),
    "list": ("runs with their state", "listing:configure"),
    "status": ("one screen about a run: iterations, stages, shards, figures, ETA", "status:configure"),
    "logs": ("what the pods of a run write", "logs:configure"),
    "ui": ("runs on a page of this machine, while they run", "ui.command:configure"),
    "samples": ("prompts with the model's answers and their scores, while the loop runs", "samples:configure"),
    "compare": ("runs side by side: settings, figures, shared artifacts", "compare:configure"),
    "suspend": ("pause a run; what is committed stays", "steer:suspend"),
    "resume": ("go on with a suspended run", "steer:resume"),
    "retry": ("try what failed again, with all its attempts", "steer:retry"),
    "continue": ("go on although a model missed a gate", "steer:go_on"),
    "report": ("ask for a fresh report of a run and fetch it", "report:configure"),
    "model": ("fetch a finished model of a run", "models.model:configure"),
    "chat": ("talk to a finished model, or to two side by side", "models.chat:configure"),
    "push": ("upload a finished model to the Hugging Face hub", "models.push:configure"),
    "local": ("one-machine cluster", "local:configure"),
    "operator": ("run the operator against the current cluster", "operator:configure"),
}

#: What to install for a subcommand; `cli` for all others.
EXTRAS = {"local": "local", "demo": "cpu,local", "chat": "cli,light", "operator": "operator"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments[:1] == ["operator"]:
        # Before the imports, which take seconds: for the first process of a container SIGTERM has no default action,
        # and one that nobody takes is lost. Nothing is begun yet that would have to end.
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a locale that lacks a sign of ours gets `?`, and no traceback
    parser = argparse.ArgumentParser(
        prog="srlm", description="Self-Rewarding Language Models on Kubernetes: generate, judge, pair, DPO, again."
    )
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    chosen = next((word for word in arguments if not word.startswith("-")), "")
    try:
        for name, (about, where) in COMMANDS.items():
            subparser = subparsers.add_parser(name, help=about, description=f"{about[0].upper()}{about[1:]}.")
            if name == chosen:
                resolve_name(f"{__name__}.{where}")(subparser)
        parsed = parser.parse_args(arguments)
        status: int = parsed.func(parsed)
    except ModuleNotFoundError as missing:
        if (missing.name or "").startswith("srlm_"):
            raise
        extra = EXTRAS.get(chosen, "cli")
        print(
            f"error: srlm {chosen} needs {missing.name}, which is not installed:"
            f" pip install 'self-rewarding-operator[{extra}]'",
            file=sys.stderr,
        )
        return 1
    except OperatorError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output (a pager, `head`) is gone: nothing is left to say.
        sys.stderr.close()
        return 0
    return status
