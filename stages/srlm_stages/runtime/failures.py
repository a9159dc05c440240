"""What a failure means: how it is printed, its exit code, and what is said of it in the termination message."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Mapping

from srlm_contract.errors import StageFailure, Terminated
from srlm_contract.stages import STAGES
from srlm_contract.tasks import EXIT_INVALID_TASK, StageError

from .redaction import redacted

EXIT_CRASHED = 1
EXIT_TERMINATED = 143


def failure(stage: str, error: BaseException, environ: Mapping[str, str]) -> tuple[int, StageError]:
    """(exit code, what to say) of a stage that ended with `error`; prints it."""
    code, reason, message = _meaning(stage, error)
    if not isinstance(error, StageFailure | Terminated):
        print(redacted("".join(traceback.format_exception(error)), environ), file=sys.stderr, flush=True)  # noqa: T201
    message = redacted(message, environ)
    print(f"stage {stage or '?'} failed ({reason}, exit {code}): {message}", file=sys.stderr, flush=True)  # noqa: T201
    return code, StageError(reason=reason, message=message[:3000], artifact=getattr(error, "artifact", None))


def _meaning(stage: str, error: BaseException) -> tuple[int, str, str]:
    """(exit code, reason, message)."""
    if isinstance(error, StageFailure):
        return error.exit_code, error.reason, str(error)
    if isinstance(error, Terminated):
        return EXIT_TERMINATED, "Disrupted", "the pod was asked to end (SIGTERM)"
    if isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith("srlm_"):
        return EXIT_INVALID_TASK, "InvalidTask", _misses(stage, error)
    reason = "DiskFull" if isinstance(error, OSError) and error.errno == 28 else "Crashed"
    return EXIT_CRASHED, reason, f"{type(error).__name__}: {error}"


def _misses(stage: str, missing: ModuleNotFoundError) -> str:
    extra = next(row.image for name, row in STAGES.items() if name == stage)
    return (
        f"this image has no {missing.name}, which the stage {stage} needs: leave stages.{stage}.image out, or name an"
        f" image with self-rewarding-operator[{extra}]"
    )
