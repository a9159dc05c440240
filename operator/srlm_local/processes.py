"""Finds and ends the processes of a cluster that nobody holds together any more."""

from __future__ import annotations

import psutil  # type: ignore[import-untyped,unused-ignore]

OWNER_VARIABLE = "SRLM_LOCAL_OWNER"
"""Environment variable that marks every process of a pod, whatever becomes of its parents."""


def kill_marked(prefix: str) -> int:
    """SIGKILLs every process whose mark begins with `prefix` and waits for their end; returns how many."""
    killed = []
    for process in psutil.process_iter():
        try:
            marked = process.environ().get(OWNER_VARIABLE, "").startswith(prefix)
            if marked and process.status() != psutil.STATUS_ZOMBIE:
                process.kill()
                killed.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
            continue  # ended meanwhile, or somebody else's
    psutil.wait_procs(killed, timeout=10)
    return len(killed)
