"""All exceptions of the operator.

OperatorError
├── ConfigurationError      settings or kubeconfig cannot be used
├── InvalidPodTemplate      a podTemplate patch breaks a guarantee of stage pods
├── NotReady                what was observed is older than what the API holds; try again
└── ApiError                the API server answered with an error
    ├── NotFound            404
    ├── Conflict            409 Conflict: the object changed meanwhile
    ├── AlreadyExists       409 AlreadyExists
    ├── Refused             403, 400, 422: the server or an admission webhook refuses the object
    │   ├── QuotaExceeded
    │   └── NamespaceTerminating
    └── Unavailable         429, 5xx, no connection: try again
"""

from __future__ import annotations


class OperatorError(Exception):
    """Root of the tree."""


class ConfigurationError(OperatorError):
    """Settings or kubeconfig cannot be used."""


class InvalidPodTemplate(OperatorError):
    """A podTemplate patch breaks a guarantee of stage pods."""


class NotReady(OperatorError):
    """What was observed is older than what the API holds."""


class ApiError(OperatorError):
    """The API server answered with an error."""

    def __init__(self, message: str, status: int = 0, reason: str = "") -> None:
        super().__init__(message)
        self.status, self.reason = status, reason


class NotFound(ApiError):
    """The object does not exist."""


class Conflict(ApiError):
    """The object changed since it was read."""


class AlreadyExists(ApiError):
    """An object of that name exists."""


class Refused(ApiError):
    """The server or an admission webhook refuses the object."""


class QuotaExceeded(Refused):
    """The namespace's quota is used up."""


class NamespaceTerminating(Refused):
    """The namespace is being deleted: nothing can be created in it."""


class Unavailable(ApiError):
    """The server does not answer, or asks to try later."""
