"""Plots over time: when the stages of an iteration ran, and the curves of training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from srlm_contract.graph import model_name
from srlm_contract.text import visible

from .collect import Collected
from .figures import Figures
from .plots import HEIGHT, WIDTH, colour, duration, legend, marker, shown
from .svg import COLOURS, INK, MUTED, draw


def timeline(found: Collected, iteration: int) -> Markup | None:
    """When each stage of an iteration ran."""
    ran = [(s, span) for s in found.stages if s.iteration == iteration and (span := s.span) is not None]
    if not ran:
        return None
    start = min(span[0] for _, span in ran)
    total = max((span[1] - start).total_seconds() for _, span in ran) or 1.0
    unit, factor = ("h", 3600) if total > 3 * 3600 else ("min", 60) if total > 180 else ("s", 1)

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        axes.set_title(f"to {model_name(iteration)}")
        axes.grid(axis="x")
        axes.grid(visible=False, axis="y")
        for row, (_, (begin, end)) in enumerate(ran):
            left, width = (begin - start).total_seconds(), (end - begin).total_seconds()
            bar = max(width, total / 250)
            axes.barh(row, bar / factor, left=left / factor, height=0.62, color=colour(iteration))
            inside = left + bar > 0.8 * total
            axes.text(
                (left - 0.012 * total if inside else left + bar + 0.012 * total) / factor, row, duration(width),
                va="center", ha="right" if inside else "left", fontsize=9, color=MUTED,
            )  # fmt: skip
        axes.set_yticks(range(len(ran)), [visible(s.name)[:24] for s, _ in ran], color=INK)
        axes.set_ylim(len(ran) - 0.4, -0.6)
        axes.set_xlim(0, total * 1.02 / factor)
        axes.set_xlabel(unit)
        axes.spines["left"].set_visible(False)

    size = (WIDTH, 1.0 + 0.26 * len(ran))
    return draw(f"time{iteration}", f"When each stage of iteration {iteration} ran", size, paint)


@dataclass(frozen=True)
class Curve:
    """A plot of training: a figure of the series, of supervised or preference training alone or of both."""

    name: str
    title: str
    form: str = "plain"
    kind: str = ""
    """`supervised` or `preferences`: their losses cannot be compared."""


CURVES = (
    Curve("loss", "Loss, supervised", kind="supervised"),
    Curve("loss", "Loss, preferences", kind="preferences"),
    Curve("rewardMargin", "Reward margin"),
    Curve("rewardAccuracy", "Reward accuracy", "percent"),
    Curve("gradientNorm", "Gradient norm"),
    Curve("learningRate", "Learning rate", "science"),
    Curve("tokensPerSecond", "Tokens per second", "thousands"),
)


def training_curves(figures: Figures) -> list[Markup]:
    """One plot a figure, one line a model, by optimizer step."""
    return [plot for curve in CURVES if (plot := _curve(figures, curve)) is not None]


def _curve(figures: Figures, curve: Curve) -> Markup | None:
    lines = []
    for model in figures.models:
        kind = "preferences" if any("rewardMargin" in step for step in model.series) else "supervised"
        points = [(step["step"], step[curve.name]) for step in model.series if curve.name in step]
        if points and curve.kind in ("", kind):
            lines.append((model, points))
    if not lines:
        return None
    chosen = {m.name for m in shown([m for m, _ in lines])}

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        axes.set_title(curve.title)
        for model, points in lines:
            if model.name not in chosen:
                continue
            few = thin(points)
            x, y = [p[0] for p in few], [p[1] for p in few]
            every = max(1, len(few) // 12)
            line = "-" if model.iteration < COLOURS else "--"
            axes.plot(
                x, y, label=model.name, color=colour(model.iteration), linestyle=line,
                marker=marker(model.iteration), markersize=4, markevery=every,
            )  # fmt: skip
        if curve.form == "percent":
            axes.set_ylim(-0.03, 1.03)
            axes.yaxis.set_major_formatter(PercentFormatter(1))
        elif curve.form == "thousands":
            axes.set_ylim(0, 1.08 * max(p[1] for _, points in lines for p in points) or 1)
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        elif curve.form == "science":
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.1e}"))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        axes.set_xlabel("step")
        legend(axes)

    name = f"curve-{curve.name.lower()}{curve.kind[:1]}"
    return draw(name, f"{curve.title} by training step", (WIDTH, HEIGHT), paint)


def thin(points: Sequence[tuple[float, float]], most: int = 400) -> list[tuple[float, float]]:
    """Every n-th point, the last one always."""
    every = -(-len(points) // most)
    few = list(points[::every])
    return few if few[-1] == points[-1] else [*few, points[-1]]
