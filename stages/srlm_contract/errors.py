"""Why a stage cannot go on: everything that stages and the contract raise. Every message says what is wrong, where,
and what to do. The entry of the stages turns these into exit code and termination message.

    StageFailure                     1
    ├── InvalidTask                 64  the task cannot be carried out as it stands
    ├── InvalidArtifact             64  a stage tried to commit what an artifact must not be
    ├── BadInput                    65  seed data, model, template or rows cannot be used
    ├── ArtifactDamaged             65  a committed artifact is missing, changed or damaged
    ├── Temporary                   75  network or service trouble worth another try
    ├── NotPermitted                77  credentials or rights
    └── StoreError                  75
        ├── StoreUnavailable        75  a Temporary: the store does not answer, or not well, for a while
        ├── StoreNotPermitted       77  a NotPermitted: credentials or rights
        ├── NotFound                65  an object does not exist
        ├── PreconditionFailed      75  somebody else wrote the object first
        ├── Unsupported             75  the store lacks an operation or a header
        └── BucketNotFound          77  the bucket does not exist, or is another one
    Terminated (BaseException)          SIGTERM: clean up and go

The number is the exit code of a stage that ends with the error (sysexits.h).
"""

from __future__ import annotations

from .tasks import EXIT_BAD_INPUT, EXIT_INVALID_TASK, EXIT_NOT_PERMITTED, EXIT_TEMPORARY, ArtifactRef


class StageFailure(Exception):
    """Root of the tree. `reason` is a constant of srlm_contract.reasons."""

    reason = "Crashed"
    exit_code = 1

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason or self.reason


class InvalidTask(StageFailure):
    """The task cannot be carried out as it stands."""

    reason = "InvalidTask"
    exit_code = EXIT_INVALID_TASK


class InvalidArtifact(StageFailure):
    """A stage tried to commit what an artifact must not be: a pickle in a model, a path that escapes."""

    reason = "InvalidTask"
    exit_code = EXIT_INVALID_TASK

    def __init__(self, message: str) -> None:
        super().__init__("", message)


class BadInput(StageFailure):
    """Seed data, model, template or rows cannot be used."""

    reason = "InvalidSeedData"
    exit_code = EXIT_BAD_INPUT


class ArtifactDamaged(StageFailure):
    """A committed artifact is missing, changed or damaged; `artifact` says which one must be made again."""

    reason = "InputDamaged"
    exit_code = EXIT_BAD_INPUT

    def __init__(self, message: str, artifact: ArtifactRef | None = None) -> None:
        super().__init__("", message)
        self.artifact = artifact


class Temporary(StageFailure):
    """Network or service trouble worth another try."""

    reason = "Temporary"
    exit_code = EXIT_TEMPORARY


class NotPermitted(StageFailure):
    """Credentials or rights."""

    reason = "NotPermitted"
    exit_code = EXIT_NOT_PERMITTED


class StoreError(StageFailure):
    """The object store refused or failed."""

    reason = "StorageUnavailable"
    exit_code = EXIT_TEMPORARY

    def __init__(self, message: str) -> None:
        super().__init__("", message)


class StoreUnavailable(StoreError, Temporary):
    """Network or store trouble that is worth trying again later."""


class StoreNotPermitted(StoreError, NotPermitted):
    """The store refuses the credentials or the right."""

    reason = "StorageNotPermitted"
    exit_code = EXIT_NOT_PERMITTED


class NotFound(StoreError):
    """An object that should be there does not exist."""

    reason = "InputDamaged"
    exit_code = EXIT_BAD_INPUT


class PreconditionFailed(StoreError):
    """A conditional write lost: the object exists already, or changed since it was read."""


class Unsupported(StoreError):
    """The store does not know the operation or header; callers do without."""


class BucketNotFound(StoreError):
    """The bucket does not exist at this endpoint and region."""

    reason = "StorageNotFound"
    exit_code = EXIT_NOT_PERMITTED


class Terminated(BaseException):
    """SIGTERM arrived: end child processes, leave no half-written state, exit 143."""
