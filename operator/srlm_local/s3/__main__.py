"""Runs the S3 server: python -m srlm_local.s3 --root DIR --port N --accounts FILE."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from pathlib import Path

from aiohttp import web

from srlm_local.s3.auth import load_accounts
from srlm_local.s3.objects import ObjectStore
from srlm_local.s3.server import S3Server


async def serve(root: Path, port: int, accounts: Path, buckets: list[str]) -> None:
    """Serves until SIGTERM or SIGINT; prints the port once requests are answered."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    store = ObjectStore(root)
    for name in buckets:
        if name not in store.buckets:
            store.create_bucket(name)
    runner = web.AppRunner(S3Server(store, load_accounts(accounts)).application(), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port, shutdown_timeout=1)
    await site.start()
    sys.stdout.write(f"{runner.addresses[0][1]}\n")
    sys.stdout.flush()
    await stop.wait()
    await runner.cleanup()


def main() -> None:
    """Command line of the server process."""
    parser = argparse.ArgumentParser(description="S3 server of the one-machine cluster, on loopback only")
    parser.add_argument("--root", type=Path, required=True, help="folder that keeps the objects")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--accounts", type=Path, required=True, help="JSON file of access keys")
    parser.add_argument("--bucket", action="append", default=[], help="make this bucket if it is missing")
    args = parser.parse_args()
    asyncio.run(serve(args.root, args.port, args.accounts, args.bucket))


if __name__ == "__main__":
    main()
