"""`spec.stages`: resources, images and engines of the stages' pods."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from srlm_contract.base import Contract
from srlm_contract.gpus import all_limits
from srlm_contract.spec.marks import PreflightIgnores
from srlm_contract.spec.references import FREE_FORM, rules


class ResourceRequirements(Contract):
    """Kubernetes resource requests and limits."""

    QUANTITIES: ClassVar[dict[str, Any]] = {
        "type": "object",
        "maxProperties": 16,
        "additionalProperties": {
            "x-kubernetes-int-or-string": True,
            "maxLength": 32,
            "pattern": r"^[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+|[mkMGTPE]|[KMGTPE]i)?$",
        },
    }

    requests: Annotated[dict[str, int | str], Field(json_schema_extra=QUANTITIES)] = {}
    """Requested quantities, such as `cpu: 4`."""
    limits: Annotated[dict[str, int | str], Field(json_schema_extra=QUANTITIES)] = {}
    """Limits, such as `nvidia.com/gpu: 1`."""


DeviceDtype = Literal["BFloat16", "Float16", "Float32"]
Dtype = Literal["Auto", DeviceDtype]


def _engine_arguments(arguments: dict[str, Any]) -> dict[str, Any]:
    """Raises ValueError when what the operator reads of them is unusable."""
    ranks = arguments.get("tensor_parallel_size", 1)
    if type(ranks) is not int or not 1 <= ranks <= MAX_RANKS:
        raise ValueError(f"tensor_parallel_size must be a whole number from 1 to {MAX_RANKS}")
    return arguments


MAX_RANKS = 64


_RANKS: dict[str, Any] = {
    "description": "GPUs that share one copy of the model; 1 when left out.",
    "type": "integer", "minimum": 1, "maximum": MAX_RANKS,
}  # fmt: skip


EngineArguments = Annotated[
    dict[str, Any],
    AfterValidator(_engine_arguments),
    Field(json_schema_extra=FREE_FORM | {"properties": {"tensor_parallel_size": _RANKS}}),
]


class EngineSettings(Contract):
    """An inference engine as tasks and keys spell it.

    What is left out of a key has to mean the same for ever: BFloat16, which was the default before `Auto`. Runs that
    were written down with it keep their keys.
    """

    name: Literal["vllm", "transformers"] = "vllm"
    """`vllm`, or `transformers`: slower, for machines where vLLM cannot be installed."""
    dtype: Dtype = "BFloat16"
    """Type the weights are served in."""
    args: EngineArguments = {}
    """Further engine arguments, such as `tensor_parallel_size`; trust_remote_code is false unless set
    here."""


class EngineSpec(EngineSettings):
    """The inference engine of a stage."""

    dtype: Dtype = "Auto"
    """Type the weights are served in. `Auto`: bf16 where the device multiplies it natively, else fp16 on GPUs and
    fp32 on CPUs."""

    @property
    def settings(self) -> EngineSettings:
        """The same without the defaults of a spec."""
        return EngineSettings(name=self.name, dtype=self.dtype, args=self.args)


class StagePodSpec(Contract):
    """How the pods of one stage look."""

    image: Annotated[str, Field(max_length=512, pattern=r"^\S*$")] = ""
    """Container image; empty for the operator's default."""
    resources: Annotated[ResourceRequirements | None, PreflightIgnores()] = None
    """Resources; the default asks for the GPUs the stage uses."""
    pod_template: Annotated[dict[str, Any], Field(json_schema_extra=FREE_FORM), PreflightIgnores()] = {}
    """Strategic merge patch for the pod template of this stage."""


class InferencePodSpec(StagePodSpec):
    """How the pods of one inference stage look."""

    model_config = rules(
        (
            ".engine.args.tensor_parallel_size",
            "!has(self.engine.args) || !has(self.engine.args.tensor_parallel_size) || !has(self.resources)"
            f" || {all_limits('self.resources.limits', 'self.engine.args.tensor_parallel_size <= {n}')}",
            "engine.args.tensor_parallel_size is more than the GPUs of resources.limits: lower it, raise the limit, or"
            " leave resources out (then each pod asks for as many GPUs)",
        ),
    )

    engine: EngineSpec = EngineSpec()
    """The inference engine."""


class StagesSpec(Contract):
    """Settings by stage."""

    preflight: StagePodSpec = StagePodSpec()
    """Checks before anything expensive starts."""
    data: StagePodSpec = StagePodSpec()
    """Seed data preparation."""
    sft: StagePodSpec = StagePodSpec()
    """Supervised fine-tuning."""
    judge: InferencePodSpec = InferencePodSpec()
    """LLM-as-a-Judge."""
    select: StagePodSpec = StagePodSpec()
    """Selection of EFT verdicts."""
    prompts: InferencePodSpec = InferencePodSpec()
    """Prompt generation."""
    generate: InferencePodSpec = InferencePodSpec()
    """Candidate generation."""
    pairs: StagePodSpec = StagePodSpec()
    """Preference pairs."""
    train: StagePodSpec = StagePodSpec()
    """Preference training."""
    choose: InferencePodSpec = InferencePodSpec()
    """Choice of a checkpoint."""
    evaluate: InferencePodSpec = InferencePodSpec()
    """Evaluation."""
    report: StagePodSpec = StagePodSpec()
    """The report."""
    cleanup: StagePodSpec = StagePodSpec()
    """Clean-up after deletion."""
