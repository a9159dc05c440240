"""Holds one container's process tree together: python supervisor.py FOLDER, where psutil is.

Reads one line of JSON from standard input: {"argv", "env", "cwd", "log", "result", "memory"}; then commands, a line
each: `term` signals the main process, `kill` ends everything. The end of input means that the cluster is
gone, however it died, and ends everything too. When the main process ends, so does every descendant,
whatever sessions they opened: a subreaper inherits orphans (Linux); elsewhere they are remembered.

Output goes to `log`, a line each: `<seconds since the epoch> F <line>`, P for a part without its end.
Writes {"exitCode", "signal", "oomKilled", "error"} to `result`.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import BinaryIO

sys.path.append(sys.argv[1])  # without the start-up of site-packages, which a container need not wait for
import psutil  # type: ignore[import-untyped,unused-ignore]

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
LINUX = sys.platform == "linux"
LOOK_SECONDS = 0.2


def main() -> None:
    """Runs the container described on standard input to its end."""
    config = json.loads(sys.stdin.buffer.readline())
    libc = ctypes.CDLL(None)
    if LINUX:
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # The cluster decides when this ends. Not SIG_IGN, which the container would inherit.
        signal.signal(number, lambda *_: None)
    wakeup, wakeup_write = os.pipe()
    os.set_blocking(wakeup_write, False)
    signal.set_wakeup_fd(wakeup_write)
    signal.signal(signal.SIGCHLD, lambda *_: None)

    def in_child() -> None:
        if LINUX:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)

    ooms_before = oom_kills()
    output, output_write = os.pipe()
    try:
        child = subprocess.Popen(
            config["argv"], env=config["env"], cwd=config["cwd"], stdin=subprocess.DEVNULL,
            stdout=output_write, stderr=output_write, start_new_session=True, preexec_fn=in_child,
        )  # fmt: skip
    except OSError as error:
        write_result(config["result"], {"error": f"{error.strerror}: {config['argv'][0]}"})
        return
    os.close(output_write)
    tree = Tree()
    with open(config["log"], "ab", buffering=0) as file:
        log = Log(output, file)
        sys.stdout.write(f"{child.pid}\n")
        sys.stdout.flush()
        memory = Memory(config.get("memory"))
        status = run(child.pid, wakeup, tree, log, memory)
        while tree.kill_descendants() or not collect({}):
            log.pump(0.01)
        log.close()
    killed_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    write_result(
        config["result"],
        {
            "exitCode": 128 + killed_by if killed_by else os.WEXITSTATUS(status),
            "signal": killed_by,
            "oomKilled": killed_by == signal.SIGKILL and (memory.over or oom_kills() > ooms_before),
        },
    )


def run(child: int, wakeup: int, tree: Tree, log: Log, memory: Memory) -> int:
    """Passes commands and output on until the main process has ended; returns its wait status."""
    stdin = sys.stdin.fileno()
    sources = [stdin, wakeup, log.source]
    pending = b""
    statuses: dict[int, int] = {}
    while True:
        # Elsewhere than on Linux descendants are only found while their parents live: look often.
        ready, _, _ = select.select(sources, [], [], LOOK_SECONDS if memory.limit or not LINUX else None)
        if memory.exceeded(tree):
            tree.kill_descendants()
        tree.remember()
        if log.source in ready and not log.pump():
            sources.remove(log.source)
        if wakeup in ready:
            os.read(wakeup, 4096)
            collect(statuses)
            if child in statuses:
                return statuses[child]
        if stdin in ready:
            piece = os.read(stdin, 4096)
            if not piece:
                sources.remove(stdin)
                pending += b"kill\n"
            pending += piece
            *commands, pending = pending.split(b"\n")
            for command in commands:
                if command == b"term":
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(child, signal.SIGTERM)
                elif command == b"kill":
                    tree.kill_descendants()


def collect(statuses: dict[int, int]) -> bool:
    """Notes the wait statuses of ended children; True when no child is left, not even a zombie."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return True
        if pid == 0:
            return False
        statuses[pid] = status


class Log:
    """Copies a pipe into a log file, a time before each line."""

    def __init__(self, source: int, file: BinaryIO) -> None:
        self.source = source
        self._file = file
        self._rest = b""

    def pump(self, timeout: float = 0.0) -> bool:
        """Copies what there is, waiting up to `timeout` seconds for it; False at the end of the output."""
        if not select.select([self.source], [], [], timeout)[0]:
            return True
        piece = os.read(self.source, 65536)
        *lines, self._rest = (self._rest + piece).split(b"\n")
        now = f"{time.time():.6f}".encode()
        parts = [now + b" F " + line + b"\n" for line in lines]
        if len(self._rest) > 16384 or (not piece and self._rest):
            parts.append(now + b" P " + self._rest + b"\n")
            self._rest = b""
        self._file.write(b"".join(parts))
        return bool(piece)

    def close(self) -> None:
        """Copies the rest; everybody who could write is gone."""
        while self.pump(1.0):
            pass


class Memory:
    """The container's memory limit in bytes: what a control group enforces elsewhere. Linux only."""

    def __init__(self, limit: int | None) -> None:
        self.limit = limit if LINUX else None
        self.over = False
        self._next = 0.0

    def exceeded(self, tree: Tree) -> bool:
        """Whether the private memory of all processes together is above the limit; looks at most every LOOK_SECONDS."""
        if self.limit is None or self.over or time.monotonic() < self._next:
            return False
        self._next = time.monotonic() + LOOK_SECONDS
        self.over = sum(private_bytes(process) for process in tree.descendants()) > self.limit
        return self.over


class Tree:
    """The descendants of this process."""

    def __init__(self) -> None:
        self._known: set[psutil.Process] = set()

    def remember(self) -> None:
        """Notes descendants where orphans would otherwise be lost."""
        if not LINUX:
            self._known.update(self.descendants())

    def descendants(self) -> set[psutil.Process]:
        """Living descendants, and those of processes known to have been descendants."""
        found: set[psutil.Process] = set()
        for process in (psutil.Process(), *self._known):
            with contextlib.suppress(psutil.NoSuchProcess):
                found |= {process, *process.children(recursive=True)}
        return {process for process in found if process.pid != os.getpid() and alive(process)}

    def kill_descendants(self) -> bool:
        """SIGKILLs all of them; True while there were any."""
        found = self.descendants()
        for process in found:
            with contextlib.suppress(psutil.Error):
                process.kill()
        return bool(found)


def alive(process: psutil.Process) -> bool:
    """Whether it runs: a zombie only waits to be collected."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def private_bytes(process: psutil.Process) -> int:
    """Resident memory of a process that it does not share."""
    try:
        memory = process.memory_info()
    except psutil.Error:
        return 0  # ended meanwhile
    return int(memory.rss - memory.shared)


def oom_kills() -> int:
    """How many processes the kernel has killed for memory in this machine or control group so far."""
    for path in ("/sys/fs/cgroup/memory.events", "/proc/vmstat"):
        try:
            lines = Path(path).read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
    return 0


def write_result(path: str, result: dict[str, object]) -> None:
    """Puts the result in place whole."""
    temporary = Path(f"{path}.tmp")
    temporary.write_text(json.dumps(result))
    temporary.replace(path)


if __name__ == "__main__":
    main()
