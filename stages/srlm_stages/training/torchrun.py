"""Runs torchrun as a child: passes its log on, tells why it failed, and leaves no process behind.

torchrun answers 1 whatever happened to its workers, so workers write why they fail into files; a worker that was
killed cannot, and is found in torchrun's own report.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from srlm_contract.errors import BadInput, InvalidTask, NotPermitted, StageFailure, Temporary
from srlm_contract.tasks import ProcessSettings

from ..runtime.redaction import SECRET_VARIABLES
from .config import WorkerConfig, WorkerFailure
from .launch import PARENT_VARIABLE

#: How long torchrun and its workers may take to end after SIGTERM.
GRACE_SECONDS = 15
KEPT_LINES = 60
#: How long the nodes of one training wait for one another.
RENDEZVOUS_SECONDS = 600
_EXIT_CODE = re.compile(r"exitcode\s*:\s*(-?\d+)")
_APART = re.compile(r"Timed out after .* waiting for clients.*|client socket has timed out after .* connect to .*")
_BY_EXIT_CODE: Mapping[int, type[StageFailure]] = {
    kind.exit_code: kind for kind in (InvalidTask, BadInput, Temporary, NotPermitted)
}


@dataclass(frozen=True)
class Place:
    """This pod among those of the Job, and how many cores it has."""

    node_rank: int
    cores: int

    @classmethod
    def here(cls, settings: ProcessSettings, environ: Mapping[str, str]) -> Place:
        """Raises InvalidTask when the completion index is missing."""
        index = environ.get("JOB_COMPLETION_INDEX", "0" if settings.nodes == 1 else "")
        if not index.isdigit() or int(index) >= settings.nodes:
            raise InvalidTask("InvalidTask", f"JOB_COMPLETION_INDEX is {index!r}, training has {settings.nodes} nodes")
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return cls(node_rank=int(index), cores=cores)


def command(settings: ProcessSettings, place: Place, config: Path) -> list[str]:
    """The command line of torchrun on this node."""
    several = settings.nodes > 1
    where = (
        ["--rdzv-backend=static", f"--master-addr={settings.master_address}",
         f"--master-port={settings.master_port}", f"--node-rank={place.node_rank}",
         f"--rdzv-conf=timeout={RENDEZVOUS_SECONDS}"]
        if several
        else ["--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", "--local-addr=127.0.0.1"]
    )  # fmt: skip
    return [
        sys.executable, "-m", "srlm_stages.training.launch",
        f"--nnodes={settings.nodes}", f"--nproc-per-node={settings.processes_per_node}", *where,
        "--max-restarts=0", "-m", "srlm_stages.training.worker", str(config),
    ]  # fmt: skip


def environment(settings: ProcessSettings, place: Place, environ: Mapping[str, str]) -> dict[str, str]:
    """Environment of torchrun and its workers: no credentials, they need none."""
    hidden = ("AWS_", "SRLM_TASK", *SECRET_VARIABLES)
    env = {name: value for name, value in environ.items() if not name.startswith(hidden)}
    env[PARENT_VARIABLE] = str(os.getpid())
    # The pod's own value counts its cores; two processes with that many threads each spin on one another.
    cores = int(environ.get("OMP_NUM_THREADS") or place.cores)
    env["OMP_NUM_THREADS"] = str(max(1, cores // settings.processes_per_node))
    # glibc gives memory back and maps it anew for every large tensor; keeping it halves a step on CPU.
    for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_MMAP_THRESHOLD_"):
        env.setdefault(name, str(512 * 1024 * 1024) if name != "MALLOC_TOP_PAD_" else str(64 * 1024 * 1024))
    env |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1"}
    env |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "TQDM_DISABLE": "1", "TRL_EXPERIMENTAL_SILENCE": "1"}
    env |= {"PYTHONUNBUFFERED": "1"}
    if (settings.nodes == 1 or settings.master_address == "127.0.0.1") and sys.platform == "linux":
        env.setdefault("GLOO_SOCKET_IFNAME", "lo")
    return env


def run_workers(config: WorkerConfig, folder: Path, environ: Mapping[str, str], on_line: Callable[[str], None]) -> None:
    """Train on this node and wait. on_line: called with every line of the workers' log.

    Raises the failure of the worker that failed first.
    """
    settings = config.process
    place = Place.here(settings, environ)
    path = folder / "training.json"
    path.write_text(config.model_dump_json(by_alias=True))
    Path(config.failures).mkdir(parents=True, exist_ok=True)
    child = subprocess.Popen(
        command(settings, place, path),
        env=environment(settings, place, environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    last: deque[str] = deque(maxlen=KEPT_LINES)
    try:
        assert child.stdout is not None
        for line in child.stdout:
            last.append(line.rstrip("\n"))
            on_line(last[-1])
        code = child.wait()
    finally:
        end(child)
        if child.stdout is not None:
            child.stdout.close()
    if code != 0:
        raise failure_of(Path(config.failures), "\n".join(last), config.stage)


def end(child: subprocess.Popen[str]) -> None:
    """End torchrun; its workers end with it (it passes SIGTERM on, and they die with their parent)."""
    if child.poll() is not None:
        return
    child.terminate()
    try:
        child.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def failure_of(folder: Path, log: str, stage: str) -> StageFailure:
    """The first failure that a worker wrote, or what torchrun says about a worker that was killed."""
    found = [WorkerFailure.model_validate_json(p.read_bytes()) for p in sorted(folder.glob("rank-*.json"))]
    if found:
        first = min(found, key=lambda f: f.time)
        return _BY_EXIT_CODE.get(first.exit_code, StageFailure)(first.reason, first.message)
    apart = _APART.search(log)
    if apart:
        return Temporary(
            "Temporary",
            f"the nodes of this training did not meet within {RENDEZVOUS_SECONDS} s: all its pods must run at the "
            f"same time (a queue can see to that: scheduling.queueName) and reach each other: {apart[0]}",
        )
    codes = [int(code) for code in _EXIT_CODE.findall(log)]
    if -signal.SIGKILL in codes:
        return StageFailure(
            "OutOfMemory",
            f"a training process was killed (SIGKILL), most likely for memory: raise "
            f"stages.{stage}.resources.limits.memory, set training.microBatchSize to 1, or lower maxLength",
        )
    how = f"exit code {codes[-1]}" if codes else "without a report"
    return StageFailure("Crashed", f"a training process ended with {how}; the end of its log: {log[-1200:]}")
