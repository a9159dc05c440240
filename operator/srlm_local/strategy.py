"""What differs between resources: a set of hooks that the cluster calls on every write.

Each file about a resource registers an instance for it in `strategies.BY_RESOURCE`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from srlm_contract.schema import FieldError
from srlm_local.builtin_decode import decode
from srlm_local.request import Request
from srlm_local.strictness import unknown_fields

if TYPE_CHECKING:
    from srlm_local.cluster import Cluster
    from srlm_local.resources import ResourceType

Object = dict[str, Any]


class Strategy:
    """The defaults suit plain storage: everything goes, nothing is added.

    `old` is None on creation. Objects passed in may be changed in place, but `old` may not.
    """

    orphans_by_default = False
    returns_deleted = False
    max_name = 253
    """Longest name; `dns_label` and `path_segment` choose the alphabet."""
    name_rule = "subdomain"

    def decode(
        self, cluster: Cluster, rt: ResourceType, obj: Object, request: Request, patched: Object | None = None
    ) -> None:
        """Checks types and unknown fields before anything else. Raises ApiError 400, for patches 422."""
        unknown_fields(rt, decode(rt, obj, patched), request, patched, obj)

    def default(self, obj: Object) -> None:
        """Fills in defaults."""

    def prepare(self, cluster: Cluster, obj: Object, old: Object | None, request: Request) -> None:
        """Sets what the server decides, before validation."""

    def admit(self, cluster: Cluster, obj: Object, old: Object | None, request: Request) -> None:
        """Refuses with an ApiError, or changes the object, as admission plugins do."""

    def complete(self, cluster: Cluster, obj: Object, old: Object | None, request: Request) -> None:
        """Last additions and warnings, once the object is known to be valid."""

    def problems(self, obj: Object, old: Object | None, before: list[FieldError]) -> list[FieldError]:
        """As `validate`, for kinds that need to know what is wrong with the metadata (`before`)."""
        return self.validate(obj, old)

    def validate(self, obj: Object, old: Object | None) -> list[FieldError]:
        return []

    def validate_status(self, obj: Object, old: Object) -> list[FieldError]:
        return []

    def grace_period(self, obj: Object, asked: int | None) -> int | None:
        """Seconds to wait before the object goes; None for kinds without graceful deletion."""
        return None

    def begin_deletion(self, cluster: Cluster, obj: Object) -> bool:
        """True if the object stays until a controller lets it go; then it is marked here, in place."""
        return False

    def after(self, cluster: Cluster, obj: Object | None, old: Object | None) -> None:
        """Called after a write, with obj None after a removal."""
