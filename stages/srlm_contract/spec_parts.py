"""The sections of `SelfRewardingRun.spec` about data and scheduling, and references to other objects."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, ConfigDict, Field, JsonValue

from .base import (
    Contract,
    Count,
    CountOrZero,
    DataKey,
    Fraction,
    NonNegative,
    ObjectName,
    Positive,
    Uri,
)
from .gpus import all_limits

#: Most iterations a run may ask for; lists in status are bounded by it.
MAX_ITERATIONS = 50


def rules(*triples: tuple[str, str, str]) -> ConfigDict:
    """CEL rules of an object, as (field at fault or "", expression, message that says what to do)."""
    found: list[JsonValue] = []
    for field, rule, message in triples:
        entry: dict[str, JsonValue] = {"rule": rule, "message": message}
        found.append(entry | {"fieldPath": field} if field else entry)
    return ConfigDict(json_schema_extra={"x-kubernetes-validations": found})


#: Where models and data may come from; file:// works on the one-machine cluster only.
SOURCE_PATTERN = "^(hf://[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)?(@.+)?|s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/.+|file:///.+)$"
SOURCE_HELP = (
    "must be hf://owner/name[@revision], s3://bucket/prefix or, on the one-machine cluster, file:///absolute/path"
)


def source_rule(field: str, path: str, when: str = "") -> tuple[str, str, str]:
    """The rule that `field` (its full path is `path`) names a model or data source."""
    return (f".{field}", f"{when}self.{field}.matches('{SOURCE_PATTERN}')", f"{path} {SOURCE_HELP}")


#: Marks a free-form object (the API server keeps its unknown fields).
FREE_FORM: dict[str, Any] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


#: Variables of a chat template by name.
TemplateArguments = Annotated[dict[str, Any], Field(max_length=16, json_schema_extra=FREE_FORM)]


class SecretKeyRef(Contract):
    """One key of a Secret in the run's namespace."""

    name: ObjectName
    """Name of the Secret."""
    key: DataKey = "token"
    """Key inside the Secret."""


class SecretRef(Contract):
    """A Secret in the run's namespace."""

    name: ObjectName
    """Name of the Secret."""


class ConfigMapKeyRef(Contract):
    """One key of a ConfigMap in the run's namespace."""

    name: ObjectName
    """Name of the ConfigMap."""
    key: DataKey
    """Key inside the ConfigMap."""


class TemplateRef(Contract):
    """A template: a built-in one by `name` alone, or a ConfigMap's by `name` and `key`."""

    name: ObjectName
    """Name of the ConfigMap, or of the built-in template when `key` is left out."""
    key: DataKey | None = None
    """Key inside the ConfigMap."""


class BaseModelSpec(Contract):
    """M0: the model everything starts from."""

    model_config = rules(source_rule("uri", "baseModel.uri"))

    uri: Uri
    """`hf://owner/name[@revision]`, `s3://bucket/prefix` or `file:///path` (one-machine cluster only)."""
    token_secret_ref: SecretKeyRef | None = None
    """Secret with the Hugging Face token of a gated model."""
    chat_template_ref: TemplateRef | None = None
    """Chat template for base models that bring none: a ConfigMap key, or the built-in name `chatml`."""
    chat_template_kwargs: TemplateArguments = {}
    """What every rendering of the chat template is given besides the messages, as the model's card names it; such as
    `enable_thinking: false`. At most 16."""


class IftSpec(Contract):
    """Instruction fine-tuning examples: top-ranked first-turn answers."""

    max_examples: Count = 3200
    """At most this many (prompt, answer) examples."""
    max_answer_tokens: Count | None = None
    """Leave out answers longer than this many tokens of the base model's tokenizer."""


class EftSpec(Contract):
    """Evaluation fine-tuning: teaching the model to judge."""

    enabled: bool = True
    """Whether M1 is also trained on verdicts that agree with the human ranking."""
    max_examples: Count = 1630
    """At most this many verdicts are kept for training."""
    held_out_examples: CountOrZero = 541
    """This many human-ranked answers are kept aside to measure the judge."""
    agreement: Literal["AllPairs", "KendallTau"] = "AllPairs"
    """When a verdict sample agrees with the human ranking of its prompt."""
    min_tau: Annotated[float, Field(ge=-1, le=1)] = 0.5
    """Smallest Kendall tau-b with `agreement: KendallTau`."""


SeedFormat = Literal[
    "OasstTrees", "OasstMessages", "Chat", "Preferences", "UltraFeedback", "ShareGpt", "Alpaca", "Auto"
]
"""What the rows of a seed file look like."""


class SeedDataSpec(Contract):
    """Human-written, human-ranked data."""

    model_config = rules(source_rule("uri", "seedData.uri"))

    uri: Uri
    """`hf://owner/dataset[@revision]`, `s3://bucket/key` or `file:///path`; JSON lines, a JSON array or Parquet, plain,
    gzip or zstd."""
    file: Annotated[str, Field(max_length=512)] | None = None
    """File inside a data set repository; omit to pick the ready-trees file, or the only file that fits the format."""
    format: SeedFormat = "OasstTrees"
    """What rows look like: Open Assistant trees or flat messages, Chat (messages, or a prompt with its answers, best
    first), Preferences (TRL's prompt, chosen, rejected), UltraFeedback, ShareGpt, Alpaca; Auto tells it from the first
    row."""
    language: Annotated[str, Field(min_length=2, max_length=16)] = "en"
    """Language tag of the prompts to keep, such as `en` or `pt-BR`; `pt` takes `pt-BR` too, and the other way round."""
    validation_prompts: CountOrZero = 253
    """Prompts kept aside for head-to-head evaluation and the choice of checkpoints."""
    ift: IftSpec = IftSpec()
    """Instruction fine-tuning examples."""
    eft: EftSpec = EftSpec()
    """Evaluation fine-tuning examples."""


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


Dtype = Literal["Auto", "BFloat16", "Float16", "Float32"]


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
    resources: ResourceRequirements | None = None
    """Resources; the default asks for the GPUs the stage uses."""
    pod_template: Annotated[dict[str, Any], Field(json_schema_extra=FREE_FORM)] = {}
    """Strategic merge patch for the pod template of this stage."""


class InferencePodSpec(StagePodSpec):
    """How the pods of one inference stage look."""

    model_config = rules(
        (
            ".engine.args.tensor_parallel_size",
            "!has(self.engine.args.tensor_parallel_size) || !has(self.resources)"
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


class GatesSpec(Contract):
    """What must hold after an iteration for the run to go on."""

    min_pairs: CountOrZero = 500
    """Smallest number of preference pairs (or positives)."""
    min_parse_rate: Fraction = 0.8
    """Smallest share of verdicts with a readable score."""
    max_length_growth: Positive = 2.0
    """Largest mean answer length relative to the previous model's."""
    max_tie_rate: Fraction | None = None
    """Largest share of prompts whose best and worst score are equal."""
    min_judge_accuracy: Fraction | None = None
    """Smallest pairwise accuracy of the judge on held-out human rankings."""
    min_win_rate: Fraction | None = None
    """Smallest win rate against the opponent (ties count half)."""
    on_failure: Literal["Stop", "Hold", "Continue"] = "Stop"
    """Stop the run, hold it until a person decides, or note it and go on."""


class BudgetSpec(Contract):
    """What a run may spend; it stops when it is spent."""

    gpu_seconds: NonNegative | None = None
    """GPU-seconds over all stages."""
    tokens: NonNegative | None = None
    """Tokens over all stages: generated, read for a score, or trained on."""


class FailurePolicySpec(Contract):
    """How often and how patiently the operator tries again."""

    max_attempts: Annotated[int, Field(ge=1, le=100)] = 3
    """Attempts a stage gets; disruptions and suspension do not count."""
    backoff_seconds: Annotated[float, Field(ge=0, le=86400)] = 10
    """Seconds before the second attempt; doubled with each further one."""
    temporary_budget_seconds: Annotated[int, Field(ge=0, le=2592000)] = 3600
    """Seconds for which temporary failures (network, S3) are tried again without counting."""
    stage_deadline_seconds: Annotated[int, Field(ge=1, le=2592000)] = 86400
    """Seconds that one attempt of a stage may take at most."""


class SchedulingSpec(Contract):
    """Queueing and priority of the Jobs."""

    queue_name: Annotated[str, Field(max_length=63, pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$")] = ""
    """Kueue local queue; Jobs are created suspended and the queue starts them."""
    priority_class_name: Annotated[str, Field(max_length=253, pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$")] = ""
    """PriorityClass of the pods."""
    gpu_memory: Annotated[str, Field(max_length=32, pattern=r"^[0-9]+(\.[0-9]+)?([kMGTPE]|[KMGTPE]i)?$")] | None = None
    """Memory of one GPU, such as `80Gi`: preflight then refuses models that cannot fit the GPUs asked for. Left out,
    only the names of MIG resources tell (`nvidia.com/mig-3g.40gb`), and nothing is refused where they do not."""


class BranchSpec(Contract):
    """Start at another run's model instead of a bootstrap."""

    model_config = rules(
        (
            "",
            "has(self.run) == has(self.model)",
            "branchFrom needs both run and model, such as {run: other, model: M1}",
        ),
    )

    run: ObjectName | None = None
    """Another run in this namespace with the same storage.uri."""
    model: Annotated[str, Field(pattern=r"^M[1-9][0-9]?$", max_length=3)] | None = None
    """The model of that run to start from, such as `M1`."""
