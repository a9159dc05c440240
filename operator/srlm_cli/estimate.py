"""What a run would do, before it runs: stages, Jobs, pods, GPUs, and at most how many tokens and GPU-hours. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from srlm_contract.graph import Node, NodeId, Outcome, graph
from srlm_contract.scorers import SCORERS
from srlm_contract.sizing import answering_gpu_seconds, training_gpu_seconds
from srlm_contract.spec.run import RunSpec
from srlm_contract.stages import INFERENCE
from srlm_contract.status import RunStatus, StageStatus
from srlm_contract.tasks import (
    ArtifactRef,
    EvaluateParams,
    GenerateParams,
    JudgeParams,
    Link,
    Pins,
    PreflightParams,
    PromptsParams,
    ReportParams,
    SftParams,
    SourceRef,
    TrainParams,
)
from srlm_operator.cluster.views import with_storage
from srlm_operator.jobs.job import Work, render
from srlm_operator.jobs.resources import gpus_of
from srlm_operator.plan.chains import chain_of
from srlm_operator.plan.report_task import report_deadline, without_pod_templates
from srlm_operator.plan.resolve import Resolved
from srlm_operator.plan.world import World
from srlm_operator.settings import Settings
from srlm_operator.values import Manifest, Observed, Run

UNKNOWN = "unknown"


@dataclass(frozen=True)
class PlannedStage:
    """One stage of the plan, with the Job that does it alone."""

    iteration: int
    name: str
    stage: str
    pods: int
    gpus: float
    """Over all pods."""
    tokens: int | None
    """How many tokens are generated at most; 0 for stages that generate none, None where only the data tell."""
    trained: int
    """How many tokens are trained on at most; 0 for other stages."""
    manifest: Manifest
    job: str = ""
    """Node of the Job that does it behind its own stage; empty where it has a Job of its own."""

    def gpu_seconds(self, parameters: float, spec: RunSpec) -> float | None:
        """GPU time for a model of that many parameters, at the rates of srlm_contract.sizing; None where only the data
        tell. Starts of engines and reading of prompts are not counted."""
        if not self.gpus:
            return 0.0
        if self.tokens is None:
            return None
        trained = training_gpu_seconds(parameters, self.trained, spec.training.gradient_checkpointing is not False)
        return trained + answering_gpu_seconds(parameters, self.tokens)


def planned_stages(namespace: str, name: str, spec: RunSpec, settings: Settings) -> list[PlannedStage]:
    """Every stage of the run in order, each with its Job.

    Keys and digests are those of a preflight that has not run: shown as `unknown`, as is the storage of a run that
    names none where `settings` have no default. Rounds for a minimum yield are counted once. Raises
    InvalidPodTemplate.
    """
    spec, basis = with_storage(spec, RunStatus(), namespace, settings)
    if basis is None:
        spec = spec.model_copy(update={"storage": spec.storage.model_copy(update={"uri": UNKNOWN})})
    pins = Pins(base_model=_source(spec.base_model.uri), seed_data=_source(spec.seed_data.uri, spec.seed_data.file))
    if spec.prompts.generator.uri:
        pins = pins.model_copy(update={"prompt_source": _source(spec.prompts.generator.uri)})
    if spec.evaluation.win_rate.judge.uri:
        pins = pins.model_copy(update={"judge_source": _source(spec.evaluation.win_rate.judge.uri)})
    branch = ArtifactRef(stage="sft", key=UNKNOWN, content_digest=UNKNOWN) if spec.branch_from.run else None
    nodes = graph(spec, pins, {}, branch)
    run = Run(
        namespace=namespace, name=name, uid="00000000-0000-0000-0000-000000000000", generation=1,
        resource_version="", spec=spec, spec_error="", status=RunStatus(), stored_status={},
    )  # fmt: skip
    preflight = Work(0, "preflight", "preflight", UNKNOWN, PreflightParams(spec=spec, branch=branch))
    stages = {node.id: node for node in nodes}
    told = ReportParams(spec=without_pod_templates(spec), pins=pins, branch=branch)
    report = Work(0, "report", "report", UNKNOWN, told, deadline_seconds=report_deadline(spec))
    chains = _chains(World(run, spec, Observed(), datetime.now(UTC), settings), nodes)
    jobs = {NodeId(link.iteration, link.node): lead for lead, links in chains.items() for link in links}
    works = [replace(_work(node, stages), chain=chains.get(node.id, ())) for node in nodes]
    return [
        replace(_planned(run, spec, work, settings), job=jobs.get(work.id, "")) for work in (preflight, *works, report)
    ]


def _chains(world: World, nodes: tuple[Node, ...]) -> dict[NodeId, tuple[Link, ...]]:
    """What every Job does behind its own stage when all goes well; by node of the Job."""
    found: dict[NodeId, tuple[Link, ...]] = {}
    done: dict[str, Outcome] = {}
    for node in nodes:
        if node.id in done:
            continue
        record = StageStatus(name=node.name, stage=node.stage, state="Pending", shards=node.shards)
        found[node.id] = chain_of(world, Resolved(nodes, outcomes=dict(done)), {}, node, record)
        ids = (node.id, *(NodeId(link.iteration, link.node) for link in found[node.id]))
        done |= dict.fromkeys(ids, Outcome(UNKNOWN, UNKNOWN))
    return found


def _source(uri: str, file: str | None = None) -> SourceRef:
    place, _, revision = uri.partition("@")
    return SourceRef(uri=place, revision=revision or UNKNOWN, file=file)


def _work(node: Node, nodes: Mapping[NodeId, Node]) -> Work:
    inputs = dict(node.artifacts)
    for name, source in node.inputs.items():
        inputs[name] = ArtifactRef(stage=nodes[source].stage, key=UNKNOWN, content_digest=UNKNOWN)
    return Work(
        iteration=node.iteration, name=node.name, stage=node.stage, key=UNKNOWN, params=node.params,
        inputs=inputs, sources=node.sources, shards=node.shards, round=node.round,
    )  # fmt: skip


def _planned(run: Run, spec: RunSpec, work: Work, settings: Settings) -> PlannedStage:
    job = render(run, spec, work, 1, (), settings)
    pods: int = job.manifest["spec"]["completions"]
    container = job.manifest["spec"]["template"]["spec"]["containers"][0]
    return PlannedStage(
        iteration=work.iteration,
        name=work.name,
        stage=work.stage,
        pods=pods,
        gpus=pods * gpus_of(container["resources"]),
        tokens=estimated_tokens(work, spec),
        trained=trained_tokens(work, spec),
        manifest=job.manifest,
    )


def trained_tokens(work: Work, spec: RunSpec) -> int:
    """Tokens a stage trains on when all examples are there and each is as long as its limit; a pair is two rows."""
    match work.params:
        case SftParams():
            data = spec.seed_data
            examples = data.ift.max_examples + (data.eft.max_examples if data.eft.enabled else 0)
            sft = spec.bootstrap.sft
            return int(examples * sft.max_length * sft.epochs)
        case TrainParams():
            dpo, rows = spec.training.dpo, 2 if spec.preferences.strategy == "PreferencePairs" else 1
            return int(spec.prompts.count * rows * dpo.max_length * dpo.epochs)
        case _:
            return 0


def estimated_tokens(work: Work, spec: RunSpec) -> int | None:
    """Tokens a stage generates when every answer is as long as its limit and no verdict is asked again.

    None for the verdicts on human-ranked answers (all that the seed data leave for it are judged), for answers of
    training checkpoints, and for any other stage that asks a model and has no case here.
    """
    match work.params:
        case PromptsParams(source="Pool"):
            return 0
        case PromptsParams() as p:
            return p.count * p.sampling.max_tokens
        case GenerateParams() as p:
            return spec.prompts.count * p.candidates * p.sampling.max_tokens
        case JudgeParams(rows="ranked-train"):
            return None
        case JudgeParams() as p:
            return _verdict_tokens(p, spec)
        case EvaluateParams() as p:
            judged = 0 if p.judging is None else _verdict_tokens(p.judging, spec)
            return judged + p.prompts * p.sampling.max_tokens * (1 + 2 * (len(p.opponents) + p.people))
        case _:
            return None if work.stage in INFERENCE else 0


def _verdict_tokens(params: JudgeParams, spec: RunSpec) -> int:
    candidates = spec.prompts.count * spec.generation.candidates
    rows = candidates if params.rows == "candidates" else spec.seed_data.eft.held_out_examples
    scorer = SCORERS[params.scorer]
    return rows * scorer.calls(params.samples) * scorer.tokens(params.sampling.max_tokens)
