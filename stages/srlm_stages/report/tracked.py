"""What the report tells trackers: the figures of all models, and the curves of all trainings.

A training tells its curve itself. Here come those that ran before the tracker was asked for, elsewhere, or while it
was down; a tracker takes of a curve what it does not have.
"""

from __future__ import annotations

from collections.abc import Iterator

from srlm_contract.stages import TRAINERS

from ..context import StageContext
from ..tracking.sending import Sending
from ..tracking.tracker import Row, Sender, Series, State
from ..tracking.trackers import settings_of, trackers
from .collect import Collected
from .figures import Figures, ModelFigures

_STATES: dict[str, State] = {"Succeeded": "Succeeded", "Failed": "Failed"}


def track(ctx: StageContext, found: Collected, figures: Figures) -> None:
    """Tell the trackers of the run; warns of those that have not got everything."""
    if not found.spec.tracking.wanted:
        return
    told = trackers(found.spec.tracking, Sender(found.run, ctx.store, ctx.work, ctx.environ))
    if _trains(found):  # and tells Weights & Biases, which takes one process at a time
        told = [tracker for tracker in told if tracker.name != "tracking.wandb"]
    sending = Sending(told, ctx.progress.say, ctx.environ)
    for series, rows in (*curves(found), *model_figures(figures)):
        sending.add(series, *rows)
    sending.describe(settings_of(found.spec), _STATES.get(found.status.phase, "Running"))
    for warning in sending.close():
        ctx.warn(warning)


def curves(found: Collected) -> Iterator[tuple[Series, list[Row]]]:
    """Of every training that is done: its steps."""
    for stage in found.stages:
        if stage.stage not in TRAINERS or stage.manifest is None:
            continue
        steps = stage.statistics.get("series")
        rows = [_numbers(step) for step in steps] if isinstance(steps, list) else []
        yield Series.of_training(stage.iteration, stage.name, stage.key), [row for row in rows if "step" in row]


def model_figures(figures: Figures) -> Iterator[tuple[Series, list[Row]]]:
    """Of all models: the figures that status has, with the number of the model as their step."""
    yield Series("figures"), [_figures(model, model.iteration + 1) for model in figures.models]
    for model in figures.baselines:
        yield Series(f"figures-{model.name}"), [_figures(model, 0)]


def _figures(model: ModelFigures, step: int) -> Row:
    return _numbers(model.metrics.wire()) | {"step": float(step)}


def _numbers(values: object) -> dict[str, float]:
    if not isinstance(values, dict):
        return {}
    return {
        str(name): float(value)
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _trains(found: Collected) -> bool:
    return any(s.stage in TRAINERS and s.record is not None and s.record.state == "Running" for s in found.stages)
