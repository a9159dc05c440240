"""The first lines of the report: what came of the run, in a few figures with what they stand on."""

from __future__ import annotations

from dataclasses import dataclass

from srlm_contract.figures import NOTHING

from .collect import Collected
from .figures import Figures, ModelFigures


@dataclass(frozen=True)
class Card:
    """A figure, its name, and what a reader must know beside it."""

    name: str
    value: str
    note: str


def headline(found: Collected, figures: Figures) -> list[Card]:
    """Judge, win rate, length and training data from the first model to the last; what nobody measured is left out."""
    if not figures.models:
        return []
    cards = [_judge(figures), _wins(figures), _length(figures), _data(found, figures)]
    return [card for card in cards if card is not None]


def _judge(figures: Figures) -> Card | None:
    measured = [m for m in figures.models if m.metrics.judge_accuracy is not None]
    if not measured:
        return None
    last = measured[-1].metrics
    notes = [f"{_path(measured)}: human-ordered pairs judged right"]
    if last.judge_accuracy_pairs:
        notes.append(f"n={last.judge_accuracy_pairs:,}")
    if last.length_only_accuracy is not None:
        notes.append(f"“longer wins” {last.length_only_accuracy:.1%}")
    values = [f"{m.metrics.judge_accuracy:.1%}" for m in _ends(measured)]
    return Card("Judge agrees with people", " → ".join(values), ", ".join(notes))


def _wins(figures: Figures) -> Card | None:
    """The newest model against the oldest one it met."""
    for model in reversed(figures.models):
        met = next((model.against[m.name] for m in figures.models if m.name in model.against), None)
        if met is not None:
            rate = NOTHING if met.win_rate is None else f"{met.win_rate:.1%}"
            counts = f"{met.wins} wins, {met.ties} ties, {met.losses} losses; ties count half"
            return Card(f"{model.name} against {met.opponent}", rate, counts)
    return None


def _length(figures: Figures) -> Card | None:
    measured = [m for m in figures.models if m.lengths.mean_length]
    if not measured:
        return None
    lengths = [m.lengths.mean_length or 0.0 for m in _ends(measured)]
    note = f"{_path(measured)}: characters, validation prompts"
    if len(lengths) > 1:
        note += f", {lengths[-1] / lengths[0] - 1:+.0%}".replace("-", "−")
    return Card("Mean answer length", " → ".join(f"{length:,.0f}" for length in lengths), note)


def _data(found: Collected, figures: Figures) -> Card | None:
    made = [m for m in figures.models if m.metrics.pairs is not None]
    if not made:
        return None
    paired = found.spec.preferences.strategy == "PreferencePairs"
    prompts = sum(m.metrics.prompts or 0 for m in made)
    return Card(
        "Preference pairs" if paired else "Positive examples",
        f"{sum(m.metrics.pairs or 0 for m in made):,}",
        f"from {prompts:,} prompts, {len(made)} {'iteration' if len(made) == 1 else 'iterations'}",
    )


def _ends(models: list[ModelFigures]) -> list[ModelFigures]:
    return models if len(models) == 1 else [models[0], models[-1]]


def _path(models: list[ModelFigures]) -> str:
    return " → ".join(m.name for m in _ends(models))
