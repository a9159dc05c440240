"""What an empty cluster begins with, and the controllers that belong to the API server itself."""

from __future__ import annotations

import asyncio

from srlm_local.kinds.definitions import DefinitionController
from srlm_local.kinds.garbage import GarbageCollector, PodGarbageCollector
from srlm_local.kinds.namespaces import ALWAYS_THERE, NamespaceController
from srlm_local.store.cluster import Cluster


def prepare(cluster: Cluster) -> None:
    """Creates the namespaces that are always there; safe to repeat after a restart."""
    for name in ALWAYS_THERE:
        if cluster.find("namespaces", name) is None:
            cluster.create("namespaces", {"metadata": {"name": name}})
    NamespaceController(cluster).sync()


def start(cluster: Cluster) -> list[asyncio.Task[None]]:
    """Starts all controllers on the running loop; cancel the tasks to stop them."""
    running = (
        GarbageCollector(cluster).run(),
        NamespaceController(cluster).run(),
        DefinitionController(cluster).run(),
        PodGarbageCollector(cluster).run(),
    )
    return [asyncio.create_task(task) for task in running]
