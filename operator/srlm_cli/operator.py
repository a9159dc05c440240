"""`srlm operator`: what the operator image runs."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import threading
from datetime import UTC, datetime

from srlm_operator.errors import OperatorError
from srlm_operator.settings import Settings, from_environment

log = logging.getLogger(__name__)


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `srlm operator`."""
    parser.description = (
        "Serves SelfRewardingRuns until SIGTERM. Every flag is also an environment variable"
        " SRLM_<NAME>; see srlm_operator/settings.py for all of them."
    )
    parser.add_argument("--context", help="context of the kubeconfig")
    parser.add_argument(
        "-n", "--namespace", action="append", dest="namespaces", help="serve this namespace only; may be repeated"
    )
    parser.add_argument("--leader-elect", action="store_true", default=None, help="wait for the Lease first")
    parser.add_argument("--health-port", type=int, help="port of /healthz, /readyz and /metrics; 0 for none")
    parser.add_argument("--local", action="store_true", default=None, help="one-machine cluster: no GPU requests")
    parser.add_argument("--log-format", choices=("text", "json"))
    parser.add_argument("-v", "--verbose", action="store_true", help="debug messages")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit status; 1 when the lease or the watches were lost."""
    # Before the settings are read: with JSON, what is wrong with them is a line of JSON too.
    as_json = (args.log_format or os.environ.get("SRLM_LOG_FORMAT")) == "json"
    _logging(as_json=as_json, verbose=args.verbose)
    try:
        settings = from_environment().override(
            namespaces=tuple(args.namespaces) if args.namespaces else None,
            leader_elect=args.leader_elect,
            health_port=args.health_port,
            local=args.local,
            log_format=args.log_format,
        )
        return asyncio.run(_serve(settings, args.context))
    except Exception as problem:
        if not as_json:
            raise
        log.critical("%s", problem, exc_info=None if isinstance(problem, OperatorError) else problem)
        return 1


async def _serve(settings: Settings, context: str | None) -> int:
    from srlm_operator.process import Operator

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await Operator(settings, context).run(stop)
    if not stop.is_set():
        log.error("the operator ended by itself")
        return 1
    return 0


def _logging(*, as_json: bool, verbose: bool) -> None:
    handler = logging.StreamHandler()
    if as_json:
        handler.setFormatter(_Json())
        logging.captureWarnings(True)
        threading.excepthook = _thread_failed
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, handlers=[handler])
    # Kopf tells of every event and watch; only its problems matter here.
    logging.getLogger("kopf").setLevel(logging.INFO if verbose else logging.WARNING)
    # It runs in a thread of its own, where it cannot take the signals: that is meant.
    logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)
    logging.getLogger("asyncio").setLevel(logging.WARNING)


def _thread_failed(failure: threading.ExceptHookArgs) -> None:
    if failure.exc_value is not None:
        name = failure.thread.name if failure.thread is not None else "of unknown name"
        log.error("thread %s ended: %s", name, failure.exc_value, exc_info=failure.exc_value)


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)
