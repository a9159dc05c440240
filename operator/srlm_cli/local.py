"""`srlm local up`: the one-machine cluster in the foreground."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from pathlib import Path

from srlm_local.machine import BUCKET, MachineError, up
from srlm_local.provision import SECRET

DEFAULT_FOLDER = Path(".srlm")


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `srlm local`."""
    parser.set_defaults(func=main)
    commands = parser.add_subparsers(dest="local_command", required=True, metavar="COMMAND")
    start = commands.add_parser(
        "up",
        help="start the one-machine cluster and print its kubeconfig",
        description="Starts a Kubernetes API server, a Job controller, a pod runner, SeaweedFS as its S3"
        " server and the operator on this machine, without containers, until Ctrl-C. State stays in the folder.",
    )
    start.add_argument("--folder", type=Path, default=DEFAULT_FOLDER, help="keeps the state (default: %(default)s)")
    start.add_argument("--no-operator", action="store_true", help="for development: run `srlm operator` yourself")
    start.add_argument("--port", type=int, help="port of the API server (default: as last time, or a free one)")
    start.add_argument("--s3-port", type=int, help="port of the S3 server (default: as last time, or a free one)")
    add_store_arguments(start)
    start.add_argument("--cores", type=int, help="CPU slots for pods (default: the cores of this machine)")


def add_store_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that name a store to use in place of SeaweedFS."""
    parser.add_argument(
        "--s3-endpoint",
        metavar="URL",
        help="use the S3 store at this URL and start none, with the keys of AWS_ACCESS_KEY_ID and"
        " AWS_SECRET_ACCESS_KEY (default: as last time)",
    )
    parser.add_argument("--s3-bucket", help=f"its bucket (default: as last time, or {BUCKET})")


def main(args: argparse.Namespace) -> int:
    """Runs the command; returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        asyncio.run(_up(args))
    except MachineError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


async def _up(args: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with up(
        args.folder,
        operator=not args.no_operator,
        port=args.port,
        s3_port=args.s3_port,
        s3_endpoint=args.s3_endpoint,
        s3_bucket=args.s3_bucket,
        cores=args.cores,
    ) as machine:
        _say(f"API server   {machine.server.url}")
        storage = machine.storage
        _say(f"S3 server    {storage['endpointUrl']}  {storage['uri']}, keys in Secret {SECRET}")
        if machine.operator:
            _say("             runs in namespace default may leave spec.storage out")
        _say(f"operator     {machine.operator.log if machine.operator else 'not started (--no-operator)'}")
        _say("")
        _say(f"export KUBECONFIG={machine.kubeconfig}")
        failed = asyncio.create_task(machine.wait())
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({failed, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if failed.done():
            failed.result()
        failed.cancel()
        _say("stopping")


def _say(text: str) -> None:
    print(text, flush=True)
