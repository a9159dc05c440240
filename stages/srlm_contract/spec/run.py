"""`SelfRewardingRun.spec`: every section with its default. The CRD is generated from these models."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from srlm_contract.base import Contract, ObjectName
from srlm_contract.gpus import batch_rule, process_rule
from srlm_contract.spec.data import BaseModelSpec, SeedDataSpec
from srlm_contract.spec.evaluation import EvaluationSpec
from srlm_contract.spec.loop import GenerationSpec, JudgingSpec, PreferencesSpec, PromptsSpec
from srlm_contract.spec.marks import PreflightIgnores
from srlm_contract.spec.pods import StagesSpec
from srlm_contract.spec.policy import (
    MAX_ITERATIONS,
    BranchSpec,
    BudgetSpec,
    FailurePolicySpec,
    GatesSpec,
    SchedulingSpec,
)
from srlm_contract.spec.references import FREE_FORM, rules
from srlm_contract.spec.storage import StorageSpec
from srlm_contract.spec.tracking import TrackingSpec
from srlm_contract.spec.training import BootstrapSpec, TrainingSpec


class RunSpec(Contract):
    """One Self-Rewarding run: M0 to M_{iterations + 1}."""

    model_config = rules(
        (
            ".bootstrap.strategy",
            "!has(self.branchFrom) || !has(self.branchFrom.run) || self.bootstrap.strategy == 'SupervisedFineTuning'",
            "branchFrom replaces the bootstrap: leave out bootstrap.strategy None",
        ),
        (
            ".evaluation.winRate.judge.source",
            "self.evaluation.winRate.judge.source != 'External'"
            " || (has(self.judging.external) && has(self.judging.external.url))",
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
            "at temperature 0 all candidates of a prompt are equal: set generation.sampling.temperature above 0",
        ),
        (
            ".gates.minPairs",
            "self.preferences.strategy != 'PreferencePairs' || self.gates.onFailure == 'Continue'"
            " || self.gates.minPairs <= self.prompts.count * self.preferences.minYield.maxRounds",
            "a prompt gives at most one pair, so gates.minPairs can never be reached: lower it to"
            " prompts.count times preferences.minYield.maxRounds or less",
        ),
        (
            ".preferences.minYield.pairs",
            "self.preferences.minYield.pairs == 0"
            " || self.preferences.minYield.pairs <= self.prompts.count * self.preferences.minYield.maxRounds",
            "a prompt gives at most one pair, so minYield.pairs can never be reached: lower it to"
            " prompts.count times minYield.maxRounds or less",
        ),
        (
            ".gates.minJudgeAccuracy",
            "!has(self.gates.minJudgeAccuracy) || (self.evaluation.enabled && self.seedData.eft.heldOutExamples > 0)",
            "gates.minJudgeAccuracy needs evaluation.enabled and seedData.eft.heldOutExamples above 0",
        ),
        (
            ".gates.minWinRate",
            "!has(self.gates.minWinRate) || (self.evaluation.enabled && self.evaluation.winRate.prompts > 0)",
            "gates.minWinRate needs evaluation.enabled and evaluation.winRate.prompts above 0",
        ),
        batch_rule("training.dpo.batchSize", "train"),
        batch_rule("bootstrap.sft.batchSize", "sft"),
        process_rule("train"),
        process_rule("sft"),
    )

    base_model: BaseModelSpec
    """M0: the model everything starts from."""
    iterations: Annotated[int, Field(ge=1, le=MAX_ITERATIONS)] = 2
    """DPO rounds after M1: 2 gives M2 and M3. May be raised on a finished run."""
    seed: Annotated[int, Field(ge=0, le=2147483647)] = 0
    """Seed of everything random."""
    managed_by: (
        Annotated[
            str, Field(max_length=63, pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?/[A-Za-z0-9._-]+$"), PreflightIgnores()
        ]
        | None
    ) = None
    """Who carries out the run, as in a Job: omit, or selfrewarding.dev/self-rewarding-operator, for this operator; it
    leaves all others alone, such as kueue.x-k8s.io/multikueue, which dispatches whole runs. Cannot be changed."""
    suspend: Annotated[bool, PreflightIgnores()] = False
    """Stop the running Job and start nothing; what is committed stays."""
    storage: StorageSpec = StorageSpec()
    """The S3 location where artifacts live: every Job of the run reads and writes there."""
    seed_data: SeedDataSpec
    """Human-written and human-ranked data: what M1 learns from and what its judgement is measured by."""
    bootstrap: BootstrapSpec = BootstrapSpec()
    """How M1 comes to be."""
    branch_from: BranchSpec = BranchSpec()
    """Start at another run's model instead of a bootstrap."""
    prompts: PromptsSpec = PromptsSpec()
    """How new prompts are written in every iteration."""
    generation: GenerationSpec = GenerationSpec()
    """How candidate answers are generated in every iteration."""
    judging: JudgingSpec = JudgingSpec()
    """How answers are scored: LLM-as-a-Judge."""
    preferences: PreferencesSpec = PreferencesSpec()
    """How judgements become preference pairs."""
    training: TrainingSpec = TrainingSpec()
    """How models are trained on them."""
    evaluation: EvaluationSpec = EvaluationSpec()
    """What is measured after every iteration."""
    tracking: TrackingSpec = TrackingSpec()
    """Experiment trackers that are told the curves of every training and the figures of every iteration."""
    gates: Annotated[GatesSpec, PreflightIgnores()] = GatesSpec()
    """What must hold after an iteration for the run to go on."""
    budget: Annotated[BudgetSpec, PreflightIgnores()] = BudgetSpec()
    """What the run may spend; it stops when it is spent."""
    failure_policy: Annotated[FailurePolicySpec, PreflightIgnores()] = FailurePolicySpec()
    """How often and how patiently stages are tried again."""
    scheduling: Annotated[SchedulingSpec, PreflightIgnores()] = SchedulingSpec()
    """Queue and priority of the Jobs."""
    service_account_name: Annotated[ObjectName, Field()] | None = None
    """Service account of the stage pods (workload identity); omit for the namespace's default."""
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=31536000), PreflightIgnores()] = 86400
    """Seconds that finished Jobs are kept; artifacts follow storage.retention."""
    pod_template: Annotated[dict[str, Any], Field(json_schema_extra=FREE_FORM), PreflightIgnores()] = {}
    """Strategic merge patch for the pod template of all stages."""
    gpu_pod_template: Annotated[dict[str, Any], Field(json_schema_extra=FREE_FORM), PreflightIgnores()] = {}
    """The same for those pods that ask for GPUs, after podTemplate: tolerations, runtimeClassName, network devices."""
    stages: StagesSpec = StagesSpec()
    """How the pods of each stage look: image, resources, engine, pod template."""
