"""What pods take of the machine, and which pending ones start now. Pure.

The machine's cores are the slots: a pod takes as many as it requests and waits until they are free, so
several runs share the machine without starting more work than it has cores. First come, first served: a
wide pod at the head is not overtaken for ever by narrow ones. Requests for memory and GPUs never block.
Pods that meet through a headless Service (the nodes of one training) start together, whatever they request:
one that waited for the cores of its peer would wait for ever.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from srlm_local.store.values import parse_quantity

Object = dict[str, Any]


def startable(
    pending: Sequence[Object], taken: Mapping[str, int], cores: int, gangs: Iterable[str] = ()
) -> list[Object]:
    """The pods of `pending` to start now, oldest first.

    taken: slots in use by pod UID; gangs: those (see `gang`) of which pods run already.
    """
    free = cores - sum(taken.values())
    together = set(gangs) - {""}
    full = False
    chosen = []
    for pod in sorted(
        pending, key=lambda p: (p["metadata"]["creationTimestamp"], int(p["metadata"]["resourceVersion"]))
    ):
        if pod["metadata"].get("deletionTimestamp"):
            continue
        slots = cpu_cores(pod, cores)
        if gang(pod) not in together:
            full = full or slots > free
            if full:
                continue
            together |= {gang(pod)} - {""}
        free -= slots
        chosen.append(pod)
    return chosen


def gang(pod: Object) -> str:
    """What pods that run together have in common: their owner and headless Service; empty for others."""
    owners = [owner["uid"] for owner in pod["metadata"].get("ownerReferences") or [] if owner.get("controller")]
    subdomain = pod["spec"].get("subdomain")
    return f"{owners[0]}/{subdomain}" if owners and subdomain else ""


def machine_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_cores(pod: dict[str, Any], cores: int | None = None) -> int:
    """Whole cores a pod takes: its CPU requests (else limits) rounded up, from 1 to all of them."""
    cores = cores or machine_cores()
    wanted = Decimal(0)
    for container in pod["spec"].get("containers") or []:
        resources = container.get("resources") or {}
        value = (resources.get("requests") or {}).get("cpu", (resources.get("limits") or {}).get("cpu", 0))
        wanted += parse_quantity(value) or 0
    return min(max(math.ceil(wanted), 1), cores)


def memory_limit(container: dict[str, Any]) -> int | None:
    """The container's memory limit in bytes."""
    value = ((container.get("resources") or {}).get("limits") or {}).get("memory")
    return None if value is None else int(parse_quantity(value) or 0)
