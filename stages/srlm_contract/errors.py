"""Everything the contract package raises. Every message says what is wrong, where, and what to do.

    ContractError
    ├── InvalidTask             64  the task cannot be carried out as it stands
    ├── InvalidArtifact         64  a stage tried to commit what an artifact must not be
    ├── ArtifactDamaged         65  a committed artifact is missing, changed or damaged
    └── StoreError
        ├── NotFound            65  an object does not exist
        ├── PreconditionFailed  75  somebody else wrote the object first
        ├── Unsupported         75  the store lacks an operation or a header
        ├── Temporary           75  the store does not answer, or not well, for a while
        ├── NotPermitted        77  credentials or rights
        └── BucketNotFound      77  the bucket does not exist, or is another one

The number is the exit code of a stage that ends with the error (sysexits.h).
"""

from __future__ import annotations

from .tasks import EXIT_BAD_INPUT, EXIT_INVALID_TASK, EXIT_NOT_PERMITTED, EXIT_TEMPORARY, ArtifactRef


class ContractError(Exception):
    """Root of the tree."""

    reason = "InvalidTask"
    """CamelCase constant of srlm_contract.reasons."""
    exit_code = EXIT_INVALID_TASK


class InvalidTask(ContractError):
    """The task cannot be carried out as it stands."""


class InvalidArtifact(ContractError):
    """A stage tried to commit what an artifact must not be: a pickle in a model, a path that escapes."""


class ArtifactDamaged(ContractError):
    """A committed artifact is missing, changed or damaged; `artifact` says which one must be made again."""

    reason = "InputDamaged"
    exit_code = EXIT_BAD_INPUT

    def __init__(self, message: str, artifact: ArtifactRef | None = None) -> None:
        super().__init__(message)
        self.artifact = artifact


class StoreError(ContractError):
    """The object store refused or failed."""

    reason = "StorageUnavailable"
    exit_code = EXIT_TEMPORARY


class NotFound(StoreError):
    """An object that should be there does not exist."""

    reason = "InputDamaged"
    exit_code = EXIT_BAD_INPUT


class PreconditionFailed(StoreError):
    """A conditional write lost: the object exists already, or changed since it was read."""


class Unsupported(StoreError):
    """The store does not know the operation or header; callers do without."""


class Temporary(StoreError):
    """Network or store trouble that is worth trying again later."""


class NotPermitted(StoreError):
    """The store refuses the credentials or the right."""

    reason = "StorageNotPermitted"
    exit_code = EXIT_NOT_PERMITTED


class BucketNotFound(StoreError):
    """The bucket does not exist at this endpoint and region."""

    reason = "StorageNotFound"
    exit_code = EXIT_NOT_PERMITTED
