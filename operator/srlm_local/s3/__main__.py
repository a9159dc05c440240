"""Runs the S3 server: python -m srlm_local.s3 --root DIR --port N --accounts FILE --bucket NAME."""

from __future__ import annotations

import argparse
import os
import select
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from moto.moto_server.werkzeug_app import MotoRequestHandler
from werkzeug.serving import make_server

from srlm_local.s3.app import Application
from srlm_local.s3.auth import load_accounts
from srlm_local.s3.iam import provision
from srlm_local.s3.records import Records


class Handler(MotoRequestHandler):  # type: ignore[misc]
    """No access log, and no waiting for acknowledgements between headers and body."""

    disable_nagle_algorithm = True

    def log(self, type: str, message: str, *args: Any) -> None:
        if type == "error":
            super().log(type, message, *args)


def end_with(parent: int) -> None:
    """Ends this process when `parent` is gone."""
    handle = os.pidfd_open(parent)

    def wait() -> None:
        select.select([handle], [], [])
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


def main() -> None:
    """Command line of the server process: prints the port once it answers, ends on SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description="S3 server of the one-machine cluster, on loopback only")
    parser.add_argument("--root", type=Path, required=True, help="folder that keeps the objects")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--accounts", type=Path, required=True, help="JSON file of access keys")
    parser.add_argument("--bucket", action="append", default=[], help="make this bucket if it is missing")
    parser.add_argument("--parent", type=int, help="end when the process of this id is gone")
    args = parser.parse_args()
    if args.parent is not None:
        end_with(args.parent)
    provision(load_accounts(args.accounts))
    records = Records(args.root)
    for name in args.bucket:
        if name not in records.backend.buckets:
            records.backend.create_bucket(name, "us-east-1")
            records.save(name)
    server = make_server("127.0.0.1", args.port, Application(records), True, request_handler=Handler)
    for number in (signal.SIGTERM, signal.SIGINT):
        # shutdown() waits for the loop it is called from, so another thread calls it.
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown, daemon=True).start())
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()
