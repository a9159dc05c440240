"""Who asks, and how: the part of a write that is not the object."""

from __future__ import annotations

from dataclasses import dataclass, field

MASTERS = "system:masters"


@dataclass(frozen=True)
class User:
    """An authenticated identity."""

    name: str
    groups: tuple[str, ...] = ()

    @property
    def all_powerful(self) -> bool:
        return MASTERS in self.groups


ADMIN = User("kubernetes-admin", (MASTERS, "system:authenticated"))


@dataclass
class Request:
    """Options of a write.

    dry_run: do everything but the write; validation: what to do about unknown fields, Strict (refuse), Warn or
    Ignore; warnings: collected here and sent as Warning headers.
    """

    dry_run: bool = False
    validation: str = "Ignore"
    warnings: list[str] = field(default_factory=list)

    def unknown_fields(self, paths: list[str]) -> str:
        """What to refuse the request with because of fields that the kind does not have; empty to go on."""
        problems = [f'unknown field "{path}"' for path in paths]
        if self.validation == "Warn":
            self.warnings += problems
        return f"strict decoding error: {', '.join(problems)}" if problems and self.validation == "Strict" else ""
