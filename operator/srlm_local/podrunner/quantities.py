"""What a pod takes of the machine: whole cores, and at most so much memory."""

from __future__ import annotations

import math
import os
from decimal import Decimal
from typing import Any

from srlm_local.store.values import parse_quantity


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
