"""Images and default resources of stage pods. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Any

from srlm_contract import gpus
from srlm_contract.graph import Node
from srlm_contract.sizing import GIB, inference_host_bytes, training_host_bytes
from srlm_contract.spec.run import RunSpec
from srlm_contract.stages import INFERENCE, STAGES, TRAINERS, StageName
from srlm_contract.tasks import JudgeParams, Params, PromptsParams
from srlm_operator.errors import InvalidPodTemplate
from srlm_operator.names import CONTAINER
from srlm_operator.settings import Settings


def image(stage: StageName, spec: RunSpec, settings: Settings) -> str:
    """The image the spec names for the stage, else the operator's default for its kind."""
    named: str = getattr(spec.stages, stage).image
    if named:
        return named
    match STAGES[stage].image:
        case "train":
            return settings.image_train
        case "inference":
            return settings.image_inference
        case "light":
            return settings.image_light


def resources(
    stage: StageName, params: Params, spec: RunSpec, settings: Settings, parameters: int = 0
) -> Mapping[str, Any]:
    """`stages.<stage>.resources` as it stands, else what the stage needs by default.

    Defaults: trainers one GPU and one core a process, and memory for the base model's `parameters` (0 for not known:
    the least that a training takes); inference one GPU and memory for a process a tensor-parallel rank; the rest half a
    core. No limit on memory.
    """
    own = getattr(spec.stages, stage).resources
    if own is not None:
        wire: Mapping[str, Any] = own.wire(defaults=False)
        return wire
    wanted = default_gpus(stage, params, spec, settings)
    if stage in TRAINERS:
        requests = {"cpu": str(processes(stage, spec, settings))}
        memory = _training_memory(stage, parameters, spec, settings)
    elif stage in INFERENCE:
        requests = {"cpu": "1"}
        ranks = _ranks(stage, params, spec)
        memory = inference_host_bytes(ranks) if ranks else GIB
    else:
        requests = {"cpu": "500m"}
        memory = GIB
    if not settings.local or stage not in (*TRAINERS, *INFERENCE):
        requests["memory"] = f"{ceil(memory / GIB)}Gi"
    if not wanted:
        return {"requests": requests}
    return {"requests": requests, "limits": {settings.gpu_resource: str(wanted)}}


def one_pod(first: Node, second: Node, spec: RunSpec, settings: Settings) -> bool:
    """Whether the pods of two inference stages differ in nothing but what they compute and read."""

    def look(node: Node) -> tuple[object, ...]:
        template = getattr(spec.stages, node.stage).pod_template
        return image(node.stage, spec, settings), resources(node.stage, node.params, spec, settings), template

    return look(first) == look(second)


def _training_memory(stage: StageName, parameters: int, spec: RunSpec, settings: Settings) -> float:
    sharded = spec.training.parallelism != "DDP"
    return training_host_bytes(parameters, 1 if sharded else processes(stage, spec, settings))


def default_gpus(stage: StageName, params: Params, spec: RunSpec, settings: Settings) -> int:
    """GPUs a pod of this stage asks for when the spec does not say."""
    if settings.local or settings.gpu_resource == "none":
        return 0
    if stage in TRAINERS:
        return processes(stage, spec, settings)
    return _ranks(stage, params, spec) if stage in INFERENCE else 0


def _ranks(stage: StageName, params: Params, spec: RunSpec) -> int:
    """Tensor-parallel ranks of an inference stage; 0 where it runs no engine of its own."""
    if isinstance(params, JudgeParams) and params.external.url:
        return 0
    if isinstance(params, PromptsParams) and params.source == "Pool":
        return 0
    ranks: int = getattr(spec.stages, stage).engine.args.get("tensor_parallel_size", 1)
    return ranks


def processes(stage: StageName, spec: RunSpec, settings: Settings) -> int:
    """torchrun processes of a trainer's pod."""
    own = getattr(spec.stages, stage).resources
    limits = own.limits if own is not None else {}
    return gpus.processes(spec.training.processes_per_node, limits, settings.gpu_resource)


def check_gpus(stage: StageName, pod: Mapping[str, Any], spec: RunSpec, settings: Settings) -> None:
    """Raises InvalidPodTemplate when a finished pod has GPUs, and fewer than the stage puts to use."""
    limits = next((c.get("resources") or {} for c in pod["containers"] if c["name"] == CONTAINER), {}).get("limits")
    held = gpus.count(limits or {}, settings.gpu_resource)
    if stage in TRAINERS:
        field, used = "training.processesPerNode", processes(stage, spec, settings)
    elif stage in INFERENCE:
        field = f"stages.{stage}.engine.args.tensor_parallel_size"
        used = getattr(spec.stages, stage).engine.args.get("tensor_parallel_size", 1)
    else:
        return
    if 0 < held < used:
        raise InvalidPodTemplate(
            f"{field} is {used}, and stages.{stage}.resources.limits or podTemplate gives each pod {held} GPUs: lower"
            " the one or raise the other"
        )


def asks_for_gpus(pod: Mapping[str, Any], settings: Settings) -> bool:
    """Whether the stage's container has GPUs among its limits, or claims devices."""
    wanted = next(c.get("resources") or {} for c in pod["containers"] if c["name"] == CONTAINER)
    return bool(gpus.held(wanted, settings.gpu_resource))


def gpus_of(wanted: Mapping[str, Any], resource: str = "") -> float:
    """GPUs in a resources object."""
    return gpus.count(wanted.get("limits") or {}, resource)
