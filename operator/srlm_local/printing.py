"""Tables: what `kubectl get` shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from srlm_local.cluster import Cluster
    from srlm_local.resources import ResourceType

Object = dict[str, Any]


def table(cluster: Cluster, rt: ResourceType, items: list[Object], version: str, include: str) -> Object:
    """A Table without its metadata."""
    columns = [{"name": "Name", "type": "string", "format": "name", "description": "", "priority": 0}]
    rows = [{"cells": [item["metadata"]["name"]], "object": item} for item in items]
    return {"kind": "Table", "apiVersion": f"meta.k8s.io/{version}", "columnDefinitions": columns, "rows": rows}
