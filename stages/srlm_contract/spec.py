"""`SelfRewardingRun.spec`: every field with its default. The CRD is generated from these models."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from .base import (
    Contract,
    Count,
    CountOrZero,
    Fraction,
    NonNegative,
    ObjectName,
    Positive,
    ShortText,
    Text,
    Uri,
)
from .spec_parts import (
    FREE_FORM,
    BaseModelSpec,
    BranchSpec,
    BudgetSpec,
    FailurePolicySpec,
    GatesSpec,
    SchedulingSpec,
    SecretKeyRef,
    SeedDataSpec,
    StagesSpec,
    StorageSpec,
    TemplateRef,
    rules,
    source_rule,
)

MAX_ITERATIONS = 50


class SamplingSpec(Contract):
    """Sampling of an engine."""

    temperature: Annotated[float, Field(ge=0, le=5)] = 0.7
    """Softmax temperature; 0 is greedy."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Nucleus sampling."""
    max_tokens: Annotated[int, Field(ge=1, le=131072)] = 1024
    """Longest answer in tokens."""


class SftSpec(Contract):
    """Supervised fine-tuning, loss on the answer only."""

    model_config = rules(
        (
            ".minLearningRate",
            "self.minLearningRate <= self.learningRate",
            "minLearningRate must not be above learningRate: lower it, or set it to 0",
        ),
    )

    learning_rate: Positive = 5.5e-6
    """Peak learning rate."""
    min_learning_rate: NonNegative = 1.1e-6
    """Floor of the cosine schedule."""
    batch_size: Annotated[int, Field(ge=1, le=65536)] = 16
    """Examples per optimizer step over all processes."""
    epochs: Annotated[float, Field(gt=0, le=1000)] = 2
    """Passes over the data."""
    max_length: Annotated[int, Field(ge=16, le=1048576)] = 2048
    """Longest example in tokens; longer ones are dropped and counted."""
    dropout: Fraction = 0.1
    """Dropout during training."""
    warmup_ratio: Fraction = 0
    """Share of the steps with rising learning rate."""


class PromptSamplingSpec(SamplingSpec):
    """Sampling of new prompts."""

    temperature: Annotated[float, Field(ge=0, le=5)] = 0.6
    """Softmax temperature; 0 is greedy."""
    max_tokens: Annotated[int, Field(ge=1, le=131072)] = 256
    """Longest prompt in tokens."""


class VerdictSamplingSpec(SamplingSpec):
    """Sampling of verdicts."""

    max_tokens: Annotated[int, Field(ge=1, le=131072)] = 512
    """Longest verdict in tokens."""


LossType = Literal[
    "sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard",
    "aot", "aot_unpaired", "apo_zero", "apo_down", "discopop", "sft",
]  # fmt: skip


class DpoSpec(Contract):
    """Direct preference optimisation (Rafailov et al. 2023)."""

    model_config = rules(
        (
            ".minLearningRate",
            "self.minLearningRate <= self.learningRate",
            "minLearningRate must not be above learningRate: lower it, or set it to 0",
        ),
    )

    beta: Positive = 0.1
    """Strength of the pull towards the reference model."""
    loss_type: Annotated[tuple[LossType, ...], Field(min_length=1, max_length=8)] = ("sigmoid",)
    """Loss terms, as TRL names them."""
    learning_rate: Positive = 1e-6
    """Peak learning rate."""
    min_learning_rate: NonNegative = 1e-7
    """Floor of the cosine schedule."""
    batch_size: Annotated[int, Field(ge=1, le=65536)] = 16
    """Pairs per optimizer step over all processes."""
    epochs: Annotated[float, Field(gt=0, le=1000)] = 1
    """Passes over the data."""
    max_length: Annotated[int, Field(ge=16, le=1048576)] = 2048
    """Longest prompt plus answer in tokens; longer pairs are dropped and counted."""
    dropout: Fraction = 0.1
    """Dropout during training."""
    warmup_ratio: Fraction = 0
    """Share of the steps with rising learning rate."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0
    """Assumed share of wrong labels."""


class BootstrapSpec(Contract):
    """How M1 comes to be."""

    strategy: Literal["SupervisedFineTuning", "None"] = "SupervisedFineTuning"
    """`None`: the base model already follows instructions and judges; it is M1."""
    sft: SftSpec = SftSpec()
    """Supervised fine-tuning of M0."""


class PromptGeneratorSpec(Contract):
    """Who writes new prompts."""

    model_config = rules(
        (
            ".uri",
            "self.source == 'Current' || has(self.uri)",
            "prompts.generator.uri is needed with source Fixed (a model) and Pool (a prompt file)",
        ),
        source_rule("uri", "prompts.generator.uri", "!has(self.uri) || "),
    )

    source: Literal["Current", "Fixed", "Pool"] = "Current"
    """The model being improved, a fixed model, or a file of prompts."""
    uri: Uri | None = None
    """Model (`Fixed`) or prompt file (`Pool`)."""


class FewShotSpec(Contract):
    """Examples shown when new prompts are written."""

    seed: Annotated[int, Field(ge=1, le=64)] = 6
    """Human prompts."""
    generated: Annotated[int, Field(ge=0, le=64)] = 2
    """Prompts of earlier iterations."""


class PromptFiltersSpec(Contract):
    """Which new prompts are accepted (Self-Instruct, Wang et al. 2023)."""

    model_config = rules(
        (".minWords", "self.minWords <= self.maxWords", "minWords must not be above maxWords"),
    )

    max_rouge_l: Fraction = 0.7
    """Largest ROUGE-L F-measure with any prompt seen before."""
    min_words: Annotated[int, Field(ge=1, le=100000)] = 3
    """Shortest prompt in words."""
    max_words: Annotated[int, Field(ge=1, le=100000)] = 150
    """Longest prompt in words."""
    banned_keywords: Annotated[tuple[ShortText, ...], Field(max_length=256)] = ("image", "graph", "picture")
    """Prompts with one of these words are refused: a language model cannot fulfil them."""


class PromptsSpec(Contract):
    """New prompts of an iteration."""

    count: Count = 1000
    """Accepted prompts an iteration."""
    style: Literal["Chat", "Completion"] = "Chat"
    """Ask by an instruction, or let the model continue a numbered list (better for very small models)."""
    generator: PromptGeneratorSpec = PromptGeneratorSpec()
    """Who writes them."""
    few_shot: FewShotSpec = FewShotSpec()
    """Examples shown."""
    sampling: PromptSamplingSpec = PromptSamplingSpec()
    """Sampling of new prompts."""
    filters: PromptFiltersSpec = PromptFiltersSpec()
    """Which ones are accepted."""


class GenerationSpec(Contract):
    """Candidate answers."""

    candidates: Annotated[int, Field(ge=1, le=256)] = 4
    """Answers a prompt."""
    system_prompt: Text = ""
    """System prompt of generation and training."""
    sampling: SamplingSpec = SamplingSpec()
    """Sampling of answers."""
    shards: Annotated[int, Field(ge=1, le=1024)] = 8
    """Pods that share the work."""


class ExternalJudgeSpec(Contract):
    """An OpenAI-compatible judge instead of M_t."""

    model_config = rules(
        ("", "has(self.url) == has(self.model)", "judging.external needs both url and model, or neither"),
        (
            ".url",
            "!has(self.url) || self.url.matches('^https?://[^/]+')",
            "judging.external.url must begin with http:// or https:// and name a host",
        ),
    )

    url: Uri | None = None
    """Base URL of the API, such as `https://judge.example/v1`."""
    model: ShortText | None = None
    """Model name to ask for."""
    api_key_secret_ref: SecretKeyRef | None = None
    """Secret with the API key."""


class ShadowScorerSpec(Contract):
    """A second scorer on a sample of the same rows, to compare."""

    scorer: Literal["None", "Sampled", "ExpectedScore"] = "None"
    """The second scorer."""
    sample: CountOrZero = 100
    """Rows scored by both."""


class JudgingSpec(Contract):
    """LLM-as-a-Judge."""

    model_config = rules(
        (
            ".minValidSamples",
            "self.scorer == 'ExpectedScore' || self.minValidSamples <= self.samples",
            "minValidSamples must not be above samples: no answer could ever be used",
        ),
    )

    scorer: Literal["Sampled", "ExpectedScore"] = "Sampled"
    """Mean of sampled verdicts, or expected score from the digit logits (no reasoning first, unlike the
    paper)."""
    samples: Annotated[int, Field(ge=1, le=64)] = 3
    """Verdicts an answer."""
    min_valid_samples: Annotated[int, Field(ge=1, le=64)] = 2
    """An answer with fewer readable verdicts is not used."""
    max_reasks: Annotated[int, Field(ge=0, le=16)] = 1
    """Unreadable verdicts are asked again with a new seed, this often."""
    constrain: Literal["None", "ScoreLine"] = "None"
    """Grammar that forces the score line, for judges too small to keep the format."""
    unconstrained_sample: CountOrZero = 0
    """With a constraint: this many verdicts are also asked without it, to state the free parse rate."""
    min_digit_mass: Fraction = 0.5
    """ExpectedScore: below this probability of any score digit the verdict is unusable."""
    external: ExternalJudgeSpec = ExternalJudgeSpec()
    """An external judge."""
    sampling: VerdictSamplingSpec = VerdictSamplingSpec()
    """Sampling of verdicts."""
    template_ref: TemplateRef | None = None
    """Rubric from a ConfigMap; omit for the built-in additive five-point rubric."""
    shadow_scorer: ShadowScorerSpec = ShadowScorerSpec()
    """A second scorer to compare with."""
    shards: Annotated[int, Field(ge=1, le=1024)] = 8
    """Pods that share the work."""


class PositivesSpec(Contract):
    """Positive examples only."""

    min_score: Annotated[float, Field(ge=0, le=5)] = 5
    """Smallest mean score of an answer to train on."""
    include_seed: bool = True
    """Add the IFT and EFT examples."""


class MinYieldSpec(Contract):
    """More prompts are generated when pairs fall short."""

    pairs: CountOrZero = 0
    """Wanted pairs an iteration."""
    max_rounds: Annotated[int, Field(ge=1, le=10)] = 1
    """At most this many rounds of prompts, generate and judge."""


class PreferencesSpec(Contract):
    """From judgements to training data."""

    strategy: Literal["PreferencePairs", "PositiveOnly"] = "PreferencePairs"
    """Best against worst (DPO), or supervised training on the best answers."""
    min_margin: Annotated[float, Field(ge=0, le=5)] = 0
    """Best minus worst score must be greater than this; 0.25 suits ExpectedScore."""
    length_penalties: Annotated[tuple[Fraction, ...], Field(min_length=1, max_length=MAX_ITERATIONS)] = (
        0,
        0,
        0.1,
    )
    """Length penalty rho per iteration, the last one repeats; 0 is off."""
    truncated: Literal["Drop", "Keep"] = "Drop"
    """What becomes of answers cut by the length limit."""
    positives: PositivesSpec = PositivesSpec()
    """Settings of PositiveOnly."""
    min_yield: MinYieldSpec = MinYieldSpec()
    """Minimum yield."""


class ChooseSpec(Contract):
    """Early stopping by pairwise judging of checkpoints."""

    enabled: bool = False
    """Whether a checkpoint is chosen; else the last one is the model."""


class LoraSpec(Contract):
    """Low-rank adaptation; merged on save. Off without `rank`."""

    rank: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Rank of the adapters."""
    alpha: Positive = 16
    """Scale of the adapters."""
    dropout: Fraction = 0
    """Dropout of the adapters."""
    target_modules: Annotated[tuple[ShortText, ...], Field(max_length=64)] = ()
    """Module names; empty for all linear layers."""


class TrainingSpec(Contract):
    """Preference training and how all training runs."""

    start_from: Literal["Previous", "Bootstrap"] = "Previous"
    """M_{t+1} from M_t, or every M from M1."""
    reference: Literal["Start", "Bootstrap"] = "Start"
    """Reference model: the one training starts from, or M1."""
    dpo: DpoSpec = DpoSpec()
    """Direct preference optimisation."""
    checkpoint_every_steps: CountOrZero = 200
    """Steps between resume points; 0 for none."""
    choose: ChooseSpec = ChooseSpec()
    """Choice of a checkpoint."""
    precision: Literal["BF16Mixed", "Float32"] = "BF16Mixed"
    """fp32 master weights under bf16 autocast, or plain fp32. Pure bf16 AdamW loses small updates."""
    save_dtype: Literal["Float32", "BFloat16"] = "Float32"
    """Type of the weights between iterations; the inference engine casts."""
    lora: LoraSpec = LoraSpec()
    """Low-rank adaptation."""
    nodes: Annotated[int, Field(ge=1, le=1024)] = 1
    """Pods of a training Job."""
    processes_per_node: Annotated[int, Field(ge=1, le=64)] = 8
    """torchrun processes a pod, one a GPU."""
    parallelism: Literal["DDP", "FSDP"] = "FSDP"
    """Replicated or sharded weights; on CPU always DDP."""
    micro_batch_size: Annotated[int, Field(ge=1, le=1024)] = 1
    """Rows a process takes through the model at once; does not change the batch size."""
    gradient_checkpointing: bool = True
    """Trade time for memory."""


class WinRateJudgeSpec(Contract):
    """The one judge of all head-to-head comparisons."""

    model_config = rules(
        (
            ".uri",
            "self.source != 'Fixed' || has(self.uri)",
            "winRate.judge.uri (a model) is needed with source Fixed",
        ),
        source_rule("uri", "winRate.judge.uri", "!has(self.uri) || "),
    )

    source: Literal["Bootstrap", "Current", "Fixed", "External"] = "Bootstrap"
    """M1, the model itself, a fixed model, or judging.external."""
    uri: Uri | None = None
    """The model of source Fixed."""


class WinRateSpec(Contract):
    """Head-to-head comparison of models."""

    opponent: Literal["Previous", "Bootstrap"] = "Previous"
    """Whom a new model is compared with."""
    judge: WinRateJudgeSpec = WinRateJudgeSpec()
    """Who compares."""
    prompts: CountOrZero = 256
    """Prompts compared on; 0 turns it off."""


class EvaluationSpec(Contract):
    """What is measured after every iteration."""

    enabled: bool = True
    """Whether models are evaluated."""
    win_rate: WinRateSpec = WinRateSpec()
    """Head-to-head comparison."""


_ROWS_A_STEP = "self.training.nodes * self.training.processesPerNode * self.training.microBatchSize"
_ROWS_A_STEP_HELP = (
    "training.nodes x processesPerNode x microBatchSize: lower one of these or raise the batch size"
)


class RunSpec(Contract):
    """One Self-Rewarding run: M0 to M_{iterations + 1}."""

    model_config = rules(
        (
            ".bootstrap.strategy",
            "!has(self.branchFrom.run) || self.bootstrap.strategy == 'SupervisedFineTuning'",
            "branchFrom replaces the bootstrap: leave out bootstrap.strategy None",
        ),
        (
            ".evaluation.winRate.judge.source",
            "self.evaluation.winRate.judge.source != 'External' || has(self.judging.external.url)",
            "winRate.judge.source External needs judging.external with url and model",
        ),
        (
            ".generation.candidates",
            "self.preferences.strategy != 'PreferencePairs' || self.generation.candidates >= 2",
            "a preference pair needs two answers: set generation.candidates to at least 2, or"
            " preferences.strategy to PositiveOnly",
        ),
        (
            ".generation.sampling.temperature",
            "self.generation.candidates == 1 || self.generation.sampling.temperature > 0.0",
            "at temperature 0 all candidates of a prompt are equal: set generation.sampling.temperature above"
            " 0",
        ),
        (
            ".gates.minPairs",
            "self.preferences.strategy != 'PreferencePairs' || self.gates.onFailure == 'Continue'"
            " || self.gates.minPairs <= self.prompts.count * self.preferences.minYield.maxRounds",
            "a prompt gives at most one pair, so gates.minPairs can never be reached: lower it to prompts.count"
            " times preferences.minYield.maxRounds or less",
        ),
        (
            ".preferences.minYield.pairs",
            "self.preferences.minYield.pairs <= self.prompts.count * self.preferences.minYield.maxRounds",
            "a prompt gives at most one pair, so minYield.pairs can never be reached: lower it to prompts.count"
            " times minYield.maxRounds or less",
        ),
        (
            ".gates.minJudgeAccuracy",
            "!has(self.gates.minJudgeAccuracy)"
            " || (self.evaluation.enabled && self.seedData.eft.heldOutExamples > 0)",
            "gates.minJudgeAccuracy needs evaluation.enabled and seedData.eft.heldOutExamples above 0",
        ),
        (
            ".gates.minWinRate",
            "!has(self.gates.minWinRate) || (self.evaluation.enabled && self.evaluation.winRate.prompts > 0)",
            "gates.minWinRate needs evaluation.enabled and evaluation.winRate.prompts above 0",
        ),
        (
            ".training.dpo.batchSize",
            f"{_ROWS_A_STEP} < 1 || self.training.dpo.batchSize % ({_ROWS_A_STEP}) == 0",
            f"training.dpo.batchSize must be a multiple of {_ROWS_A_STEP_HELP}",
        ),
        (
            ".bootstrap.sft.batchSize",
            f"{_ROWS_A_STEP} < 1 || self.bootstrap.sft.batchSize % ({_ROWS_A_STEP}) == 0",
            f"bootstrap.sft.batchSize must be a multiple of {_ROWS_A_STEP_HELP}",
        ),
    )

    base_model: BaseModelSpec
    """M0."""
    iterations: Annotated[int, Field(ge=1, le=MAX_ITERATIONS)] = 2
    """DPO rounds after M1: 2 gives M2 and M3. May be raised on a finished run."""
    seed: Annotated[int, Field(ge=0, le=2147483647)] = 0
    """Seed of everything random."""
    suspend: bool = False
    """Stop the running Job and start nothing; what is committed stays."""
    storage: StorageSpec
    """Where artifacts live."""
    seed_data: SeedDataSpec
    """Human data."""
    bootstrap: BootstrapSpec = BootstrapSpec()
    """How M1 comes to be."""
    branch_from: BranchSpec = BranchSpec()
    """Start at another run's model."""
    prompts: PromptsSpec = PromptsSpec()
    """New prompts."""
    generation: GenerationSpec = GenerationSpec()
    """Candidate answers."""
    judging: JudgingSpec = JudgingSpec()
    """LLM-as-a-Judge."""
    preferences: PreferencesSpec = PreferencesSpec()
    """Preference data."""
    training: TrainingSpec = TrainingSpec()
    """Training."""
    evaluation: EvaluationSpec = EvaluationSpec()
    """Evaluation."""
    gates: GatesSpec = GatesSpec()
    """Gates."""
    budget: BudgetSpec = BudgetSpec()
    """Budget."""
    failure_policy: FailurePolicySpec = FailurePolicySpec()
    """Retries."""
    scheduling: SchedulingSpec = SchedulingSpec()
    """Queue and priority."""
    service_account_name: Annotated[ObjectName, Field()] | None = None
    """Service account of the stage pods (workload identity); omit for the namespace's default."""
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=31536000)] = 86400
    """How long finished Jobs are kept; artifacts follow storage.retention."""
    pod_template: Annotated[dict[str, Any], Field(json_schema_extra=FREE_FORM)] = {}
    """Strategic merge patch for the pod template of all stages."""
    stages: StagesSpec = StagesSpec()
    """Settings by stage."""
