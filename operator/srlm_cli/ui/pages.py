"""The pages as parts of HTML, each of which may change by itself. What anybody wrote is escaped."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
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
#: Iterations drawn at once; earlier ones are behind a fold.
LANES = 4
#: Figures that are drawn, in order, and the ends of their scales, where they have some.
DRAWN: dict[str, tuple[float, float] | None] = {
    "win_rate": (0, 1),
    "judge_accuracy": (0, 1),
    "mean_score": (0, 5),
    "heldout_score": (0, 5),
    "answer_length": None,
    "mean_length": None,
    "parse_rate": (0, 1),
    "tie_rate": (0, 1),
    "pairs": None,
}
#: Figures of training steps that are drawn: name, title, format, ends of the scale.
CURVES: tuple[tuple[str, str, str, tuple[float, float] | None], ...] = (
    ("loss", "Loss", ".2f", None),
    ("rewardMargin", "Reward margin", ".2f", None),
    ("rewardAccuracy", "Reward accuracy", ".0%", (0, 1)),
    ("gradientNorm", "Gradient norm", ".2f", None),
    ("learningRate", "Learning rate", ".1e", None),
    ("tokensPerSecond", "Tokens per second in training", ",.0f", None),
)

#: Parts of the page of a run, and what they are called.
SECTIONS = {
    "state": "State",
    "loop": "The loop",
    "figures": "Figures",
    "training": "Training and speed",
    "answers": "Answers",
}

#: Seconds that a page waits for a part, such as one that has to be read from a slow store; it comes later by itself.
PATIENCE_SECONDS = 1.0

Parts = dict[str, str | None]
"""HTML of each part by its id; None for one that is still being read."""


@dataclass(frozen=True)
class Page:
    """A page: its title, its parts in order, and how they are made anew."""

    title: str
    parts: Mapping[str, Callable[[], Awaitable[str]]]
    """By id."""

    @property
    def sections(self) -> dict[str, str]:
        """What parts are called, by id, where there are several."""
        return {name: SECTIONS[name] for name in self.parts} if len(self.parts) > 1 else {}

    async def render(self) -> Parts:
        """All parts; one that cannot be made says why."""
        made = await asyncio.gather(*(self._told(name) for name in self.parts))
        return dict(zip(self.parts, made, strict=True))

    async def _told(self, name: str) -> str | None:
        try:
            return await asyncio.wait_for(self.parts[name](), PATIENCE_SECONDS)
        except TimeoutError:
            return None
        except OperatorError as problem:
            return render("problem.html.j2", title=self.sections.get(name), problem=str(problem))

    def waiting(self, name: str) -> str:
        """What stands in place of a part that is still being read."""
        return render("waiting.html.j2", title=self.sections.get(name))


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
        return await part(
            "loop.html.j2",
            lanes=lambda r: lanes(r.status, now()),
            earlier=lambda r: max(0, len(r.status.iterations) - LANES),
        )

    async def figures() -> str:
        return await part(
            "figures.html.j2",
            columns=lambda r: r.status.measured,
            groups=lambda r: figure_groups([column.metrics for column in r.status.measured]),
            charts=lambda r: figure_charts(r.status),
        )

    async def training() -> str:
        found = await source.run(namespace, name)
        curves: Mapping[str, Series] = {}
        problem = ""
        try:
            curves = await source.training(found)
        except OperatorError as error:  # what runs now is in the status all the same
            problem = str(error)
        drawn = [*pace_charts(source, found), *training_charts(curves)]
        return render("training.html.j2", charts=drawn, problem=problem)

    async def samples() -> str:
        found = await source.run(namespace, name)
        answers = await source.samples(found, model, SAMPLES)
        models = [model_name(number) for number in range(len(found.status.iterations))]
        return render("samples.html.j2", samples=answers, kind=_kind(answers), models=models, chosen=model, run=found)

    title = f"{namespace}/{name}"
    return Page(title, {"state": head, "loop": loop, "figures": figures, "training": training, "answers": samples})


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
            found.append(_drawn(figure, [Line(figure.label, points)], labels))
    return [chart for chart in found if chart is not None]


def comparison_charts(comparison: Comparison) -> list[Chart]:
    """The same figures, a line a run."""
    found = []
    for figure in _drawn_figures():
        lines = []
        for place, name in enumerate(comparison.names):
            values = [figure.value(comparison.iterations(model)[place].metrics) for model in comparison.trained]
            lines.append(Line(name, list(numbers(values)), place))
        found.append(_drawn(figure, lines, comparison.trained))
    return [chart for chart in found if chart is not None]


def training_charts(training: Mapping[str, Series]) -> list[Chart]:
    """Curves of the optimizer steps, a line a model.

    Losses of supervised and of preference training cannot be compared: each has its own drawing.
    """
    preferences = {model: any("rewardMargin" in step for step in series) for model, series in training.items()}
    found = []
    for name, title, form, limits in CURVES:
        kinds = ((" (supervised)", False), (" (preferences)", True)) if name == "loss" else (("", None),)
        for suffix, kind in kinds:
            lines = [
                Line(model, [(step["step"], step[name]) for step in series if name in step], place)
                for place, (model, series) in enumerate(training.items())
                if kind in (None, preferences[model])
            ]
            found.append(draw(f"{title}{suffix} by step", lines, f"{{:{form}}}".format, limits=limits))
    return [chart for chart in found if chart is not None]


def pace_charts(source: Source, run: Run) -> list[Chart]:
    """Speed of what runs now, and its loss if it trains, since somebody looks."""
    paces = source.pace(run)
    now = [pace for pace in paces if pace.node == paces[-1].node]
    if len(now) < 2:
        return []
    name = now[0].node.partition("/")[2]
    speed = [(pace.seconds - now[0].seconds, pace.tokens_per_second) for pace in now]
    losses = {pace.step: pace.loss for pace in now if pace.loss is not None}
    charts = [
        draw(f"Tokens per second of {name}, by seconds since you look", [Line(name, speed)], "{:,.0f}".format, step=1),
        draw(f"Loss of {name} so far, by step", [Line(name, sorted(losses.items()))], "{:.3f}".format),
    ]
    return [chart for chart in charts if chart is not None]


def _drawn_figures() -> list[Figure]:
    by_name = {figure.name: figure for figure in FIGURES}
    return [by_name[name] for name in DRAWN]


def _drawn(figure: Figure, lines: Sequence[Line], labels: Sequence[str]) -> Chart | None:
    """With fewer digits than in a table."""
    form = {".1%": ".0%", ",d": ",.0f"}.get(figure.form, figure.form)
    whole = 1.0 if form == ",.0f" else 0.0
    return draw(figure.label, lines, f"{{:{form}}}".format, labels=labels, limits=DRAWN[figure.name], step=whole)


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
