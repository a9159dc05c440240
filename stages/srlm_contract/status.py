"""`SelfRewardingRun.status`: the operator's memory and what people read.

The operator keeps it within its `MAX_STATUS_BYTES`: stage details of the last iterations, metrics of all.
Lists are atomic.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from srlm_contract.spec.policy import MAX_ITERATIONS
from srlm_contract.spec.storage import Storage

from .base import Contract, ShortText
from .tasks import ArtifactRef, Pins

Time = Annotated[str, Field(max_length=32, json_schema_extra={"format": "date-time"})]
MAX_MESSAGE = 1024
"""Characters of a message that status keeps, as of an event's that the API server takes."""
MAX_STATISTICS = 48
"""Figures of a stage that status keeps."""
Message = Annotated[str, Field(max_length=MAX_MESSAGE)]
Token = Annotated[str, Field(max_length=128)]

#: Stage details are kept for this many latest iterations.
DETAILED_ITERATIONS = 5

RunPhase = Literal["Pending", "Running", "Waiting", "Queued", "Stalled", "Suspended", "Held", "Succeeded", "Failed"]
"""For people; machines read conditions."""

#: Phases in which nothing runs and nobody but a person changes anything.
ENDED: tuple[RunPhase, ...] = ("Succeeded", "Failed", "Held")


class Failure(Contract):
    """Why an attempt failed."""

    reason: Token
    """CamelCase constant."""
    message: Message = ""
    """What happened, with the message of the object at fault."""
    at: Time
    """When."""
    exit_code: int | None = None
    """Exit code of the container."""


class StageStatus(Contract):
    """One stage of one iteration."""

    name: Token
    """Node name, such as `judge-heldout`."""
    stage: Token
    """Stage name."""
    state: Literal["Pending", "Running", "Retrying", "Succeeded", "Failed"]
    """Where it stands."""
    key: Token = ""
    """Key of its artifact."""
    revision: int = 1
    """Stage revision the key was made with."""
    job: ShortText = ""
    """Name of the Job of the last attempt; of a stage that waits in a chain, that of the Job that comes to it."""
    attempt: int = 0
    """Number of the last attempt, from 1."""
    shards: int = 1
    """Number of shards; every attempt keeps that of the first."""
    finished_shards: Annotated[str, Field(max_length=1024)] = ""
    """Shards that earlier attempts have committed, as ranges such as `0-3,5`."""
    counted_failures: int = 0
    """Failures that count against failurePolicy.maxAttempts."""
    disruptions: int = 0
    """Pods of all attempts that were evicted, preempted or lost with their node; they do not count as failures."""
    disrupted_pods: Annotated[tuple[Token, ...], Field(max_length=64)] = ()
    """Those of the present attempt, by the end of their UID."""
    temporary_since: Time | None = None
    """Start of the present series of temporary failures."""
    stalled_since: Time | None = None
    """Start of the present series of failures that only a person can mend."""
    next_attempt_at: Time | None = None
    """Earliest time of the next attempt."""
    repair: bool = False
    """The artifact was found damaged and is being made again."""
    reused: bool = False
    """The artifact existed before: no Job ran for it."""
    content_digest: Token = ""
    """Content digest of the committed artifact."""
    statistics: Annotated[dict[str, float], Field(max_length=MAX_STATISTICS)] = {}
    """Figures of the result."""
    started_at: Time | None = None
    """Start of the first attempt."""
    attempt_started_at: Time | None = None
    """Start of the last attempt."""
    finished_at: Time | None = None
    """When it was committed or given up."""
    gpu_seconds: float = 0
    """GPU-seconds of all attempts."""
    storage_errors: int = 0
    """Requests of all its pods that the object store failed or refused, those that a retry mended included."""
    last_failure: Failure | None = None
    """The last failed attempt."""


class IterationMetrics(Contract):
    """Figures of one model; absent where not measured."""

    prompts: int | None = None
    """Accepted new prompts."""
    candidates: int | None = None
    """Candidate answers of the model before to the new prompts."""
    judged: int | None = None
    """Candidates with a usable score by the model before."""
    parse_rate: float | None = None
    """Share of the verdicts about candidates with a readable score, asked with the constraint if there is one."""
    free_parse_rate: float | None = None
    """The same without constraint, on a sample."""
    tie_rate: float | None = None
    """Share of prompts whose best and worst candidate have equal scores."""
    pairs: int | None = None
    """Preference pairs (or positives)."""
    rounds: int | None = None
    """Rounds of prompts that preferences.minYield took; absent when one sufficed."""
    dropped: Annotated[dict[str, int], Field(max_length=32)] = {}
    """Rows dropped on the way to the model, by stage and cause, such as `promptsSimilar` or `pairsTies`."""
    chosen_step: int | None = None
    """Training step of the checkpoint that training.choose took; -1 for the last."""
    mean_score: float | None = None
    """Mean score that the model before gave its candidates, 0 to 5."""
    score_length: float | None = None
    """Mean Spearman correlation of score and length among the candidates of a prompt, -1 to 1."""
    mean_length: float | None = None
    """Mean length in characters of the candidates."""
    candidate_length_growth: float | None = None
    """meanLength relative to the candidates of the iteration before."""
    heldout_judged: int | None = None
    """Held-out answers of people that this model gave a usable score."""
    heldout_parse_rate: float | None = None
    """Share of its verdicts about them with a readable score."""
    heldout_score: float | None = None
    """Mean score that this model gave them, 0 to 5."""
    answers: int | None = None
    """Answers of this model to the validation prompts."""
    answer_length: float | None = None
    """Mean length of those in characters."""
    length_growth: float | None = None
    """answerLength relative to the previous model's."""
    judge_accuracy: float | None = None
    """Share of pairs of held-out answers that this model's scores order as people did."""
    judge_accuracy_pairs: int | None = None
    """Human-ordered pairs behind judgeAccuracy."""
    judge_accuracy_low: float | None = None
    """Lower end of its 95% interval; absent below ten prompts."""
    judge_accuracy_high: float | None = None
    """Upper end of its 95% interval."""
    length_only_accuracy: float | None = None
    """The same for "longer is better"."""
    spearman: float | None = None
    """Mean Spearman correlation of the judge's scores with the human ranks of a prompt."""
    kendall: float | None = None
    """Mean Kendall tau-b of the same."""
    exact_match: float | None = None
    """Share of prompts whose whole ranking agrees."""
    five_best: float | None = None
    """Share of answers with a perfect score that people ranked first."""
    shadow_agreement: float | None = None
    """Share of the sample on which judging.shadowScorer and the scorer are within half a point."""
    win_rate: float | None = None
    """Wins plus half the ties against the opponent, judged in both orders by the one judge of the run."""
    win_rate_low: float | None = None
    """Lower end of its 95% interval; absent below ten prompts."""
    win_rate_high: float | None = None
    """Upper end."""
    compared: int | None = None
    """Comparisons behind it: those that could be read, one a prompt."""
    order_flips: float | None = None
    """Share of them in which the judge named the other answer once the order was swapped; they count as ties."""
    length_controlled: float | None = None
    """winRate if both answers were equally long, as AlpacaEval 2 controls for length; absent where the comparisons
    cannot tell."""
    length_controlled_low: float | None = None
    """Lower end of its 95% interval."""
    length_controlled_high: float | None = None
    """Upper end."""
    self_preference: float | None = None
    """Win rate against the model before by this model's own choices, less that by the judge's; -1 to 1."""
    self_preference_low: float | None = None
    """Lower end of its 95% interval; absent below ten prompts."""
    self_preference_high: float | None = None
    """Upper end."""
    win_rate_people: float | None = None
    """Win rate against the answers that people ranked best, with evaluation.winRate.people."""
    win_rate_people_low: float | None = None
    """Lower end of its 95% interval; absent below ten prompts."""
    win_rate_people_high: float | None = None
    """Upper end."""
    self_preference_people: float | None = None
    """selfPreference against those answers."""
    self_preference_people_low: float | None = None
    """Lower end of its 95% interval; absent below ten prompts."""
    self_preference_people_high: float | None = None
    """Upper end."""
    loss: float | None = None
    """Training loss of the last steps."""
    reward_accuracy: float | None = None
    """Share of pairs with a positive reward margin at the end of training."""
    reward_margin: float | None = None
    """Mean reward margin at the end of training."""
    seconds: float | None = None
    """Wall time of all stages in seconds."""
    gpu_seconds: float | None = None
    """GPU-seconds of all stages."""
    tokens: int | None = None
    """Tokens of all stages: generated, read for a score, or trained on."""


class IterationStatus(Contract):
    """One model and the stages that lead to it."""

    name: Token
    """Model name: M1 is the bootstrap."""
    stages: Annotated[tuple[StageStatus, ...], Field(max_length=128)] = ()
    """Stages in graph order."""
    metrics: IterationMetrics = IterationMetrics()
    """Figures."""
    gates: Annotated[tuple[Message, ...], Field(max_length=16)] = ()
    """Missed gates, in words."""


class BaselineStatus(Contract):
    """A model of no iteration that M1 is measured against."""

    name: Token
    """M0 or SFT."""
    metrics: IterationMetrics = IterationMetrics()
    """Figures; its win rate is against M1."""


class ModelStatus(Contract):
    """A finished model."""

    name: Token
    """Such as M2."""
    uri: Annotated[str, Field(max_length=2048)]
    """Where it lies."""
    key: Token = ""
    """Key of its artifact; empty for a base model used as M1."""
    stage: Token = ""
    """Stage that made it."""
    content_digest: Token = ""
    """Content digest."""
    created_at: Time
    """When."""


class ProgressStatus(Contract):
    """How far the run has come."""

    percent: int = Field(default=0, ge=0, le=100)
    """Finished share of all stages in percent."""
    text: Annotated[str, Field(max_length=8)] = ""
    """The same as people read it: `41%`."""
    shards_done: int = 0
    """Finished shards of the running stage."""
    shards_total: int = 0
    """Shards of the running stage."""
    message: Message = ""
    """Such as `judge 4,120/12,000 verdicts, 3,900 tok/s`."""
    eta_seconds: int | None = None
    """Estimated seconds left of the running stage."""
    eta: Annotated[str, Field(max_length=16)] = ""
    """The same as people read it: `21m`."""


class Condition(Contract):
    """A Kubernetes condition."""

    type: Token
    """Ready, Reconciling, Stalled or Suspended."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    reason: Token
    """CamelCase constant."""
    message: Annotated[str, Field(max_length=4096)] = ""
    """For people: what, where, what to do."""
    last_transition_time: Time
    """When `status` changed last."""
    observed_generation: int = 0
    """Generation it speaks of."""


class PreflightStatus(Contract):
    """What preflight found."""

    key: Token = ""
    """Hash of the part of the spec it checked."""
    done: bool = False
    """Whether everything committed has been found."""
    checked_at: Time | None = None
    """When."""
    pins: Pins | None = None
    """Revisions and digests of everything outside."""
    branch_from: ShortText = ""
    """The `run/model` of branchFrom that `branch` was resolved from."""
    branch: ArtifactRef | None = None
    """The artifact of branchFrom, pinned: the other run may change or go."""
    warnings: Annotated[tuple[Message, ...], Field(max_length=16)] = ()
    """Such as a store without conditional puts."""


class ReportStatus(Contract):
    """The run's report.html, and lineage.json beside it."""

    uri: Annotated[str, Field(max_length=2048)] = ""
    """Where the last one lies."""
    made_at: Time | None = None
    """When it was written."""
    token: Token = ""
    """Value of the annotation selfrewarding.dev/report that was answered last."""
    end: Token = ""
    """Digest of the end of the run that it was made for last."""
    measured: Token = ""
    """Digest of the iterations that it was made for last, for the trackers of spec.tracking."""
    message: Message = ""
    """What the next one waits for, or why there is none."""


class RunStatus(Contract):
    """Status of a SelfRewardingRun."""

    observed_generation: int = 0
    """Generation of the spec the operator acted on."""
    phase: RunPhase = "Pending"
    """For people; machines read conditions."""
    current_model: Token = ""
    """Latest finished model."""
    iteration: int = 0
    """0 while the bootstrap runs; t while M_{t+1} is being made."""
    stage: Token = ""
    """Running stage."""
    started_at: Time | None = None
    """When the first Job was created; from then on some fields are immutable."""
    finished_at: Time | None = None
    """When the run succeeded."""
    progress: ProgressStatus = ProgressStatus()
    """Progress."""
    retry_token: Token = ""
    """Value of the annotation selfrewarding.dev/retry that was answered last."""
    preflight: PreflightStatus = PreflightStatus()
    """Preflight, with its attempts in `preflightStage`."""
    storage: Storage | None = None
    """Where artifacts lie, and what the fields mean that spec.storage leaves out; fixed once the run has started."""
    preflight_stage: StageStatus | None = None
    """Attempts of the preflight Job."""
    report: ReportStatus = ReportStatus()
    """The report, with the attempts of its Job in `reportStage`."""
    report_stage: StageStatus | None = None
    """Attempts of the report Job."""
    cleanup_stage: StageStatus | None = None
    """Attempts of the clean-up Job."""
    models: Annotated[tuple[ModelStatus, ...], Field(max_length=MAX_ITERATIONS + 1)] = ()
    """Finished models, oldest first."""
    iterations: Annotated[tuple[IterationStatus, ...], Field(max_length=MAX_ITERATIONS + 1)] = ()
    """All models with their stages and figures."""
    baselines: Annotated[tuple[BaselineStatus, ...], Field(max_length=2)] = ()
    """What evaluation.baselines asks for, with its figures."""
    gpu_seconds: float = 0
    """GPU-seconds spent."""
    tokens: int = 0
    """Tokens spent: generated, read for a score, or trained on."""
    conditions: Annotated[tuple[Condition, ...], Field(max_length=8)] = ()
    """Ready, Reconciling, Stalled, Suspended."""

    @property
    def measured(self) -> tuple[BaselineStatus | IterationStatus, ...]:
        """The columns of a table of figures: what M1 is measured against, then all models."""
        return (*self.baselines, *self.iterations)

    @property
    def started(self) -> bool:
        """Whether a stage other than preflight has begun: from then on some fields are immutable."""
        return any(stage.state != "Pending" for iteration in self.iterations for stage in iteration.stages)
