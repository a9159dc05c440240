"""Images and default resources of stage pods. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from srlm_contract.spec import RunSpec
from srlm_contract.tasks import JudgeParams, Params, PromptsParams, StageName

from .settings import Settings

TRAINERS: frozenset[str] = frozenset({"sft", "train"})
INFERENCE: frozenset[str] = frozenset({"judge", "prompts", "generate", "choose", "evaluate"})


def image(stage: StageName, spec: RunSpec, settings: Settings) -> str:
    """The image the spec names for the stage, else the operator's default for its kind."""
    named: str = getattr(spec.stages, stage).image
    if named:
        return named
    if stage in TRAINERS:
        return settings.image_train
    return settings.image_inference if stage in INFERENCE else settings.image_cpu


def resources(stage: StageName, params: Params, spec: RunSpec, settings: Settings) -> Mapping[str, Any]:
    """`stages.<stage>.resources` as it stands, else what the stage needs by default.

    Defaults: trainers one GPU and one core a process, inference one GPU a tensor-parallel rank, the rest half a
    core. No default limit on memory: it depends on the model.
    """
    own = getattr(spec.stages, stage).resources
    if own is not None:
        wire: Mapping[str, Any] = own.wire(defaults=False)
        return wire
    gpus = default_gpus(stage, params, spec, settings)
    if stage in TRAINERS:
        requests: dict[str, Any] = {"cpu": str(spec.training.processes_per_node)}
    elif stage in INFERENCE:
        requests = {"cpu": "1"}
    else:
        requests = {"cpu": "500m", "memory": "1Gi"}
    if not gpus:
        return {"requests": requests}
    return {"requests": requests, "limits": {settings.gpu_resource: str(gpus)}}


def default_gpus(stage: StageName, params: Params, spec: RunSpec, settings: Settings) -> int:
    """GPUs a pod of this stage asks for when the spec does not say."""
    if settings.local or settings.gpu_resource == "none":
        return 0
    if stage in TRAINERS:
        return spec.training.processes_per_node
    if stage not in INFERENCE:
        return 0
    if isinstance(params, JudgeParams) and params.external.url:
        return 0
    if isinstance(params, PromptsParams) and params.source == "Pool":
        return 0
    args = getattr(spec.stages, stage).engine.args
    ranks = args.get("tensor_parallel_size", 1)
    return ranks if isinstance(ranks, int) and ranks > 0 else 1


def gpus_of(wanted: Mapping[str, Any]) -> float:
    """GPUs in a resources object."""
    limits = wanted.get("limits") or {}
    return sum(float(v) for k, v in limits.items() if k.endswith("/gpu") or "/mig-" in k)
