"""`srlm ui`: runs on a page of this machine."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from secrets import token_urlsafe

from aiohttp import web

from srlm_cli.runs import add_cluster_arguments, add_endpoint_argument, cluster_of
from srlm_cli.ui.server import application
from srlm_cli.ui.source import ClusterSource, Source
from srlm_operator.errors import ConfigurationError

HOST = "127.0.0.1"
#: With --in-cluster: the key from a Secret instead of a random one, and the namespaces that are shown; all when unset.
KEY_VARIABLE, NAMESPACES_VARIABLE = "SRLM_UI_KEY", "SRLM_UI_NAMESPACES"


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `srlm ui`."""
    parser.description = (
        "Serves pages to this machine, until Ctrl-C: runs, the loop with what runs now, figures and curves while they "
        "grow, answers with their verdicts, and runs side by side. It reads with your own rights and changes nothing. "
        "The address has a key; whoever has it sees what you may see. S3 is read with your own AWS credentials "
        "(environment or profile), else with the Secret that a run names."
    )
    parser.add_argument("--port", type=int, default=0, help="port (default: a free one)")
    parser.add_argument(
        "--in-cluster",
        action="store_true",
        help="for the chart's Deployment: listen on all addresses, under any name; read no store; /healthz for probes",
    )
    add_cluster_arguments(parser)
    parser.add_argument("-A", "--all-namespaces", action="store_true", help="runs of all namespaces")
    add_endpoint_argument(parser)
    parser.set_defaults(func=lambda args: asyncio.run(_run(args)))


async def _run(args: argparse.Namespace) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with cluster_of(args) as (client, namespace):
        names = os.environ.get(NAMESPACES_VARIABLE, "").split(",") if args.in_cluster else [namespace]
        namespaces = () if args.all_namespaces else tuple(filter(None, names))
        source = ClusterSource(client, namespaces, args.endpoint_url, stores=not args.in_cluster)
        await source.runs()  # what is wrong with cluster or rights is said here, not on a page
        key = os.environ.get(KEY_VARIABLE) if args.in_cluster else None
        async with serving(source, args.port, anywhere=args.in_cluster, key=key or None) as address:
            print(address if key is None else address.partition("?")[0], flush=True)
            print("Ctrl-C ends it", file=sys.stderr, flush=True)
            await stop.wait()
        if source.reading:
            # A store that does not answer would hold up the end for as long as its requests may take.
            os._exit(0)
    return 0


@asynccontextmanager
async def serving(
    source: Source, port: int = 0, *, anywhere: bool = False, key: str | None = None
) -> AsyncIterator[str]:
    """The server; gives the address with the key. Raises ConfigurationError.

    anywhere: not for this machine alone. key: what opens the pages; a random one by default.
    """
    key = key or token_urlsafe(24)
    runner = web.AppRunner(application(source, key, anywhere=anywhere), access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, None if anywhere else HOST, port)
        try:
            await site.start()
        except OSError as problem:
            why = os.strerror(problem.errno) if problem.errno else str(problem)
            raise ConfigurationError(f"{HOST}:{port} cannot be served: {why}; choose another --port") from None
        yield f"http://{HOST}:{runner.addresses[0][1]}/?key={key}"
    finally:
        await runner.cleanup()
