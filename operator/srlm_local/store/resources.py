"""What kinds of objects there are: each with its rules, which the cluster asks at every write.

A resource is named as kubectl names it: plural, then the group if there is one (`pods`, `jobs.batch`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from srlm_local.store import names
from srlm_local.store.request import Request
from srlm_local.store.storage import Storage
from srlm_operator.crd.schema import FieldError

Object = dict[str, Any]
ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


class View(Protocol):
    """What the rules of a kind may ask of the cluster."""

    storage: Storage
    registry: Registry

    def find(self, resource: str, name: str, namespace: str = "") -> Object | None: ...

    def timestamp(self) -> str: ...


class Rules:
    """What differs between kinds. These suit plain storage: everything goes, nothing is added.

    `old` is None on creation. Objects passed in may be changed in place, but `old` may not.
    """

    orphans_by_default = False
    returns_deleted = False
    """Whether DELETE answers with the object instead of a Status."""
    keeps_status = False
    """Whether `prepare` decides about the status of a new object; otherwise it begins without one."""
    valid_name: Callable[[str], list[str]] = staticmethod(names.subdomain)

    def decode(self, obj: Object, request: Request) -> str:
        """Drops unknown fields; what to refuse the request with, empty to go on."""
        return ""

    def default(self, obj: Object) -> None:
        """Fills in defaults."""

    def prepare(self, view: View, obj: Object, old: Object | None) -> None:
        """Sets what the server decides, before validation."""

    def admit(self, view: View, obj: Object) -> None:
        """Refuses a new object with an ApiError, or changes it, as admission plugins do."""

    def complete(self, obj: Object) -> None:
        """Last additions to a new object, once it is known to be valid."""

    def validate(self, obj: Object, old: Object | None, before: list[FieldError]) -> list[FieldError]:
        """What is wrong with it, beside what is wrong with its metadata (`before`)."""
        return []

    def validate_status(self, obj: Object, old: Object) -> list[FieldError]:
        return []

    def grace_period(self, obj: Object, asked: int | None) -> int | None:
        """Seconds to wait before the object goes; None for kinds without graceful deletion."""
        return None

    def begin_deletion(self, view: View, obj: Object) -> bool:
        """True if the object stays until a controller lets it go; then it is marked here, in place."""
        return False

    def after(self, view: View, obj: Object | None, old: Object | None) -> None:
        """Called after a write, with obj None after a removal."""


@dataclass(frozen=True)
class ResourceType:
    """One served kind in one version.

    generation: whether metadata.generation is kept; unconditional: whether an update may come without a
    resourceVersion; create_on_update: whether PUT to a name that does not exist creates.
    """

    group: str
    version: str
    kind: str
    plural: str
    singular: str
    rules: Rules = field(default_factory=Rules, compare=False)
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ALL_VERBS
    status: bool = False
    generation: bool = False
    unconditional: bool = True
    create_on_update: bool = False
    crd: Object | None = field(default=None, compare=False, repr=False)
    """The version in the CustomResourceDefinition, for custom resources."""
    list_kind: str = ""

    @property
    def name(self) -> str:
        """`jobs.batch`; the name in storage and in RBAC-like messages."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def custom(self) -> bool:
        return self.crd is not None


class Registry:
    """Which types are served right now."""

    def __init__(self, types: Iterable[ResourceType]) -> None:
        self._types = {(t.group, t.version, t.plural): t for t in types}

    def find(self, group: str, version: str, plural: str) -> ResourceType | None:
        return self._types.get((group, version, plural))

    def all(self) -> list[ResourceType]:
        return list(self._types.values())

    def stored(self) -> list[ResourceType]:
        """One type for each resource in storage."""
        return list({rt.name: rt for rt in reversed(self.all())}.values())[::-1]

    def named(self, name: str) -> ResourceType:
        """The type of a resource such as `jobs.batch`. Raises KeyError if it is not served."""
        for found in self._types.values():
            if found.name == name:
                return found
        raise KeyError(f"no resource {name!r} is served here")

    def serve(self, resource_type: ResourceType) -> None:
        self._types[(resource_type.group, resource_type.version, resource_type.plural)] = resource_type

    def withdraw(self, group: str, plural: str) -> None:
        for key in [k for k in self._types if k[0] == group and k[2] == plural]:
            del self._types[key]
