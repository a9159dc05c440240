"""Runs the S3 server: python -m srlm_local.s3 --root DIR --port N --accounts FILE."""

from __future__ import annotations

import argparse
import asyncio
import signal
from pathlib import Path

from aiohttp import web

from srlm_local.processes import end_with_parent
from srlm_local.s3.auth import load_accounts
from srlm_local.s3.objects import ObjectStore
from srlm_local.s3.server import S3Server


async def serve(root: Path, port: int, accounts: Path) -> None:
    """Serves until SIGTERM or SIGINT; prints the port once requests are answered."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    runner = web.AppRunner(S3Server(ObjectStore(root), load_accounts(accounts)).application(), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port, shutdown_timeout=1)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await stop.wait()
    await runner.cleanup()


def main() -> None:
    """Command line of the server process."""
    parser = argparse.ArgumentParser(description="S3 server of the one-machine cluster, on loopback only")
    parser.add_argument("--root", type=Path, required=True, help="folder that keeps the objects")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--accounts", type=Path, required=True, help="JSON file of access keys")
    parser.add_argument("--parent", type=int, help="ends with this process, its parent")
    args = parser.parse_args()
    if args.parent:
        end_with_parent(args.parent)
    asyncio.run(serve(args.root, args.port, args.accounts))


if __name__ == "__main__":
    main()
