"""GPUs of a pod and the processes that use one each: rules for the API server, functions for the operator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: torchrun processes of a pod whose GPUs nobody has named.
DEFAULT_PROCESSES = 8
#: What the rules know by name; to look through all limits would cost an API server too much. The operator looks.
NAMES = ("nvidia.com/gpu", "amd.com/gpu")

Rule = tuple[str, str, str]
"""Field at fault, CEL expression, message."""


def count(quantities: Mapping[str, Any], resource: str = "") -> int:
    """GPUs among limits: `nvidia.com/gpu: 4`, slices of one, and what the cluster calls `resource`."""
    return sum(
        int(str(value))
        for name, value in quantities.items()
        if (name.endswith("/gpu") or "/mig-" in name or name == resource) and str(value).isdecimal()
    )


def held(resources: Mapping[str, Any], resource: str = "") -> int:
    """GPUs of a container: those of its limits; without such limits each ResourceClaim counts as one, as what devices
    it holds the container does not say."""
    return count(resources.get("limits") or {}, resource) or len(resources.get("claims") or ())


def processes(asked: int | None, limits: Mapping[str, Any], resource: str = "") -> int:
    """torchrun processes of a trainer's pod: training.processesPerNode, else one for each GPU of its limits."""
    if asked is not None:
        return asked
    return count(limits, resource) or DEFAULT_PROCESSES


def all_limits(limits: str, holds: str) -> str:
    """CEL: whether `holds` is true of the number of GPUs of every limit that counts some; `{n}` stands for it."""
    number = f"int({limits}[k])"
    return f"{_named(limits)}.all(k, {holds.format(n=number)})"


def _named(limits: str) -> str:
    """CEL: the names of GPUs among `limits`, where the number is not 0."""
    names = ", ".join(f"'{name}'" for name in NAMES)
    return f"[{names}].filter(k, k in {limits} && int({limits}[k]) > 0)"


def process_rule(stage: str) -> Rule:
    """No more processes than GPUs, where both are named. Of RunSpec."""
    resources = f"self.stages.{stage}.resources"
    asked = "self.training.processesPerNode"
    enough = all_limits(f"{resources}.limits", f"{asked} <= {{n}}")
    return (
        ".training.processesPerNode",
        f"!has({asked}) || !has(self.stages.{stage}) || !has({resources}) || {enough}",
        f"training.processesPerNode is more than the GPUs of stages.{stage}.resources.limits: leave it out (it follows"
        " the limit), lower it or raise the limit",
    )


def batch_rule(batch: str, stage: str) -> Rule:
    """`batch` (a field of RunSpec) is shared evenly by the processes, however their number comes to be."""
    limits = f"self.stages.{stage}.resources.limits"
    asked = "self.training.processesPerNode"
    micro = "(has(self.training.microBatchSize) ? self.training.microBatchSize : 1)"
    rows = f"(self.training.nodes * {{n}} * {micro})"
    even = f"({rows} < 1 || self.{batch} % {rows} == 0)"
    followed = f"has(self.stages.{stage}) && has(self.stages.{stage}.resources) && {_named(limits)}.size() > 0"
    return (
        f".{batch}",
        f"has({asked}) ? {even.format(n=asked)} : {followed} ? {all_limits(limits, even)}"
        f" : {even.format(n=DEFAULT_PROCESSES)}",
        f"{batch} must be a multiple of training.nodes x processesPerNode x microBatchSize (processesPerNode: by"
        f" default the GPUs of stages.{stage}.resources.limits, else {DEFAULT_PROCESSES}): lower one of these or raise"
        " the batch size",
    )
