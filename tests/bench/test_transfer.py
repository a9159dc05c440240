"""Transfer: our verified write and read of one large file against boto3's own transfer manager.

The other side checks nothing; a second comparison has it compute the SHA-256 that ours delivers with the bytes. Both
talk to the one-machine cluster's S3 server over loopback HTTP. That server is Python, hashes what arrives and shares
the cores with its clients: the figures say what our client costs, not what a network or a real store can do. CRT and
programs like s5cmd are not in the environment and not measured.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pairs import TABLE, Line, Ratios, in_turn, load

from support.s3_world import WRITER, Server, server

pytestmark = [pytest.mark.bench, pytest.mark.timeout(900)]

MIB = int(os.environ.get("BENCH_MIB", "256"))


class Client:
    """`transfer_client.py` of one side."""

    def __init__(self, side: str, running: Server, folder: Path) -> None:
        program = Path(__file__).with_name("transfer_client.py")
        command = [sys.executable, str(program), side, running.url, str(folder)]
        environ = os.environ | WRITER.environ
        environ |= {"PYTHONPATH": os.pathsep.join(sys.path), "AWS_EC2_METADATA_DISABLED": "true"}
        pipe = subprocess.PIPE
        self.worked: list[float] = []
        """Processor seconds of each action."""
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environ)

    def ask(self, action: str) -> float:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{action}\n")
        self.process.stdin.flush()
        first, *worked = map(float, self.process.stdout.readline().split())
        self.worked += worked
        return first


@contextmanager
def client(side: str, running: Server, folder: Path) -> Iterator[Client]:
    made = Client(side, running, folder)
    try:
        yield made
    finally:
        made.process.communicate()


@pytest.mark.parametrize("way", ["up", "down"])
def test_transfer(way: str, tmp_path: Path) -> None:
    _random_file(tmp_path / "source")
    with (
        server(tmp_path) as running,
        client("ours", running, tmp_path) as ours,
        client("boto3", running, tmp_path) as boto3,
    ):
        ours.ask("up")
        boto3.ask("up")
        name = {"up": "#6 verified write", "down": "#6 verified read"}[way] + f" of {MIB} MiB"
        a, b = in_turn(lambda: ours.ask(way), lambda: boto3.ask(way))
        note = f"{MIB / min(a):.0f} and {MIB / min(b):.0f} MiB/s at best, {load()}"
        TABLE.add(Line(name, f"boto3 {way}load_file, unverified", Ratios.of(b, a), ">=", 0.95, note))
        cpu = Ratios.of(ours.worked[-len(a) :], boto3.worked[-len(b) :])
        TABLE.add(Line(f"{name}, processor time", f"boto3 {way}load_file, unverified", cpu, note="less is better"))
        a, b = in_turn(lambda: ours.ask(way), lambda: boto3.ask(f"verified-{way}"), warm=False)
        TABLE.add(Line(name, f"boto3 {way}load_file, then SHA-256", Ratios.of(b, a), ">=", 0.95))
        peaks = [side.ask("peak") / 2**20 for side in (ours, boto3)]
        TABLE.say(f"{name}: peak memory of the client {peaks[0]:.0f} MiB, of boto3's {peaks[1]:.0f} MiB")
    if way == "down":
        assert _digest(tmp_path / "got-ours") == _digest(tmp_path / "source")


def _random_file(path: Path) -> None:
    """The same incompressible bytes every time."""
    block = hashlib.shake_256(b"transfer").digest(2**20)
    with path.open("wb") as file:
        for number in range(MIB):
            file.write(number.to_bytes(8, "big") + block[8:])


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
