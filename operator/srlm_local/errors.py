"""Errors as the Kubernetes API answers them: an exception that is a `Status` object.

ApiError            any of them; `.code`, `.reason`, `.message`, `.details`, `.body()`
  made by not_found, already_exists, conflict, invalid, bad_request, forbidden, ...
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from srlm_contract.schema import FieldError


class ApiError(Exception):
    """A request that the API server refuses.

    code: the HTTP status; reason: the machine-readable CamelCase word ("NotFound", "Conflict", ...);
    details: the Status' details (name, group, kind, uid, causes, retryAfterSeconds) or None.
    """

    def __init__(self, code: int, reason: str, message: str, details: dict[str, Any] | None = None) -> None:
        super().__init__(f"{code} {reason}: {message}")
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details
        self.warnings: list[str] = []
        self.list_meta: dict[str, Any] = {}

    def body(self) -> dict[str, Any]:
        """The Status object that goes over the wire."""
        status: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": self.list_meta,
            "status": "Failure",
            "message": self.message,
        }
        if self.reason:
            status["reason"] = self.reason
        if self.details is not None:
            status["details"] = self.details
        status["code"] = self.code
        return status


def qualified(name: str, group: str) -> str:
    """`jobs.batch`, or `pods` for the core group; also used for kinds."""
    return f"{name}.{group}" if group else name


def details(name: str, group: str, kind: str, **more: Any) -> dict[str, Any]:
    """A Status' details; empty values are left out, as the real server does."""
    found = {"name": name, "group": group, "kind": kind, **more}
    return {key: value for key, value in found.items() if value not in ("", None)}


def not_found(plural: str, group: str, name: str) -> ApiError:
    return ApiError(404, "NotFound", f'{qualified(plural, group)} "{name}" not found', details(name, group, plural))


def no_such_path() -> ApiError:
    return ApiError(404, "NotFound", "the server could not find the requested resource", {})


def already_exists(plural: str, group: str, name: str, prefix: str = "") -> ApiError:
    message = f'{prefix}{qualified(plural, group)} "{name}" already exists'
    return ApiError(409, "AlreadyExists", message, details(name, group, plural))


MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"


def conflict(plural: str, group: str, name: str, why: str = MODIFIED) -> ApiError:
    message = f'Operation cannot be fulfilled on {qualified(plural, group)} "{name}": {why}'
    return ApiError(409, "Conflict", message, details(name, group, plural))


def bad_request(message: str) -> ApiError:
    return ApiError(400, "BadRequest", message)


def internal(message: str, causes: list[dict[str, str]] | None = None) -> ApiError:
    return ApiError(
        500, "InternalError", f"Internal error occurred: {message}", {"causes": causes or [{"message": message}]}
    )


def forbidden(plural: str, group: str, name: str, why: str, causes: list[dict[str, str]] | None = None) -> ApiError:
    target = f'{qualified(plural, group)} "{name}"' if name else qualified(plural, group)
    return ApiError(403, "Forbidden", f"{target} is forbidden: {why}", details(name, group, plural, causes=causes))


def expired(message: str) -> ApiError:
    return ApiError(410, "Expired", message)


def method_not_allowed() -> ApiError:
    return ApiError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource", {})


def aggregate(messages: Sequence[str]) -> str:
    """How several messages are shown as one: duplicates once, in brackets if there is more than one."""
    unique = list(dict.fromkeys(messages))
    return unique[0] if len(unique) == 1 else f"[{', '.join(unique)}]"


def invalid(kind: str, group: str, name: str, errors: Sequence[FieldError]) -> ApiError:
    """422 with one cause per error. The messages carry their prefix ("Invalid value: ...") already."""
    causes = sorted(
        ({"reason": e.reason, "message": e.message, "field": e.path} for e in errors),
        key=lambda cause: (cause["field"], cause["message"]),
    )
    # The real server lists what is about the whole object last.
    ordered = sorted(errors, key=lambda e: (e.path == "<nil>", e.path, e.message))
    lines = [f"{e.path}: {e.message}" for e in ordered]
    message = f'{qualified(kind, group)} "{name}" is invalid: {aggregate(lines)}'
    return ApiError(422, "Invalid", message, details(name, group, kind, causes=causes))
