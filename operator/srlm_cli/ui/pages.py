"""The pages as parts of HTML, each of which may change by itself. What anybody wrote is escaped."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from srlm_cli.answers import Samples
from srlm_cli.compare import shown
from srlm_cli.comparison import Comparison
from srlm_cli.listing import row
from srlm_cli.results import doing, duration
from srlm_cli.ui.chart import Chart, Line, draw, numbers
from srlm_cli.ui.loop import lanes
from srlm_cli.ui.source import Series, Source
from srlm_contract.figures import FIGURES, NOTHING, Figure, figure_groups
from srlm_contract.graph import model_name
from srlm_contract.status import RunStatus
from srlm_contract.text import visible
from srlm_operator.errors import OperatorError
from srlm_operator.times import parse
from srlm_operator.values import Run

#: Prompts shown of a run.
SAMPLES = 6
#: Figures that are drawn, in order.
DRAWN = ("win_rate", "judge_accuracy", "mean_score", "parse_rate", "tie_rate", "mean_length", "pairs", "tokens")
#: Figures of training steps that are drawn: name, title, format.
CURVES = (
    ("loss", "Loss", ".3f"),
    ("rewardMargin", "Reward margin", ".3f"),
    ("rewardAccuracy", "Reward accuracy", ".0%"),
    ("gradientNorm", "Gradient norm", ".2f"),
    ("learningRate", "Learning rate", ".1e"),
    ("tokensPerSecond", "Tokens per second in training", ",.0f"),
)

Parts = dict[str, str]
"""HTML of each part by its id."""


@dataclass(frozen=True)
class Page:
    """A page: its title, its parts in order, and how they are made anew."""

    title: str
    parts: Mapping[str, Callable[[], Awaitable[str]]]

    async def render(self) -> Parts:
        """All parts; one that cannot be made says why."""
        return {name: await _told(make) for name, make in self.parts.items()}


async def _told(make: Callable[[], Awaitable[str]]) -> str:
    try:
        return await make()
    except OperatorError as problem:
        return render("problem.html.j2", problem=str(problem))


def finalize(value: Any) -> Any:
    """Applied to everything a template prints: nothing stays invisible, Jinja escapes the rest."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


_ENVIRONMENT = Environment(
    loader=PackageLoader(__package__),
    autoescape=True,
    undefined=StrictUndefined,
    finalize=finalize,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(template: str, **values: Any) -> str:
    """A template of this package with these values."""
    return _ENVIRONMENT.get_template(template).render(**values)


def runs_page(source: Source, now: Callable[[], datetime]) -> Page:
    """All runs, with their state."""

    async def table() -> str:
        found = await source.runs()
        return render("runs.html.j2", runs=[(row(run), _so_far(run, now())) for run in found])

    return Page("Runs", {"runs": table})


def run_page(source: Source, namespace: str, name: str, model: str | None, now: Callable[[], datetime]) -> Page:
    """One run. model: whose answers are shown; of the newest by default."""

    async def part(template: str, **more: Callable[[Run], Any]) -> str:
        found = await source.run(namespace, name)
        made = {key: make(found) for key, make in more.items()}
        return render(template, run=found, status=found.status, **made)

    async def head() -> str:
        return await part("head.html.j2", doing=lambda r: doing(r.status), took=lambda r: _so_far(r, now()))

    async def loop() -> str:
        return await part("loop.html.j2", lanes=lambda r: lanes(r.status, now()))

    async def figures() -> str:
        return await part(
            "figures.html.j2",
            groups=lambda r: figure_groups([iteration.metrics for iteration in r.status.iterations]),
            charts=lambda r: figure_charts(r.status),
        )

    async def training() -> str:
        found = await source.run(namespace, name)
        drawn = [*pace_chart(source, found), *training_charts(await source.training(found))]
        return render("training.html.j2", charts=drawn)

    async def samples() -> str:
        found = await source.run(namespace, name)
        answers = await source.samples(found, model, SAMPLES)
        models = [model_name(number) for number in range(len(found.status.iterations))]
        return render("samples.html.j2", samples=answers, kind=_kind(answers), models=models, chosen=model, run=found)

    title = f"{namespace}/{name}"
    return Page(title, {"head": head, "loop": loop, "figures": figures, "training": training, "answers": samples})


def comparison_page(source: Source, runs: Sequence[tuple[str, str]]) -> Page:
    """Runs side by side, by namespace and name."""

    async def table() -> str:
        found = Comparison(tuple([await source.run(namespace, name) for namespace, name in runs]))
        return render("comparison.html.j2", comparison=found, shown=shown, charts=comparison_charts(found))

    return Page("Comparison", {"comparison": table})


def figure_charts(status: RunStatus) -> list[Chart]:
    """Figures of at least two models, by model."""
    metrics = [iteration.metrics for iteration in status.iterations]
    labels = [iteration.name for iteration in status.iterations]
    found = []
    for figure in _drawn_figures():
        points = list(numbers([figure.value(one) for one in metrics]))
        if len(points) > 1:
            found.append(draw(figure.label, [Line(figure.label, points)], _show(figure), labels=labels))
    return [chart for chart in found if chart is not None]


def comparison_charts(comparison: Comparison) -> list[Chart]:
    """The same figures, a line a run."""
    found = []
    for figure in _drawn_figures():
        lines = []
        for place, name in enumerate(comparison.names):
            values = [figure.value(comparison.iterations(model)[place].metrics) for model in comparison.models]
            lines.append(Line(name, list(numbers(values))))
        found.append(draw(figure.label, lines, _show(figure), labels=comparison.models))
    return [chart for chart in found if chart is not None]


def training_charts(training: Mapping[str, Series]) -> list[Chart]:
    """Curves of the optimizer steps, a line a model.

    Losses of supervised and of preference training cannot be compared: each has its own drawing.
    """
    preferences = {model: any("rewardMargin" in step for step in series) for model, series in training.items()}
    found = []
    for name, title, form in CURVES:
        kinds = ((" (supervised)", False), (" (preferences)", True)) if name == "loss" else (("", None),)
        for suffix, kind in kinds:
            lines = [
                Line(model, [(step["step"], step[name]) for step in series if name in step])
                for model, series in training.items()
                if kind in (None, preferences[model])
            ]
            found.append(draw(title + suffix, lines, partial(_formatted, form), across="step"))
    return [chart for chart in found if chart is not None]


def pace_chart(source: Source, run: Run) -> list[Chart]:
    """Tokens per second of what runs now, since somebody looks."""
    paces = source.pace(run)
    now = [pace for pace in paces if pace.node == paces[-1].node]
    if len(now) < 2:
        return []
    points = [(pace.seconds - now[0].seconds, pace.tokens_per_second) for pace in now]
    name = f"Tokens per second of {now[0].node.partition('/')[2]}"
    chart = draw(name, [Line(name, points)], partial(_formatted, ",.0f"), across="seconds")
    return [chart] if chart is not None else []


def _drawn_figures() -> list[Figure]:
    by_name = {figure.name: figure for figure in FIGURES}
    return [by_name[name] for name in DRAWN]


def _show(figure: Figure) -> Callable[[float], str]:
    """A value on the axis: with fewer digits than in a table."""
    return partial(_formatted, {".1%": ".0%", ",d": ",.0f"}.get(figure.form, figure.form))


def _formatted(form: str, value: float) -> str:
    return format(value, form)


def _so_far(run: Run, now: datetime) -> str:
    began = parse(run.status.started_at)
    if began is None:
        return NOTHING
    return duration(((parse(run.status.finished_at) or now) - began).total_seconds())


def _kind(samples: Samples | None) -> str:
    if samples is None:
        return ""
    return {"judge": "candidates with their scores", "generate": "candidates, not judged yet"}.get(
        samples.stage.partition("-")[0], "answers to validation prompts"
    )
