"""`srlm`, also installed as `kubectl-srlm`: one module a subcommand."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module

from srlm_operator.errors import OperatorError

#: Loaded on use: `srlm validate` needs no Kubernetes client and `srlm operator` no terminal library.
COMMANDS = {
    "operator": "run the operator against the current cluster",
    "plan": "show what a run would do, without a cluster",
    "status": "one screen about a run",
    "report": "ask for a fresh report of a run and fetch it",
    "validate": "check manifests offline",
    "local": "one-machine cluster",
    "demo": "a whole run on this machine",
}

#: What to install for a subcommand; `operator` for all others.
EXTRAS = {"local": "local", "demo": "cpu,local"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments[:1] == ["operator"]:
        # Before the imports, which take seconds: for the first process of a container SIGTERM has no default action,
        # and one that nobody takes is lost. Nothing is begun yet that would have to end.
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    parser = argparse.ArgumentParser(
        prog="srlm", description="Self-Rewarding Language Models on Kubernetes: generate, judge, pair, DPO, again."
    )
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    chosen = next((word for word in arguments if not word.startswith("-")), "")
    try:
        for name, about in COMMANDS.items():
            if name == chosen:
                import_module(f"{__name__}.{name}").add_parser(subparsers)
            else:
                subparsers.add_parser(name, help=about)
        parsed = parser.parse_args(arguments)
        status: int = parsed.func(parsed)
    except ModuleNotFoundError as missing:
        if (missing.name or "").startswith("srlm_"):
            raise
        extra = EXTRAS.get(chosen, "operator")
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
