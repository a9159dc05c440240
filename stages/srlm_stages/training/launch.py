"""torchrun that ends with the process that started it: `python -m srlm_stages.training.launch ARGUMENTS`."""

from __future__ import annotations

import os

from .processes import die_with_parent

PARENT_VARIABLE = "SRLM_TRAINING_PARENT"


def main() -> None:
    die_with_parent(int(os.environ[PARENT_VARIABLE]))
    # Workers started below compare with this process.
    os.environ[PARENT_VARIABLE] = str(os.getpid())
    from torch.distributed.run import main as torchrun

    torchrun()


if __name__ == "__main__":
    main()
