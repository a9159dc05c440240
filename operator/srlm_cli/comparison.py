"""Runs side by side: settings that differ, figures of each model, artifacts they share. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from srlm_contract.figures import FIGURES, NOTHING
from srlm_contract.status import IterationMetrics, IterationStatus, StageStatus
from srlm_operator.values import Run


@dataclass(frozen=True)
class Setting:
    """A field of the spec, or a revision that preflight has pinned, in which the runs differ."""

    path: str
    values: tuple[Any, ...]
    """One a run; None where it is absent."""


@dataclass(frozen=True)
class Shared:
    """An artifact that several runs have."""

    model: str
    stage: StageStatus
    runs: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """At least one run, in the order in which a person names them."""

    runs: tuple[Run, ...]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """What tells the runs apart: the namespace too where it must."""
        bare = [run.name for run in self.runs]
        unique = len(set(bare)) == len(bare)
        return tuple(bare if unique else (f"{run.namespace}/{run.name}" for run in self.runs))

    @cached_property
    def settings(self) -> tuple[Setting, ...]:
        """Those that differ, in the order of the spec, defaults included; then what preflight has pinned."""
        flat = [dict(_settings(run)) for run in self.runs]
        paths = dict.fromkeys(path for found in flat for path in found)
        rows = (Setting(path, tuple(found.get(path) for found in flat)) for path in paths)
        return tuple(row for row in rows if any(value != row.values[0] for value in row.values))

    @cached_property
    def models(self) -> tuple[str, ...]:
        """Names of the models that at least one run has begun: baselines, then M1 and those after it."""
        baselines = dict.fromkeys(found.name for run in self.runs for found in run.status.baselines)
        return (*baselines, *self.trained)

    @cached_property
    def trained(self) -> tuple[str, ...]:
        """Those that iterations make, M1 first."""
        longest = max((run.status.iterations for run in self.runs), key=len)
        return tuple(iteration.name for iteration in longest)

    def iterations(self, model: str) -> tuple[IterationStatus, ...]:
        """What each run notes about a model; an empty record where it has none."""
        nothing = IterationStatus(name=model)
        return tuple(next((found for found in _records(run) if found.name == model), nothing) for run in self.runs)

    def figures(self, model: str) -> list[tuple[str, ...]]:
        """Label and a cell a run for every figure that one of the runs has."""
        metrics: list[IterationMetrics] = [found.metrics for found in self.iterations(model)]
        rows = [(figure.label, *(figure.show(one) for one in metrics)) for figure in FIGURES]
        return [row for row in rows if any(cell != NOTHING for cell in row[1:])]

    @cached_property
    def shared(self) -> tuple[Shared, ...]:
        """Artifacts that more than one run has, by model and stage. Status keeps the stages of the last models only."""
        found: dict[tuple[str, str, str, str], list[tuple[str, StageStatus]]] = {}
        for model in self.models:
            for name, iteration in zip(self.names, self.iterations(model), strict=True):
                for stage in _committed(iteration):
                    place = (model, stage.name, stage.key, stage.content_digest)
                    found.setdefault(place, []).append((name, stage))
        return tuple(
            Shared(model, owners[0][1], tuple(name for name, _ in owners))
            for (model, *_), owners in found.items()
            if len(owners) > 1
        )

    def shared_counts(self, model: str) -> tuple[str, ...]:
        """`4 of 7` for each run: how many of its artifacts of this model another run has too."""
        cells = []
        for name, iteration in zip(self.names, self.iterations(model), strict=True):
            number = sum(one.model == model and name in one.runs for one in self.shared)
            committed = len(list(_committed(iteration)))
            cells.append(f"{number} of {committed}" if committed else NOTHING)
        return tuple(cells)

    def shared_lines(self) -> Iterator[tuple[str, str, str]]:
        """Model, stages, runs: stages that the same runs share in one line."""
        for model in self.models:
            groups: dict[tuple[str, ...], list[str]] = {}
            for one in self.shared:
                if one.model == model:
                    groups.setdefault(one.runs, []).append(one.stage.name)
            for runs, stages in groups.items():
                yield model, ", ".join(stages), ", ".join(runs)

    def wire(self) -> dict[str, Any]:
        """For programs; see operator/README.md."""
        return {
            "runs": [
                {
                    "namespace": run.namespace,
                    "name": run.name,
                    "phase": run.status.phase,
                    "percent": run.status.progress.percent,
                    "models": {found.name: _model(found) for found in _records(run)},
                }
                for run in self.runs
            ],
            "settings": [{"path": row.path, "values": list(row.values)} for row in self.settings],
            "shared": [
                {"model": one.model, "stage": one.stage.name, "key": one.stage.key, "runs": list(one.runs)}
                for one in self.shared
            ],
        }


def _records(run: Run) -> tuple[IterationStatus, ...]:
    """Of all models; a baseline's has no stages of its own."""
    baselines = (IterationStatus(name=found.name, metrics=found.metrics) for found in run.status.baselines)
    return (*baselines, *run.status.iterations)


def _settings(run: Run) -> Iterator[tuple[str, Any]]:
    if run.spec is not None:
        yield from _leaves(run.spec.wire())
    if run.status.preflight.pins is not None:
        yield from _leaves(run.status.preflight.pins.wire(), "pinned.")


def _leaves(value: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Path and value of everything that is no mapping."""
    for name, child in value.items():
        if isinstance(child, Mapping):
            yield from _leaves(child, f"{path}{name}.")
        else:
            yield path + name, child


def _committed(iteration: IterationStatus) -> Iterator[StageStatus]:
    return (stage for stage in iteration.stages if stage.state == "Succeeded" and stage.content_digest)


def _model(iteration: IterationStatus) -> dict[str, Any]:
    return {
        "figures": iteration.metrics.wire(),
        "artifacts": {
            stage.name: {"stage": stage.stage, "key": stage.key, "contentDigest": stage.content_digest}
            for stage in _committed(iteration)
        },
    }


def rows(found: Comparison) -> Sequence[tuple[str, str, tuple[Any, ...]]]:
    """Part, name and a value a run, for a spreadsheet: settings, then figures and artifact keys of each model."""
    table: list[tuple[str, str, tuple[Any, ...]]] = [("settings", row.path, row.values) for row in found.settings]
    for model in found.models:
        iterations = found.iterations(model)
        figures = [
            (IterationMetrics.model_fields[figure.name].alias or figure.name, figure.value) for figure in FIGURES
        ]
        for name, value in figures:
            values = tuple(value(iteration.metrics) for iteration in iterations)
            if any(one is not None for one in values):
                table.append((model, name, values))
        keys = [{stage.name: stage.key for stage in _committed(iteration)} for iteration in iterations]
        for name in dict.fromkeys(name for one in keys for name in one):
            table.append((model, f"artifact {name}", tuple(one.get(name) for one in keys)))
    return table
