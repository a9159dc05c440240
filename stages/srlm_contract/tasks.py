"""What a stage is told (`SRLM_TASK`) and what it answers (the termination message).

`params` are exactly the parameters that change the result: they go into the key. Everything else in a
task (where storage is, how many processes, which attempt) does not.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field

from srlm_contract.scorers import Scorer
from srlm_contract.spec.data import EftSpec, IftSpec, SeedFormat, TemplateArguments
from srlm_contract.spec.evaluation import WinRateJudge
from srlm_contract.spec.loop import (
    Constraint,
    ExternalJudgeSpec,
    FewShotSpec,
    PreferenceStrategy,
    PromptFiltersSpec,
    PromptSource,
    PromptStyle,
    SamplingSpec,
    ShadowScorerSpec,
    Truncated,
)
from srlm_contract.spec.pods import EngineSettings
from srlm_contract.spec.run import RunSpec
from srlm_contract.spec.storage import IfMatch, Place, Retention, Storage
from srlm_contract.spec.tracking import TrackingSpec
from srlm_contract.spec.training import (
    AttnImplementation,
    DeepSpeedSpec,
    DpoSpec,
    FsdpSpec,
    LoraSpec,
    Parallelism,
    Precision,
    SaveDtype,
    SftSpec,
)

from .base import Contract, ShortText
from .stages import StageName

#: Longest `SRLM_TASK` in bytes; the kernel's limit for one argument string is 128 KiB.
MAX_TASK_BYTES = 96 * 1024
#: Longest termination message in bytes that Kubernetes keeps.
MAX_RESULT_BYTES = 4096

EXIT_OK = 0
EXIT_INVALID_TASK = 64
EXIT_BAD_INPUT = 65
EXIT_TEMPORARY = 75
EXIT_NOT_PERMITTED = 77


class ArtifactRef(Contract):
    """A committed artifact."""

    stage: StageName
    """Stage that made it."""
    key: ShortText
    """Its key."""
    content_digest: ShortText
    """Its content digest."""


class SourceRef(Contract):
    """Something outside the artifacts (base model, data set, prompt pool), pinned by `preflight`."""

    uri: Annotated[str, Field(max_length=1024)]
    """hf://, s3:// or file://, without revision."""
    revision: Annotated[str, Field(max_length=1024)] = ""
    """Commit of a hub repository, or `sha256:...` over the files; empty before it is pinned."""
    file: Annotated[str, Field(max_length=512)] | None = None
    """File inside a data set repository."""


class Pins(Contract):
    """What `preflight` found out about the world outside, once and for all stages."""

    base_model: SourceRef
    """The base model."""
    seed_data: SourceRef
    """The seed data."""
    chat_template: ShortText = ""
    """Built-in name or digest of the chat template; empty for the model's own."""
    rubric: ShortText = ""
    """Built-in name or digest of the rubric; empty for the built-in one."""
    prompt_source: SourceRef | None = None
    """The model or file of prompts.generator."""
    judge_source: SourceRef | None = None
    """The model of a fixed win-rate judge."""
    conditional_puts: bool = True
    """Whether the store has conditional puts; without them commits are check-then-put."""
    if_match: IfMatch = "Quoted"
    """How conditional puts name the version they replace: its ETag in quotes, or without them (Ceph RGW 16), or
    Unsupported, when replacing is check-then-put."""
    parameters: Annotated[int, Field(ge=0, le=10**15)] = 0
    """Parameters of the base model; 0 where preflight could not tell. Pods that train ask for memory by it."""


class DataParams(Contract):
    kind: Literal["data"] = "data"
    format: SeedFormat = "OasstTrees"
    language: str = "en"
    validation_prompts: int = 253
    ift: IftSpec = IftSpec()
    held_out_examples: int = 541
    ranked: bool = True
    """Whether human-ranked answers are wanted to train the judge on (EFT)."""


class TrainerParams(Contract):
    """What both trainers share."""

    system_prompt: str = ""
    chat_template: str = ""
    """Built-in name or digest of a ConfigMap's template; empty for the model's own."""
    chat_template_kwargs: TemplateArguments = {}
    """What every rendering of the chat template is given besides the messages."""
    precision: Precision = "BF16Mixed"
    """Left out of a key it means what the default of a run was before `Auto`."""
    save_dtype: SaveDtype = "Float32"


class SftParams(TrainerParams):
    kind: Literal["sft"] = "sft"
    sft: SftSpec = SftSpec()
    lora: LoraSpec = LoraSpec()
    #: inputs: `data` (ift.jsonl), maybe `eft`; source or input `model`.


class TrainParams(TrainerParams):
    kind: Literal["train"] = "train"
    strategy: PreferenceStrategy = "PreferencePairs"
    dpo: DpoSpec = DpoSpec()
    sft: SftSpec = SftSpec()
    """Used by PositiveOnly."""
    include_seed: bool = False
    lora: LoraSpec = LoraSpec()
    keep_checkpoints_every: int = 0
    """Steps between checkpoints kept in the artifact for `choose`; 0 for none."""


JudgedRows = Literal["candidates", "ranked-train", "ranked-heldout"]


class JudgeParams(Contract):
    kind: Literal["judge"] = "judge"
    rows: JudgedRows = "candidates"
    scorer: Scorer = "Sampled"
    samples: int = 3
    min_valid_samples: int = 2
    max_reasks: int = 1
    constrain: Constraint = "None"
    unconstrained_sample: int = 0
    min_digit_mass: float = 0.5
    external: ExternalJudgeSpec = ExternalJudgeSpec()
    sampling: SamplingSpec = SamplingSpec()
    rubric: str = ""
    """Built-in name or digest of a ConfigMap's template; empty for the built-in rubric."""
    shadow_scorer: ShadowScorerSpec = ShadowScorerSpec()
    chat_template: str = ""
    chat_template_kwargs: TemplateArguments = {}
    engine: EngineSettings = EngineSettings()


class SelectParams(Contract):
    kind: Literal["select"] = "select"
    eft: EftSpec = EftSpec()
    rubric: str = ""


class PromptsParams(Contract):
    kind: Literal["prompts"] = "prompts"
    count: int = 1000
    style: PromptStyle = "Chat"
    source: PromptSource = "Current"
    few_shot: FewShotSpec = FewShotSpec()
    sampling: SamplingSpec = SamplingSpec()
    filters: PromptFiltersSpec = PromptFiltersSpec()
    language: str = "en"
    chat_template: str = ""
    chat_template_kwargs: TemplateArguments = {}
    engine: EngineSettings = EngineSettings()


class GenerateParams(Contract):
    kind: Literal["generate"] = "generate"
    candidates: int = 4
    system_prompt: str = ""
    sampling: SamplingSpec = SamplingSpec()
    chat_template: str = ""
    chat_template_kwargs: TemplateArguments = {}
    engine: EngineSettings = EngineSettings()


class PairsParams(Contract):
    kind: Literal["pairs"] = "pairs"
    strategy: PreferenceStrategy = "PreferencePairs"
    min_margin: float = 0
    length_penalty: float = 0
    truncated: Truncated = "Drop"
    min_score: float = 5
    may_be_empty: bool = False
    """Whether a further round may follow (minimum yield): then no pair at all is no error yet."""


class ChooseParams(Contract):
    kind: Literal["choose"] = "choose"
    prompts: int = 256
    system_prompt: str = ""
    sampling: SamplingSpec = SamplingSpec()
    chat_template: str = ""
    chat_template_kwargs: TemplateArguments = {}
    engine: EngineSettings = EngineSettings()


class EvaluateParams(Contract):
    kind: Literal["evaluate"] = "evaluate"
    model: str = ""
    """Name of the model evaluated, such as M2."""
    prompts: int = 256
    """Validation prompts answered and compared on."""
    opponents: tuple[str, ...] = ()
    """Names of earlier models, oldest first; their answers are inputs `answers-<name>`."""
    headline: str = ""
    """The opponent whose win rate is reported first."""
    people: bool = False
    """Whether the answers of people in input `data` are met, too."""
    baseline: bool = False
    """Whether the model is none of the loop's, measured beside M1."""
    judging: JudgeParams | None = None
    """How it judges the held-out answers itself; None where its judgements are an input, or not asked for."""
    judge: WinRateJudge = "Bootstrap"
    external: ExternalJudgeSpec = ExternalJudgeSpec()
    samples: int = 3
    perfect_score: float = 5
    system_prompt: str = ""
    sampling: SamplingSpec = SamplingSpec()
    chat_template: str = ""
    chat_template_kwargs: TemplateArguments = {}
    engine: EngineSettings = EngineSettings()


class PreflightParams(Contract):
    kind: Literal["preflight"] = "preflight"
    spec: RunSpec
    branch: ArtifactRef | None = None
    known: dict[str, str] = {}
    """Content digest by node id of what is known to be committed: the search goes on from there."""


class ReportParams(Contract):
    kind: Literal["report"] = "report"
    spec: RunSpec
    """Without podTemplate patches: they say where pods run, not what is computed, and may be long."""
    status: dict[str, Any] = {}
    """`RunStatus` as plain JSON, fields at their default left out; shortened where the task would be too long:
    metrics and models of all iterations stay, stage details of the oldest iterations go first."""
    pins: Pins | None = None
    """What preflight pinned; None before it has: then only `status` is known."""
    branch: ArtifactRef | None = None
    """The pinned model of branchFrom."""


class CleanupParams(Contract):
    kind: Literal["cleanup"] = "cleanup"
    retention: Retention = "Retain"
    intermediate: tuple[str, ...] = ()
    """Keys of models that are no M_t: the judge before M1, trainings that `choose` picked from."""


Params = Annotated[
    DataParams | SftParams | TrainParams | JudgeParams | SelectParams | PromptsParams | GenerateParams
    | PairsParams | ChooseParams | EvaluateParams | PreflightParams | ReportParams | CleanupParams,
    Field(discriminator="kind"),
]  # fmt: skip


class StorageLocation(Place):
    """Where artifacts live; credentials come from the environment."""

    conditional_puts: bool = True
    """Found out by `preflight`."""
    if_match: IfMatch = "Quoted"
    """The same."""

    @classmethod
    def of(cls, storage: Storage, pins: Pins | None) -> Self:
        """pins: what `preflight` found out; None before it has."""
        return cls(
            **{name: getattr(storage, name) for name in Place.model_fields},
            conditional_puts=pins is None or pins.conditional_puts,
            if_match="Quoted" if pins is None else pins.if_match,
        )


class ProcessSettings(Contract):
    """How a trainer runs; does not change what it computes."""

    nodes: int = 1
    processes_per_node: int = 1
    parallelism: Parallelism = "FSDP"
    fsdp: FsdpSpec = FsdpSpec()
    deepspeed: DeepSpeedSpec = DeepSpeedSpec()
    attn_implementation: AttnImplementation | None = None
    padding_free: bool = False
    micro_batch_size: int | None = None
    gradient_checkpointing: bool | None = None
    checkpoint_every_steps: int = 0
    """Steps between resume points."""
    master_address: str = ""
    """Host of node 0 with more than one node."""
    master_port: int = 29500


class RunIdentity(Contract):
    """The run a task belongs to."""

    namespace: str
    name: str
    uid: str


class Link(Contract):
    """A stage that a pod runs after that of its task, with the engine that is open already.

    Its key is known when those before it are committed: the pod makes it as the operator would.
    """

    iteration: int
    node: str
    stage: StageName
    round: int = 1
    revision: int = 1
    params: Params
    inputs: dict[str, ArtifactRef] = {}
    """Inputs that are committed, by name."""
    awaited: dict[str, str] = {}
    """The others: input name → id of a node before it in the chain."""
    sources: dict[str, SourceRef] = {}
    image: str = ""
    """`stages.<stage>.image` of the run, part of the key."""


class StageTask(Contract):
    """`SRLM_TASK`."""

    schema_version: Literal[1] = 1
    stage: StageName
    run: RunIdentity
    iteration: int = 0
    """0 is the bootstrap, which gives M1; iteration t gives M_{t+1}."""
    node: str = ""
    """Name of the node within the iteration, such as `judge-heldout`."""
    round: int = 1
    attempt: int = 1
    key: str = ""
    """Key of the artifact to commit; empty for stages without one."""
    revision: int = 1
    seed: int = 0
    params: Params
    inputs: dict[str, ArtifactRef] = {}
    """Committed artifacts by input name."""
    sources: dict[str, SourceRef] = {}
    """Outside sources by name, such as `model` or `seedData`."""
    shards: int = 1
    shard_indexes: tuple[int, ...] = ()
    """Shards of this attempt: JOB_COMPLETION_INDEX i stands for shard shard_indexes[i]. Empty for all."""
    storage: StorageLocation
    process: ProcessSettings = ProcessSettings()
    tracking: TrackingSpec = TrackingSpec()
    """Of trainings: who is told their curves."""
    repair: bool = False
    """The committed artifact of this key was found damaged: verify it and replace what is damaged."""
    chain: tuple[Link, ...] = ()
    """What the same pod does next, in order; of as many shards as the task."""


class StageError(Contract):
    """Why a stage failed, for status and people."""

    reason: str
    """CamelCase constant of srlm_contract.reasons."""
    message: str
    """What is wrong, where, and what to do."""
    artifact: ArtifactRef | None = None
    """The damaged input artifact, when that is the cause."""


class Committed(Contract):
    """An artifact of this run that exists already."""

    node: Annotated[str, Field(max_length=66, pattern=r"^[0-9]{1,2}/[a-z][-a-z0-9]*$")]
    """Node id `<iteration>/<name>`."""
    key: str
    content_digest: str
    statistics: dict[str, float] = {}


class ChainedResult(Contract):
    """A stage that a pod has committed after that of its task."""

    node: Annotated[str, Field(max_length=66, pattern=r"^[0-9]{1,2}/[a-z][-a-z0-9]*$")]
    """Node id `<iteration>/<name>`."""
    key: str
    content_digest: str
    revision: int = 1
    statistics: dict[str, float] = {}
    reused: bool = False
    seconds: float = 0
    """How long it took."""


class StageResult(Contract):
    """The termination message: at most 4 KiB of JSON."""

    stage: StageName
    key: str = ""
    content_digest: str = ""
    manifest_uri: str = ""
    statistics: dict[str, float] = {}
    """The figures that status and gates use; the manifest has all of them."""
    reused: bool = False
    """The key was committed already."""
    pins: Pins | None = None
    """`preflight` only."""
    committed: tuple[Committed, ...] = ()
    """`preflight` only: in graph order."""
    more: bool = False
    """`preflight` only: the list was cut to fit; ask again with these known."""
    warnings: tuple[str, ...] = ()
    storage_errors: int = 0
    """Requests of this pod that the object store failed or refused, those that a retry mended included."""
    chained: tuple[ChainedResult, ...] = ()
    """Stages of the chain that are committed too, in order. Where one fails the chain ends: the operator starts it
    in a Job of its own, which says why."""
    error: StageError | None = None
