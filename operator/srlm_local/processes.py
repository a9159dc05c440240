"""Process trees: ending them whole, whatever sessions their members opened.

On Linux a supervisor makes itself a subreaper, so orphans become its children and stay findable, and asks
to be signalled when its parent dies. Elsewhere descendants are tracked with psutil.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterable

import psutil

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux" and ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}) failed")


def end_with_parent(parent: int, number: int = signal.SIGTERM) -> None:
    """Asks the kernel (Linux only) to send `number` to this process when its parent, `parent`, ends.

    Start such processes from the main thread: the signal comes when the starting *thread* ends.
    """
    _prctl(PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)  # the parent was gone before we asked


def become_subreaper() -> None:
    """Makes orphaned descendants children of this process (Linux only)."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def identity(pid: int) -> str | None:
    """`pid:start time`, which tells a process from a later one of the same number; None when it is gone."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return f"{pid}:{process.create_time():.2f}"
    except psutil.NoSuchProcess:
        return None


def descendants(pid: int) -> list[psutil.Process]:
    """All living descendants of `pid`, without itself."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def kill_all(processes: Iterable[psutil.Process]) -> None:
    """SIGKILLs processes; those already gone are ignored (psutil compares start times first)."""
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


def end_tree(identity_text: str) -> bool:
    """Kills the process named by `identity` and all its descendants; False when it was gone."""
    pid = int(identity_text.partition(":")[0])
    if identity(pid) != identity_text:
        return False
    root = psutil.Process(pid)
    # Stopped first, so that it cannot start others between listing and killing.
    root.suspend()
    try:
        kill_all(descendants(pid))
    finally:
        kill_all([root])
    return True


OWNER_VARIABLE = "SRLM_LOCAL_OWNER"
"""Environment variable that marks every process of a pod, whatever becomes of its parents."""


def kill_marked(prefix: str) -> int:
    """SIGKILLs every process whose mark begins with `prefix`; returns how many there were."""
    count = 0
    for process in psutil.process_iter():
        try:
            marked = process.environ().get(OWNER_VARIABLE, "").startswith(prefix)
            if marked and process.status() != psutil.STATUS_ZOMBIE:
                process.kill()
                count += 1
        except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
            continue  # ended meanwhile, or somebody else's
    return count
