"""The controllers that belong to the API server itself: garbage collection, namespaces, quotas."""

from __future__ import annotations

import asyncio

from srlm_local.cluster import Cluster
from srlm_local.crd_controller import CrdController
from srlm_local.event_expiry import EventExpiry
from srlm_local.gc import GarbageCollector
from srlm_local.namespaces import NamespaceController
from srlm_local.pod_gc import PodGarbageCollector
from srlm_local.quota import QuotaController


def start(cluster: Cluster, authority: str = "") -> list[asyncio.Task[None]]:
    """Starts them all on the running loop; cancel the tasks to stop them."""
    running = [
        GarbageCollector(cluster).run(),
        NamespaceController(cluster, authority).run(),
        CrdController(cluster).run(),
        PodGarbageCollector(cluster).run(),
        QuotaController(cluster).run(),
        EventExpiry(cluster).run(),
    ]
    return [asyncio.create_task(task) for task in running]
