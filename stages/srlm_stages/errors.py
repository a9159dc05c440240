"""Why a stage ends without a result. The entry turns these into exit code and termination message.

    StageFailure
    ├── InvalidTask      64  the task cannot be carried out as it stands
    ├── BadInput         65  seed data, model, template or rows cannot be used
    ├── Temporary        75  network or service trouble worth another try
    └── NotPermitted     77  credentials or rights
    Terminated (BaseException)  SIGTERM: clean up and go

Errors of the store (`srlm_contract.errors`) carry reason and exit code themselves.
"""

from __future__ import annotations

from srlm_contract.tasks import EXIT_BAD_INPUT, EXIT_INVALID_TASK, EXIT_NOT_PERMITTED, EXIT_TEMPORARY


class StageFailure(Exception):
    """A stage cannot go on. `reason` is a constant of srlm_contract.reasons."""

    exit_code = 1
    default_reason = "Crashed"

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason or self.default_reason


class InvalidTask(StageFailure):
    """The task cannot be carried out as it stands."""

    exit_code = EXIT_INVALID_TASK
    default_reason = "InvalidTask"


class BadInput(StageFailure):
    """Seed data, model, template or rows cannot be used."""

    exit_code = EXIT_BAD_INPUT
    default_reason = "InvalidSeedData"


class Temporary(StageFailure):
    """Network or service trouble worth another try."""

    exit_code = EXIT_TEMPORARY
    default_reason = "Temporary"


class NotPermitted(StageFailure):
    """Credentials or rights."""

    exit_code = EXIT_NOT_PERMITTED
    default_reason = "NotPermitted"


class Terminated(BaseException):
    """SIGTERM arrived: end child processes, leave no half-written state, exit 143."""
