"""Resource quantities, and how many of the machine's cores a pod takes."""

from __future__ import annotations

import math
import os
from decimal import Decimal, InvalidOperation
from typing import Any

SUFFIXES = {
    "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "": Decimal(1), "k": Decimal(10**3),
    "M": Decimal(10**6), "G": Decimal(10**9), "T": Decimal(10**12), "P": Decimal(10**15), "E": Decimal(10**18),
    "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30), "Ti": Decimal(2**40), "Pi": Decimal(2**50),
    "Ei": Decimal(2**60),
}  # fmt: skip


def parse_quantity(text: str | int | float | Decimal) -> Decimal:
    """The number a quantity such as 500m, 2, 1e3 or 16Gi stands for. Raises ValueError."""
    text = str(text).strip()
    for suffix in ("", *sorted((s for s in SUFFIXES if s), key=len, reverse=True)):
        if text.endswith(suffix):
            try:
                return Decimal(text.removesuffix(suffix) if suffix else text) * SUFFIXES[suffix]
            except InvalidOperation:
                continue
    raise ValueError(f"{text!r} is not a quantity")


def machine_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_cores(pod: dict[str, Any], cores: int | None = None) -> int:
    """Whole cores a pod takes: its CPU requests (limits where there are none) rounded up, 1 to all of them."""
    cores = cores or machine_cores()
    wanted = Decimal(0)
    for container in pod["spec"].get("containers") or []:
        resources = container.get("resources") or {}
        value = (resources.get("requests") or {}).get("cpu", (resources.get("limits") or {}).get("cpu", 0))
        wanted += parse_quantity(value)
    return min(max(math.ceil(wanted), 1), cores)
