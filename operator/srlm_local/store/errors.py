"""Errors as the Kubernetes API answers them: an exception that is a `Status` object, and problems of single fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from srlm_local.store.values import compact
from srlm_operator.crd.schema import FieldError

MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"


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

    def body(self) -> dict[str, Any]:
        """The Status object that goes over the wire."""
        status = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "details": self.details,
            "code": self.code,
        }
        return {key: value for key, value in status.items() if value not in ("", None)}


def qualified(name: str, group: str) -> str:
    """`jobs.batch`, or `pods` for the core group; also used for kinds."""
    return f"{name}.{group}" if group else name


def details(name: str, group: str, kind: str, **more: Any) -> dict[str, Any]:
    """A Status' details; empty values are left out, as the real server does."""
    found = {"name": name, "group": group, "kind": kind, **more}
    return {key: value for key, value in found.items() if value not in ("", None)}


def not_found(plural: str, group: str, name: str) -> ApiError:
    return ApiError(404, "NotFound", f'{qualified(plural, group)} "{name}" not found', details(name, group, plural))


def already_exists(plural: str, group: str, name: str, prefix: str = "") -> ApiError:
    message = f'{prefix}{qualified(plural, group)} "{name}" already exists'
    return ApiError(409, "AlreadyExists", message, details(name, group, plural))


def conflict(plural: str, group: str, name: str, why: str = MODIFIED) -> ApiError:
    message = f'Operation cannot be fulfilled on {qualified(plural, group)} "{name}": {why}'
    return ApiError(409, "Conflict", message, details(name, group, plural))


def bad_request(message: str) -> ApiError:
    return ApiError(400, "BadRequest", message)


def internal(message: str) -> ApiError:
    return ApiError(500, "InternalError", f"Internal error occurred: {message}", {"causes": [{"message": message}]})


def forbidden(plural: str, group: str, name: str, why: str, causes: list[dict[str, str]] | None = None) -> ApiError:
    target = f'{qualified(plural, group)} "{name}"' if name else qualified(plural, group)
    return ApiError(403, "Forbidden", f"{target} is forbidden: {why}", details(name, group, plural, causes=causes))


def expired(message: str) -> ApiError:
    return ApiError(410, "Expired", message)


def method_not_allowed() -> ApiError:
    return ApiError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource", {})


def unsupported_media_type(what: str) -> ApiError:
    return ApiError(415, "UnsupportedMediaType", what)


def invalid(kind: str, group: str, name: str, errors: Sequence[FieldError]) -> ApiError:
    """422 with one cause per error. The messages carry their prefix ("Invalid value: ...") already."""
    ordered = sorted(errors, key=lambda e: (e.path == "<nil>", e.path, e.message))
    causes = [{"reason": e.reason, "message": e.message, "field": e.path} for e in ordered]
    lines = list(dict.fromkeys(f"{e.path}: {e.message}" for e in ordered))
    told = lines[0] if len(lines) == 1 else f"[{', '.join(lines)}]"
    return ApiError(
        422,
        "Invalid",
        f'{qualified(kind, group)} "{name}" is invalid: {told}',
        details(name, group, kind, causes=causes),
    )


# ---- problems of single fields, in the API's words


def required(path: str, why: str = "") -> FieldError:
    return FieldError(path, f"Required value: {why}" if why else "Required value", "FieldValueRequired")


def wrong(path: str, value: Any, why: str) -> FieldError:
    return FieldError(path, f"Invalid value: {compact(value)}: {why}", "FieldValueInvalid")


def unsupported(path: str, value: Any, supported: Sequence[str]) -> FieldError:
    listed = ", ".join(f'"{word}"' for word in supported)
    return FieldError(
        path, f"Unsupported value: {compact(value)}: supported values: {listed}", "FieldValueNotSupported"
    )


def barred(path: str, why: str) -> FieldError:
    return FieldError(path, f"Forbidden: {why}", "FieldValueForbidden")


def duplicate(path: str, value: Any) -> FieldError:
    return FieldError(path, f"Duplicate value: {compact(value)}", "FieldValueDuplicate")


def too_long(path: str, limit: int) -> FieldError:
    return FieldError(path, f"Too long: may not be more than {limit} bytes", "FieldValueTooLong")
