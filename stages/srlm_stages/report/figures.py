"""The figures of every model: from manifests and rows, of which some numbers stay in memory and no text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from srlm_contract.errors import ArtifactDamaged
from srlm_contract.figures import baseline_figures, iteration_figures
from srlm_contract.graph import model_name
from srlm_contract.rows import Comparison, Judgement, ValidationAnswer
from srlm_contract.stages import BASELINES, TRAINERS
from srlm_contract.status import IterationMetrics

from ..judging.head_to_head import HeadToHead, by_kind, length_controlled, self_preference
from ..judging.metrics import NOT_MEASURED, Estimate, Share, estimate, spearman
from ..runtime.statistics import figures as numbers
from .collect import Collected, Stage
from .distributions import Distribution

#: The five judge measures (and ties counted half) as evaluate's metrics.json names them.
MEASURES = {
    "pairwise": "pairwise accuracy",
    "pairwiseHalfTies": "pairwise accuracy, ties half",
    "fiveBest": "5-best",
    "exactMatch": "exact match",
    "spearman": "Spearman",
    "kendall": "Kendall tau-b",
}


@dataclass(frozen=True)
class Meeting(HeadToHead):
    """How a model did against an earlier one."""

    opponent: str
    length_controlled: Estimate = NOT_MEASURED
    """Win rate at equal lengths."""
    preference: Estimate = NOT_MEASURED
    """How much oftener the model itself prefers its answer than the judge does."""
    kinds: Mapping[str, HeadToHead] = field(default_factory=dict)
    """By kind of prompt."""

    def turned(self, opponent: str) -> Meeting:
        """The same as the opponent sees it; opponent: whose meeting this is."""
        length = self.length_controlled
        if length.value is not None and length.low is not None and length.high is not None:
            length = replace(length, value=1 - length.value, low=1 - length.high, high=1 - length.low)
        return replace(
            self, wins=self.losses, losses=self.wins, opponent=opponent, length_controlled=length,
            kinds={kind: replace(met, wins=met.losses, losses=met.wins) for kind, met in self.kinds.items()},
        )  # fmt: skip


@dataclass
class ModelFigures:
    """One model: how it judges and answers, and the preference data and training that led to it."""

    name: str
    iteration: int
    metrics: IterationMetrics
    """As in status where status has them; made from the manifests alike where not."""
    judge: dict[str, Estimate] = field(default_factory=dict)
    length_only: dict[str, Estimate] = field(default_factory=dict)
    heldout: dict[str, int] = field(default_factory=dict)
    """Answers, prompts and unscored answers behind the judge measures."""
    against: dict[str, Meeting] = field(default_factory=dict)
    verdicts: dict[str, int] = field(default_factory=dict)
    """Verdicts about candidates by score, on the way to this model."""
    scores: Distribution = field(default_factory=Distribution)
    """Mean scores of the candidates on the way to this model."""
    correlations: list[Share] = field(default_factory=list)
    """Spearman correlation of score and length among the candidates of each prompt, where it is defined."""
    same_scores: list[Share] = field(default_factory=list)
    """Candidates of each prompt whose two scorers are within half a point."""
    heldout_scores: Distribution = field(default_factory=Distribution)
    """What this model gives the held-out human answers."""
    lengths: Distribution = field(default_factory=Distribution)
    """Its answers to the validation prompts, in characters."""
    series: list[dict[str, float]] = field(default_factory=list)
    """Training curves: one entry a logged step."""
    training: Mapping[str, float] = field(default_factory=dict)
    """Plain figures of the training."""

    @property
    def score_length(self) -> Estimate:
        """Mean of `correlations`; n: prompts."""
        return estimate(self.correlations)

    @property
    def shadow(self) -> Estimate:
        """Share of candidates that both scorers score alike; n: candidates."""
        return estimate(self.same_scores)


@dataclass(frozen=True)
class Told:
    """What a stage tells in figures."""

    stage: str
    name: str
    state: str
    statistics: Mapping[str, float]


@dataclass
class Figures:
    """All models in order."""

    models: list[ModelFigures]
    baselines: list[ModelFigures] = field(default_factory=list)
    """Models of no iteration; how they did against M1 stands with M1."""
    judge_name: str = ""
    """Who compares head to head."""
    disagreements: list[str] = field(default_factory=list)
    """Figures that status and manifests state differently."""

    @property
    def everyone(self) -> list[ModelFigures]:
        """What M1 is measured against, then all models."""
        return [*self.baselines, *self.models]

    def get(self, name: str) -> ModelFigures | None:
        return next((m for m in self.models if m.name == name), None)


def measure(found: Collected) -> Figures:
    """Figures of every iteration that has something to show."""
    models = []
    disagreements: list[str] = []
    for iteration in found.iterations:
        stages = [s for s in found.stages if s.iteration == iteration]
        if not any(s.manifest is not None or s.statistics for s in stages):
            continue
        made = iteration_figures(_told(found, iteration), _told(found, iteration - 1))  # as in status
        record = found.record(iteration)
        told = record.metrics if record is not None else IterationMetrics()
        metrics, differing = _merged(told, made)
        disagreements += [f"{model_name(iteration)} {text}" for text in differing]
        models.append(_model(found, iteration, metrics))
    return Figures(models, _baselines(found, models), _judge_name(found), disagreements)


def _baselines(found: Collected, models: list[ModelFigures]) -> list[ModelFigures]:
    """Those of the bootstrap; M1 is told how it did against them."""
    baselines = []
    for node, name in BASELINES.items():
        for stage in found.of(0, "evaluate", node):
            if stage.manifest is None and not stage.statistics:
                continue
            told = Told(stage.stage, stage.name, stage.state, numbers(stage.statistics))
            figures = ModelFigures(name, -1, baseline_figures(told))
            _evaluation(found, stage, figures)
            met = figures.against.pop(model_name(0), None)
            if met is not None and models:
                models[0].against[name] = met.turned(name)
            baselines.append(figures)
    return baselines


def _model(found: Collected, iteration: int, metrics: IterationMetrics) -> ModelFigures:
    figures = ModelFigures(model_name(iteration), iteration, metrics)
    for stage in found.of(iteration, "evaluate"):
        _evaluation(found, stage, figures)
    for stage in found.of(iteration, "judge"):
        for score, count in (stage.statistics.get("scores") or {}).items():
            figures.verdicts[str(score)] = figures.verdicts.get(str(score), 0) + int(count)
        _candidates(found, stage, figures)
    for stage in found.of(iteration, "judge", "judge-heldout"):
        for row in found.rows(stage, "judgements*.jsonl", Judgement):
            figures.heldout_scores.add(row.score, len(row.answer))
    trained = [s for kind in TRAINERS for s in found.of(iteration, kind) if s.manifest is not None]
    if trained:
        statistics = trained[-1].statistics
        figures.series = [dict(step) for step in statistics.get("series") or [] if "step" in step]
        figures.training = {k: float(v) for k, v in statistics.items() if isinstance(v, int | float)}
    return figures


def _candidates(found: Collected, stage: Stage, figures: ModelFigures) -> None:
    scores: dict[str, list[tuple[float, int]]] = {}
    shadow: dict[str, list[bool]] = {}
    for row in found.rows(stage, "judgements*.jsonl", Judgement):
        figures.scores.add(row.score, len(row.answer))
        if row.score is not None:
            scores.setdefault(row.prompt_id, []).append((row.score, -len(row.answer)))
            if row.shadow_score is not None:
                shadow.setdefault(row.prompt_id, []).append(abs(row.score - row.shadow_score) < 0.5)
    correlations = (spearman(*zip(*rows, strict=True)) for rows in scores.values())
    figures.correlations += [(0, 0) if rho is None else (rho, 1) for rho in correlations]
    figures.same_scores += [(sum(rows), len(rows)) for rows in shadow.values()]


def _evaluation(found: Collected, stage: Stage, figures: ModelFigures) -> None:
    metrics = _metrics_file(found, stage)
    judge = metrics.get("judge") or {}
    figures.judge = _estimates(judge.get("scorer"))
    figures.length_only = _estimates(judge.get("lengthOnly"))
    figures.heldout = {name: int(judge[name]) for name in ("answers", "prompts", "unscored") if name in judge}
    told = (metrics.get("headToHead") or {}).get("opponents") or {}
    met: dict[str, list[Comparison]] = {opponent: [] for opponent in told}
    if told:
        for row in found.rows(stage, "comparisons*.jsonl", Comparison):
            met.setdefault(row.opponent, []).append(row)
    for opponent, result in told.items():
        rows = met[opponent]
        figures.against[opponent] = Meeting(
            **{name: int(result[name]) for name in ("wins", "ties", "losses", "unreadable")},
            opponent=opponent,
            length_controlled=length_controlled(rows),
            preference=self_preference(rows),
            kinds=by_kind(rows),
        )
    for answer in found.rows(stage, "answers*.jsonl", ValidationAnswer):
        figures.lengths.add(None, len(answer.answer))


def _estimates(measures: Mapping[str, Mapping[str, Any]] | None) -> dict[str, Estimate]:
    """Fields of an estimate that this version knows; another one may have more."""
    known = [f.name for f in fields(Estimate)]
    return {
        name: Estimate(**{k: value[k] for k in known if k in value})
        for name, value in (measures or {}).items()
        if name in MEASURES
    }


def _metrics_file(found: Collected, stage: Stage) -> dict[str, Any]:
    """metrics.json of an evaluation: exact, with counts and intervals, which statistics do not have."""
    if stage.manifest is None:
        return {}
    try:
        with found.artifacts.temporary_folder() as folder:
            found.artifacts.fetch(stage.manifest.ref, folder, ["metrics.json"])
            metrics: dict[str, Any] = json.loads((folder / "metrics.json").read_bytes())
            return metrics
    except (ArtifactDamaged, ValueError) as error:
        found.problems.append(f"{stage.id}: {error}")
        return {}


def _told(found: Collected, iteration: int) -> list[Told]:
    stages = [s for s in found.stages if s.iteration == iteration]
    return [Told(s.stage, s.name, s.state, numbers(s.statistics)) for s in stages]


def _merged(told: IterationMetrics, made: IterationMetrics) -> tuple[IterationMetrics, list[str]]:
    """(figures of status, missing ones from the manifests; what both have and state differently)."""
    ours = made.model_dump(exclude_none=True)
    theirs = told.model_dump(exclude_none=True)
    differing = [
        f"{name.replace('_', ' ')}: status {theirs[name]:.6g}, manifests {value:.6g}"
        for name, value in ours.items()
        if isinstance(value, int | float) and abs(theirs.get(name, value) - value) > 1e-5 * max(abs(value), 1e-9)
    ]
    return IterationMetrics(**{**ours, **theirs}), differing


def _judge_name(found: Collected) -> str:
    source = found.spec.evaluation.win_rate.judge.source
    uri = found.spec.evaluation.win_rate.judge.uri
    return {
        "Bootstrap": "M1",
        "Current": "the newer of the two models itself",
        "Fixed": f"the fixed model {uri}",
        "External": f"the external judge {found.spec.judging.external.model or ''}".strip(),
    }[source]
