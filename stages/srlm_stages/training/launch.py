"""torchrun that ends with the process that started it: `python -m srlm_stages.training.launch ARGUMENTS`."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PARENT_VARIABLE = "SRLM_TRAINING_PARENT"
PR_SET_PDEATHSIG = 1


def main() -> None:
    die_with_parent(int(os.environ[PARENT_VARIABLE]))
    # Workers started below compare with this process.
    os.environ[PARENT_VARIABLE] = str(os.getpid())
    from torch.distributed.run import main as torchrun

    torchrun()


def die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when the process that started it ends, however it ends.

    parent: the expected parent; when it is gone already, end now. Does nothing outside Linux.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
