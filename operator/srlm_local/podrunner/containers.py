"""One container: its supervisor process, and what became of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped,unused-ignore]

from srlm_local.processes import kill_marked

SUPERVISOR = Path(__file__).with_name("supervisor.py")
TERMINATION_BYTES = 4096
FALLBACK_BYTES = 2048
FALLBACK_LINES = 80


@dataclass(frozen=True)
class Launch:
    """Everything needed to start a container; `owner` marks its processes."""

    argv: list[str]
    env: dict[str, str]
    cwd: Path
    log: Path
    result: Path
    owner: str
    memory: int | None = None
    """Limit in bytes for all its processes together; above it they are killed, as if by the kernel."""


@dataclass(frozen=True)
class Outcome:
    """How a container ended. `error` when it could not even start."""

    exit_code: int
    signal: int
    oom_killed: bool
    error: str = ""


class RunningContainer:
    """A started container. Ending this process in any way ends the container and all it started."""

    def __init__(self, launch: Launch, process: asyncio.subprocess.Process, pid: int | None) -> None:
        self.pid = pid
        """Process id of the container's command; None when it could not start."""
        self._launch = launch
        self._process = process

    @classmethod
    async def start(cls, launch: Launch) -> RunningContainer:
        """Starts the supervisor and waits until it has started the command."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-S", "-E", str(SUPERVISOR), str(Path(psutil.__file__).parents[1]),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env={"PATH": os.defpath},
            start_new_session=True,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        config = {
            "argv": launch.argv,
            "env": launch.env,
            "cwd": str(launch.cwd),
            "log": str(launch.log),
            "result": str(launch.result),
            "memory": launch.memory,
        }
        # Through a pipe, not by arguments or a file: the environment holds credentials.
        with contextlib.suppress(ConnectionError):
            process.stdin.write(json.dumps(config).encode() + b"\n")
            await process.stdin.drain()
        line = await process.stdout.readline()
        return cls(launch, process, int(line) if line.strip() else None)

    def terminate(self) -> None:
        """SIGTERM to the main process, as the end of a pod begins."""
        self._command(b"term\n")

    def kill(self) -> None:
        """SIGKILL to all its processes."""
        self._command(b"kill\n")

    async def close(self) -> None:
        """Ends what may still run and waits for it; for use in `finally`."""
        self.kill()
        await self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
            with contextlib.suppress(ConnectionError):
                await self._process.stdin.wait_closed()

    def _command(self, text: bytes) -> None:
        stdin = self._process.stdin
        if stdin is not None and not stdin.is_closing():
            stdin.write(text)

    async def wait(self) -> Outcome:
        """Waits for the end of the whole tree."""
        await self._process.wait()
        if sys.platform != "linux":
            kill_marked(self._launch.owner)  # no subreaper: an orphan may have slipped away
        try:
            result = json.loads(self._launch.result.read_text())
        except FileNotFoundError:
            # Somebody killed the supervisor itself; what it held together is found by its mark.
            kill_marked(self._launch.owner)
            return Outcome(137, 9, False)
        return Outcome(
            exit_code=result.get("exitCode", 128),
            signal=result.get("signal", 0),
            oom_killed=result.get("oomKilled", False),
            error=result.get("error", ""),
        )


def termination_message(path: Path, log: Path, policy: str, failed: bool) -> str:
    """What the container left to say: the end of its message file, or of its log where the policy says so."""
    text = _tail(path, TERMINATION_BYTES)
    if not text and policy == "FallbackToLogsOnError" and failed:
        lines = [
            line.split(b" ", 2)[2] for line in _tail(log, 2 * FALLBACK_BYTES).split(b"\n") if line.count(b" ") >= 2
        ]
        text = b"\n".join(lines[-FALLBACK_LINES:])[-FALLBACK_BYTES:]
    return text.decode(errors="replace")


def _tail(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - limit, 0))
            return file.read(limit)
    except OSError:
        return b""
