"""Who asks for what, and how: the part of a request that is not the object."""

from __future__ import annotations

from dataclasses import dataclass, field

MASTERS = "system:masters"


@dataclass(frozen=True)
class User:
    """An authenticated identity."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: tuple[tuple[str, str], ...] = ()

    @property
    def all_powerful(self) -> bool:
        return MASTERS in self.groups


ADMIN = User("kubernetes-admin", (MASTERS, "system:authenticated"))
CONTROLLER = User("system:kube-controller-manager", (MASTERS, "system:authenticated"))


@dataclass
class Request:
    """Options of a write.

    manager: name in managedFields; dry_run: do everything but the write; validation: what to do about
    unknown and duplicate fields, Strict (refuse), Warn or Ignore; force: take fields over from other appliers;
    namespace_given: the namespace in an applied configuration, as it was sent;
    body_size: bytes of the request, so that only large ones are measured again;
    warnings: collected here and sent as Warning headers.
    """

    user: User = CONTROLLER
    manager: str = "kube-controller-manager"
    dry_run: bool = False
    validation: str = "Ignore"
    force: bool = False
    apply: bool = False
    body_size: int = 0
    namespace_given: str = ""
    warnings: list[str] = field(default_factory=list)

    def warn(self, message: str) -> None:
        if message not in self.warnings:
            self.warnings.append(message)
