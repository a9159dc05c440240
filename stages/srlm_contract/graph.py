"""The stage graph of a run: which nodes there are, what each reads, and its key.

Pure: the same spec, pins and outcomes give the same graph. The operator walks it to decide what comes next,
`preflight` walks it to find what is committed already.

Iteration 0 is the bootstrap and gives M1; iteration t reads M_t and gives M_{t+1}. A node is named
`<iteration>/<name>`. Further rounds of an iteration (minimum yield) add `-r2`, `-r3` to the names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from srlm_contract.spec.loop import ExternalJudgeSpec, ShadowScorerSpec
from srlm_contract.spec.run import RunSpec

from .keys import artifact_key
from .params import (
    baseline_params,
    choose_params,
    data_params,
    evaluate_params,
    generate_params,
    judge_params,
    pairs_params,
    prompts_params,
    sft_params,
    train_params,
)
from .rows import ROW_SCHEMA
from .stages import BASELINES, STAGES, StageName
from .tasks import ArtifactRef, Params, Pins, SelectParams, SourceRef


class NodeId(str):
    """Names a node of the graph: `1/judge-heldout`.

    On the wire, in keys of mappings and in messages it is that string; it is made and taken apart here alone.
    """

    __slots__ = ("iteration", "name")
    iteration: int
    name: str

    def __new__(cls, iteration: int, name: str) -> Self:
        made = super().__new__(cls, f"{iteration}/{name}")
        made.iteration, made.name = iteration, name
        return made

    def __getnewargs__(self) -> tuple[int, str]:  # type: ignore[override]  # copies are made as this is made
        return self.iteration, self.name

    @classmethod
    def parse(cls, text: str) -> Self:
        """The id that a stage wrote down. Raises ValueError."""
        iteration, _, name = text.partition("/")
        return cls(int(iteration), name)

    @property
    def stage(self) -> str:
        """Stage of the node: names are that of the stage, some with a suffix such as `-heldout` or `-r2`."""
        return self.name.partition("-")[0]


@dataclass(frozen=True)
class Outcome:
    """What is known of a committed node."""

    key: str
    content_digest: str
    statistics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Handle:
    """Where a model comes from: a node of this run, another run's artifact, or outside."""

    node: NodeId | None = None
    artifact: ArtifactRef | None = None
    source: SourceRef | None = None


@dataclass(frozen=True)
class Node:
    """One stage of one iteration."""

    iteration: int
    name: str
    stage: StageName
    params: Params
    inputs: Mapping[str, NodeId] = field(default_factory=dict)
    """By input name."""
    artifacts: Mapping[str, ArtifactRef] = field(default_factory=dict)
    """Input name → artifact of another run."""
    sources: Mapping[str, SourceRef] = field(default_factory=dict)
    """Name → outside source."""
    shards: int = 1
    round: int = 1
    image: str = ""

    @property
    def id(self) -> NodeId:
        return NodeId(self.iteration, self.name)


#: What most other nodes read.
DATA = NodeId(0, "data")


def model_name(iteration: int) -> str:
    """The model an iteration gives: M1 from the bootstrap."""
    return f"M{iteration + 1}"


def model_node(spec: RunSpec, iteration: int) -> NodeId | None:
    """Node that makes the model of an iteration; None when M1 comes from outside."""
    if iteration == 0:
        outside = spec.bootstrap.strategy == "None" or bool(spec.branch_from.run)
        return None if outside else NodeId(0, "sft")
    return NodeId(iteration, "choose" if spec.training.choose.enabled else "train")


def node_key(node: Node, outcomes: Mapping[str, Outcome], seed: int, revision: int | None = None) -> str | None:
    """Key of a node, or None while an input is not committed. `revision` defaults to the current one."""
    digests: dict[str, str] = {}
    for name, node_id in node.inputs.items():
        outcome = outcomes.get(node_id)
        if outcome is None:
            return None
        digests[name] = outcome.content_digest
    digests |= {name: ref.content_digest for name, ref in node.artifacts.items()}
    digests |= {name: source_identity(source) for name, source in node.sources.items()}
    parameters = node.params.wire(defaults=False) | {"iteration": node.iteration, "rows": ROW_SCHEMA}
    # `judge-heldout` and `judge` differ by params; two rounds differ by round.
    if node.round > 1:
        parameters["round"] = node.round
    if node.image:
        parameters["image"] = node.image
    return artifact_key(node.stage, revision or STAGES[node.stage].revision, parameters, digests, seed)


def source_identity(source: SourceRef) -> str:
    """What names an outside source in a key: its content digest, or its place and revision."""
    place = f"{source.uri}#{source.file}" if source.file else source.uri
    return source.revision if source.revision.startswith("sha256:") else f"{place}@{source.revision}"


def graph(
    spec: RunSpec,
    pins: Pins,
    outcomes: Mapping[str, Outcome],
    branch: ArtifactRef | None = None,
) -> tuple[Node, ...]:
    """All nodes of the run in an order in which each comes after its inputs.

    outcomes: what is committed, by node id: decides only how many rounds an iteration has.
    branch: the artifact of `branchFrom`, resolved by the caller.
    """
    return _Builder(spec, pins, outcomes, branch).build()


class _Builder:
    def __init__(self, spec: RunSpec, pins: Pins, outcomes: Mapping[str, Outcome], branch: ArtifactRef | None) -> None:
        self.spec, self.pins, self.outcomes, self.branch = spec, pins, outcomes, branch
        self.nodes: list[Node] = []
        self.models: list[Handle] = []
        self.prompt_nodes: list[NodeId] = []
        self.eft: NodeId | None = None
        self.ift: NodeId | None = None

    def build(self) -> tuple[Node, ...]:
        self.bootstrap()
        for iteration in range(1, self.spec.iterations + 1):
            self.iterate(iteration)
        return tuple(self.nodes)

    def add(
        self,
        iteration: int,
        name: str,
        stage: StageName,
        params: Params,
        inputs: Mapping[str, NodeId] | None = None,
        models: Mapping[str, Handle] | None = None,
        sources: Mapping[str, SourceRef] | None = None,
        shards: int = 1,
        round: int = 1,
    ) -> NodeId:
        models = models or {}
        node = Node(
            iteration=iteration,
            name=name,
            stage=stage,
            params=params,
            inputs={**(inputs or {}), **{n: h.node for n, h in models.items() if h.node}},
            artifacts={n: h.artifact for n, h in models.items() if h.artifact},
            sources={**(sources or {}), **{n: h.source for n, h in models.items() if h.source}},
            shards=shards,
            round=round,
            image=getattr(self.spec.stages, stage).image,
        )
        self.nodes.append(node)
        return node.id

    def bootstrap(self) -> None:
        spec, pins = self.spec, self.pins
        tokenizer = {"tokenizer": pins.base_model} if spec.seed_data.ift.max_answer_tokens else {}
        self.add(0, "data", "data", data_params(spec), sources={"seedData": pins.seed_data, **tokenizer})
        base = Handle(source=pins.base_model)
        if self.branch is not None:
            first = Handle(artifact=self.branch)
        elif spec.bootstrap.strategy == "None":
            first = base
        else:
            first = Handle(node=self.supervised(base))
        self.models.append(first)
        self.evaluation(0)
        if first.node is not None:
            self.baselines(base)

    def supervised(self, base: Handle) -> NodeId:
        spec, pins = self.spec, self.pins
        data = {"data": DATA}
        if spec.seed_data.eft.enabled:
            ift = self.ift = self.add(0, "sft-ift", "sft", sft_params(spec, pins), data, {"model": base})
            # The model's own verdict texts are what it learns from, whoever judges and compares later.
            own = {"scorer": "Sampled", "external": ExternalJudgeSpec(), "shadow_scorer": ShadowScorerSpec()}
            params = judge_params(spec, pins, "ranked-train").model_copy(update=own)
            ranked = self.add(
                0, "judge-ranked", "judge", params, data,
                {"model": Handle(node=ift)}, shards=spec.judging.shards,
            )  # fmt: skip
            select = SelectParams(eft=spec.seed_data.eft, rubric=pins.rubric)
            self.eft = self.add(0, "select", "select", select, {"judgements": ranked})
            data = {**data, "eft": self.eft}
        return self.add(0, "sft", "sft", sft_params(spec, pins), data, {"model": base})

    def iterate(self, t: int) -> None:
        spec = self.spec
        model = {"model": self.models[-1]}
        judgements: dict[str, NodeId] = {}
        for r in range(1, self.rounds(t) + 1):
            suffix = f"-r{r}" if r > 1 else ""
            earlier = {f"earlier-{i}": node for i, node in enumerate(self.prompt_nodes, 1)}
            source = spec.prompts.generator.source
            writer = model if source == "Current" else {}
            outside = {}
            if source != "Current" and self.pins.prompt_source is not None:
                outside = {"model" if source == "Fixed" else "pool": self.pins.prompt_source}
            prompts = self.add(
                t, f"prompts{suffix}", "prompts", prompts_params(spec, self.pins),
                {"data": DATA, **earlier}, writer, outside, round=r,
            )  # fmt: skip
            self.prompt_nodes.append(prompts)
            generate = self.add(
                t, f"generate{suffix}", "generate", generate_params(spec, self.pins),
                {"prompts": prompts}, model, shards=spec.generation.shards, round=r,
            )  # fmt: skip
            judge_model = {} if spec.judging.external.url else model
            judgements[f"judgements-{r}"] = self.add(
                t, f"judge{suffix}", "judge", judge_params(spec, self.pins, "candidates"),
                {"candidates": generate}, judge_model, shards=spec.judging.shards, round=r,
            )  # fmt: skip
            pairs = self.add(t, f"pairs{suffix}", "pairs", pairs_params(spec, t, r), dict(judgements), round=r)
        trained = self.train(t, pairs)
        self.models.append(Handle(node=trained))
        self.evaluation(t)

    def rounds(self, t: int) -> int:
        """Rounds of iteration t: one more while the pairs committed so far fall short."""
        want = self.spec.preferences.min_yield
        r = 1
        while r < want.max_rounds:
            done = self.outcomes.get(NodeId(t, "pairs" + (f"-r{r}" if r > 1 else "")))
            if done is None or done.statistics.get("pairs", 0) >= want.pairs:
                break
            r += 1
        return r

    def train(self, t: int, pairs: NodeId) -> NodeId:
        spec = self.spec
        training = spec.training
        positive = spec.preferences.strategy == "PositiveOnly"
        start = self.models[-1] if training.start_from == "Previous" else self.models[0]
        models = {"model": start}
        if training.reference == "Bootstrap" and not positive and start != self.models[0]:
            models["reference"] = self.models[0]
        inputs = {"pairs": pairs}
        if positive and spec.preferences.positives.include_seed:
            inputs |= {"data": DATA} | ({"eft": self.eft} if self.eft else {})
        trained = self.add(t, "train", "train", train_params(spec, self.pins), inputs, models)
        if not training.choose.enabled:
            return trained
        return self.add(
            t, "choose", "choose", choose_params(spec, self.pins),
            {"data": DATA, "train": trained}, {"judge": self.models[-1]},
        )  # fmt: skip

    def evaluation(self, t: int) -> None:
        """M_{t+1} judges the held-out human rankings and meets every earlier model."""
        spec = self.spec
        if not spec.evaluation.enabled:
            return
        name = model_name(t)
        model = self.models[-1]
        inputs = {"data": DATA}
        if spec.seed_data.eft.held_out_examples:
            judge_model = {} if spec.judging.external.url else {"model": model}
            inputs["judgements"] = self.add(
                t, "judge-heldout", "judge", judge_params(spec, self.pins, "ranked-heldout"),
                {"data": DATA}, judge_model, shards=spec.judging.shards,
            )  # fmt: skip
        opponents = tuple(model_name(i) for i in range(t)) if spec.evaluation.win_rate.prompts else ()
        inputs |= {f"answers-{model_name(i)}": NodeId(i, "evaluate") for i in range(t) if opponents}
        params = evaluate_params(spec, self.pins, name, opponents)
        models, sources = self.win_rate_judge(model) if opponents or params.people else ({}, {})
        self.add(t, "evaluate", "evaluate", params, inputs, {"model": model, **models}, sources)

    def win_rate_judge(self, newest: Handle) -> tuple[dict[str, Handle], dict[str, SourceRef]]:
        """(models, sources) that compare answers; none where the judge is external. newest: of those compared."""
        judge = self.spec.evaluation.win_rate.judge.source
        if judge == "Fixed" and self.pins.judge_source is not None:
            return {}, {"judge": self.pins.judge_source}
        if judge in ("Bootstrap", "Current"):
            return {"judge": self.models[0] if judge == "Bootstrap" else newest}, {}
        return {}, {}

    def baselines(self, base: Handle) -> None:
        """M0 and the SFT baseline beside M1: stages of their own, so that M1's own evaluation stays what it is."""
        spec = self.spec
        models = {"M0": base} | ({"SFT": Handle(node=self.ift)} if self.ift is not None else {})
        for node, name in BASELINES.items():
            if not spec.evaluation.enabled or name not in spec.evaluation.baselines or name not in models:
                continue
            params = baseline_params(spec, self.pins, name)
            answers = {"answers-M1": NodeId(0, "evaluate")} if params.opponents else {}
            judge, sources = self.win_rate_judge(self.models[0]) if params.opponents else ({}, {})
            self.add(0, node, "evaluate", params, {"data": DATA, **answers}, {"model": models[name], **judge}, sources)
