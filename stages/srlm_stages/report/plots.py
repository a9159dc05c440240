"""The plots of the report. Each answers None when there is nothing to draw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from srlm_contract.progress import whole_seconds
from srlm_contract.text import visible

from ..judging.metrics import Estimate
from .collect import first_and_last
from .distributions import LENGTH_BINS, SCORE_BINS, Distribution
from .figures import Figures, ModelFigures
from .svg import COLOURS, GRID, INK, MUTED, PAPER, SERIES, draw

#: Inches at 72 points: drawn at the width of a telephone, so that letters keep their size there.
WIDTH, HEIGHT = 4.5, 2.75
#: Colour, opacity and colour of the letters of a part of a head-to-head bar.
WINS, TIES, LOSSES = (SERIES[0], 1.0, PAPER), (MUTED, 0.35, INK), (SERIES[4], 1.0, PAPER)
#: Models in one drawing; of more, the first and the last ones are shown.
MAX_SHOWN = 12


def colour(iteration: int) -> str:
    """The colour of a model, the same in all plots."""
    return SERIES[iteration % COLOURS]


def marker(iteration: int) -> str:
    """The marker of a model: lines are told apart without colours too."""
    return "osD^vPXd"[iteration % COLOURS]


def shown(models: Sequence[ModelFigures]) -> list[ModelFigures]:
    """Those of one drawing."""
    return first_and_last(models, MAX_SHOWN)


def judge_shares(figures: Figures) -> Markup | None:
    """Pairwise accuracy with its interval beside 'longer is better', and the two other shares."""
    models = [m for m in shown(figures.models) if _value(m.judge.get("pairwise")) is not None]
    if not models:
        return None

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        axes.set_title("Judge against people")
        _estimates(
            axes,
            models,
            [
                ("pairwise", "pairwise", SERIES[0]),
                ("fiveBest", "5-best", SERIES[1]),
                ("exactMatch", "exact match", SERIES[2]),
            ],
        )
        _longer_wins(axes, models, "pairwise", "pairwise", level=0.5)
        axes.set_ylim(-0.03, 1.03)
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        legend(axes)

    return draw("judge-shares", "Agreement of each model's judgements with people", (WIDTH, HEIGHT), paint)


def judge_correlations(figures: Figures) -> Markup | None:
    """Rank correlations with people."""
    models = [m for m in shown(figures.models) if _value(m.judge.get("kendall")) is not None]
    if not models:
        return None

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        axes.set_title("Rank correlation with people")
        _estimates(axes, models, [("spearman", "Spearman", SERIES[3]), ("kendall", "Kendall tau-b", SERIES[4])])
        _longer_wins(axes, models, "kendall", "Kendall", level=0)
        axes.set_ylim(-1.06, 1.06)
        legend(axes)

    return draw("judge-ranks", "Rank correlation of each model's judgements with people", (WIDTH, HEIGHT), paint)


def win_rates(figures: Figures) -> Markup | None:
    """Win, tie and loss of each model against the one before and against the first."""
    met = [(m, r) for m in shown(figures.models) for r in _headlines(figures, m) if r.compared]
    if not met:
        return None

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        axes.set_title("Head to head")
        axes.grid(visible=False)
        axes.axvline(0.5, color=INK, linewidth=0.8, linestyle=":", zorder=0)
        for row, (_, result) in enumerate(met):
            left = 0.0
            parts = (("wins", result.wins, *WINS), ("ties", result.ties, *TIES), ("losses", result.losses, *LOSSES))
            for name, count, fill, alpha, letters in parts:
                share = count / result.compared
                label = name if row == 0 else None
                axes.barh(row, share, left=left, height=0.6, color=fill, alpha=alpha, linewidth=0, label=label)
                if share > 0.07:
                    axes.text(left + 0.02, row, f"{count}", va="center", fontsize=8.5, color=letters)
                left += share
            axes.text(1.02, row, f"{result.win_rate:.1%}", va="center", fontsize=9.5, color=INK, fontweight="bold")
        axes.set_yticks(range(len(met)), [f"{m.name} against {visible(r.opponent)[:12]}" for m, r in met], color=INK)
        axes.set_ylim(len(met) - 0.4, -0.6)
        axes.set_xlim(0, 1.16)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1.0], ["0%", "25%", "50%", "75%", "100%"])
        axes.set_xlabel("share of comparisons; bold: win rate, ties as half")
        axes.spines["left"].set_visible(False)
        legend(axes)

    size = (WIDTH, 1.45 + 0.34 * len(met))
    return draw("head-to-head", "Wins, ties and losses of each model", size, paint)


def _headlines(figures: Figures, model: ModelFigures) -> list[Any]:
    """Against the model before, and against the first where that is another one."""
    names = [m.name for m in figures.models if m.name in model.against]
    return [model.against[name] for name in dict.fromkeys([*names[-1:], *names[:1]])]


def verdict_scores(figures: Figures) -> Markup | None:
    """Mean scores of the candidates of each iteration."""
    models = [m for m in shown(figures.models) if m.scores.scored]
    return _ridges(
        "scores", "Scores of the candidates", models, lambda m: m.scores,
        lambda m: f"to {m.name}",
    ) if models else None  # fmt: skip


def heldout_scores(figures: Figures) -> Markup | None:
    """What each model gives the same human answers."""
    models = [m for m in shown(figures.models) if m.heldout_scores.scored]
    return _ridges(
        "heldout", "Scores of the same human answers", models, lambda m: m.heldout_scores, lambda m: f"by {m.name}"
    ) if models else None  # fmt: skip


def _ridges(
    name: str,
    title: str,
    models: Sequence[ModelFigures],
    of: Callable[[ModelFigures], Distribution],
    label: Callable[[ModelFigures], str],
) -> Markup:
    """Score histograms one above the other."""

    def paint(figure: Figure) -> None:
        rows = figure.subplots(len(models), 1, sharex=True, squeeze=False)[:, 0]
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold", color=INK)
        for axes, model in zip(rows, models, strict=True):
            distribution = of(model)
            bins = sorted(distribution.scores)
            shares = [distribution.scores[b] / distribution.scored for b in bins]
            axes.bar(bins, shares, width=0.86 / SCORE_BINS, color=colour(model.iteration))
            axes.set_ylim(0, max(shares) * 1.15)
            mean = distribution.mean_score
            assert mean is not None  # only models with scores are drawn
            axes.axvline(mean, color=INK, linewidth=1, linestyle=":")
            _row(axes, label(model), f"mean {mean:.2f}, n={distribution.scored:,}")
        rows[-1].set_xticks(range(6))
        rows[-1].set_xlim(-0.4, 5.4)
        rows[-1].set_xlabel("score; bars: share of answers")

    return draw(name, title, (WIDTH, 0.9 + 0.72 * len(models)), paint)


def lengths(figures: Figures) -> Markup | None:
    """Lengths of the models' answers to the same prompts, on a logarithmic axis."""
    models = [m for m in shown(figures.models) if m.lengths.rows]
    if not models:
        return None
    bins = [b for m in models for b in m.lengths.lengths]
    first, last = min(bins), max(bins) + 1
    if last - first < 2 * LENGTH_BINS:  # a single bin would fill the whole width
        first, last = first - LENGTH_BINS, last + LENGTH_BINS

    def paint(figure: Figure) -> None:
        rows = figure.subplots(len(models), 1, sharex=True, squeeze=False)[:, 0]
        figure.suptitle("Length of answers", x=0.01, ha="left", fontsize=11, fontweight="bold", color=INK)
        for axes, model in zip(rows, models, strict=True):
            counts = [model.lengths.lengths.get(b, 0) / model.lengths.rows for b in range(first, last)]
            axes.bar(range(first, last), counts, width=0.92, align="edge", color=colour(model.iteration))
            axes.set_ylim(0, max(counts) * 1.15)
            _row(axes, model.name, f"mean {model.lengths.mean_length or 0:,.0f}, n={model.lengths.rows:,}")
        ticks = [b for b in range(first, last + 1) if b % LENGTH_BINS == 0 and b >= 0]
        ticks = ticks[:: max(1, len(ticks) // 6)]
        rows[-1].set_xticks(ticks, [f"{2 ** (b // LENGTH_BINS):,}" for b in ticks])
        rows[-1].set_xlim(first - 0.3, last + 0.3)
        rows[-1].set_xlabel("characters, logarithmic; bars: share of answers")

    return draw("lengths", "Lengths of the models' answers", (WIDTH, 0.9 + 0.72 * len(models)), paint)


def _row(axes: Axes, label: str, note: str) -> None:
    """One histogram of several: its name to the left, its figures above, no scale of its own."""
    axes.grid(visible=False)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_ylabel(label, rotation=0, ha="right", va="center", color=INK)
    axes.set_title(note, loc="right", fontsize=9, fontweight="normal", color=MUTED, pad=2)


def duration(seconds: float) -> str:
    """`1h 02m`, `3m 05s`, `42s` or `0.4s`."""
    if 0 < seconds < 9.95 and seconds != int(seconds):
        return f"{seconds:.1f}s"
    return whole_seconds(seconds)


def _longer_wins(axes: Axes, models: Sequence[ModelFigures], measure: str, label: str, level: float) -> None:
    """What a judge reaches that takes the longer answer, and the level of chance."""
    lengths = _numbers([_value(m.length_only.get(measure)) for m in models])
    axes.plot(range(len(models)), lengths, color=MUTED, linestyle="--", marker="_", label=f"“longer wins”, {label}")
    axes.axhline(level, color=GRID, linewidth=1.2)


def _estimates(axes: Axes, models: Sequence[ModelFigures], measures: Sequence[tuple[str, str, str]]) -> None:
    """Lines with intervals, moved aside a little so that intervals do not hide each other."""
    for i, (name, label, fill) in enumerate(measures):
        places, values, below, above = [], [], [], []
        for x, model in enumerate(models):
            estimate = model.judge.get(name)
            if estimate is None or estimate.value is None:
                continue
            places.append(x + 0.07 * (i - (len(measures) - 1) / 2))
            values.append(estimate.value)
            below.append(max(0.0, estimate.value - (estimate.low if estimate.low is not None else estimate.value)))
            above.append(max(0.0, (estimate.high if estimate.high is not None else estimate.value) - estimate.value))
        if values:
            axes.errorbar(
                places, values, yerr=[below, above], color=fill, label=label, marker=marker(i), elinewidth=1.1,
                capsize=2.5,
            )  # fmt: skip
    axes.set_xticks(range(len(models)), [m.name for m in models], color=INK)
    axes.set_xlim(-0.4, len(models) - 0.6)


def legend(axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure = axes.get_figure()
        assert isinstance(figure, Figure)  # never inside a subfigure
        figure.legend(
            handles,
            labels,
            loc="outside lower left",
            ncols=min(len(labels), 3),
            labelcolor=INK,
            handlelength=1.4,
            columnspacing=1.2,
        )


def _value(estimate: Estimate | None) -> float | None:
    return None if estimate is None else estimate.value


def _numbers(values: Sequence[float | None]) -> list[float]:
    return [float("nan") if value is None else value for value in values]
