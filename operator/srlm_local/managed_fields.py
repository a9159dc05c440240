"""managedFields."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from srlm_local.patching import merge_patch
from srlm_local.request import Request

if TYPE_CHECKING:
    from srlm_local.cluster import Cluster
    from srlm_local.resources import ResourceType

Object = dict[str, Any]


def track(cluster: Cluster, rt: ResourceType, new: Object, old: Object | None, request: Request, subresource: str = "") -> None:
    """Notes in new.metadata.managedFields who changed what."""


def apply_configuration(
    cluster: Cluster, rt: ResourceType, old: Object | None, config: Object, subresource: str, request: Request
) -> Object:
    """The object that results from applying `config` to `old`."""
    return merge_patch(old or {}, config)
