"""The table of results of a run: one column a model, figures exactly as they stand in status."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from rich.table import Table

from srlm_contract.progress import whole_seconds
from srlm_contract.status import IterationMetrics, IterationStatus, RunStatus

Cell = Callable[[IterationMetrics], str]


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _agreement(m: IterationMetrics) -> str:
    if m.judge_accuracy is None:
        return "–"
    return f"{m.judge_accuracy:.1%} (n={m.judge_accuracy_pairs or 0})"


def rows(constrained: bool) -> list[tuple[str, Cell]]:
    """(label, cell) of every figure. `constrained`: the run forces the judge's score line."""
    parse = "parse rate (constrained)" if constrained else "parse rate"
    return [
        ("prompts", lambda m: _number(m.prompts, ",d")),
        ("candidates", lambda m: _number(m.candidates, ",d")),
        ("pairs", lambda m: _number(m.pairs, ",d")),
        ("rounds of prompts", lambda m: _number(m.rounds, "d")),
        (parse, lambda m: _percent(m.parse_rate)),
        *([("parse rate (free, sample)", lambda m: _percent(m.free_parse_rate))] if constrained else []),
        ("shadow scorer agrees", lambda m: _percent(m.shadow_agreement)),
        ("tie rate", lambda m: _percent(m.tie_rate)),
        ("mean score (0-5)", lambda m: _number(m.mean_score, ".2f")),
        ("mean length (characters)", lambda m: _number(m.mean_length, ",.0f")),
        ("judge agrees with human ranks", _agreement),
        ('  "longer is better" agrees', lambda m: _percent(m.length_only_accuracy)),
        ("win rate against previous", lambda m: _percent(m.win_rate)),
        ("checkpoint chosen (step)", lambda m: "last" if m.chosen_step == -1 else _number(m.chosen_step, ",d")),
        ("training loss", lambda m: _number(m.loss, ".4f")),
        ("DPO reward accuracy", lambda m: _percent(m.reward_accuracy)),
        ("DPO reward margin", lambda m: _number(m.reward_margin, ".4f")),
        ("time", lambda m: duration(m.seconds)),
    ]


def duration(seconds: float | None) -> str:
    """`1h 02m`, `3m 05s` or `42s`."""
    return "–" if seconds is None else whole_seconds(seconds)


def results_table(status: RunStatus, *, title: str, constrained: bool) -> Table:
    """One column a model with its figures, then the time of each stage."""
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for iteration in status.iterations:
        table.add_column(iteration.name, justify="right")
    for label, cell in rows(constrained):
        values = [cell(iteration.metrics) for iteration in status.iterations]
        if any(value != "–" for value in values):
            table.add_row(label, *values)
    table.add_section()
    for name in stage_names(status.iterations):
        table.add_row(f"time of {name}", *(duration(stage_seconds(i, name)) for i in status.iterations))
    return table


def stage_names(iterations: tuple[IterationStatus, ...]) -> list[str]:
    """All stage names in the order in which they appear first."""
    return list(dict.fromkeys(stage.name for iteration in iterations for stage in iteration.stages))


def stage_seconds(iteration: IterationStatus, name: str) -> float | None:
    """Seconds from the first attempt to the commit; None when it did not run in this iteration."""
    for stage in iteration.stages:
        if stage.name == name and stage.started_at and stage.finished_at and not stage.reused:
            return (
                datetime.fromisoformat(stage.finished_at) - datetime.fromisoformat(stage.started_at)
            ).total_seconds()
    return None
