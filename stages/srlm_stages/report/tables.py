"""The tables of the report: rows of formatted cells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from srlm_contract.figures import NOTHING, TOO_FEW, figure_groups
from srlm_contract.graph import model_name

from ..judging.head_to_head import KINDS
from ..judging.metrics import Estimate
from ..pairs import CAUSES
from .collect import Collected, Stage
from .figures import MEASURES, Figures, Meeting
from .plots import duration


@dataclass(frozen=True)
class Table:
    """A table with a heading for each column; the first column names the row."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def __bool__(self) -> bool:
        return bool(self.rows)


def number(value: float | None, form: str) -> str:
    return NOTHING if value is None else format(value, form)


def percent(value: float | None) -> str:
    return number(value, ".1%")


def glance_table(figures: Figures) -> Table:
    """One column a model; a row with a single cell heads those that stand on the same texts, and says on which."""
    rows: list[tuple[str, ...]] = []
    for group, some in figure_groups([m.metrics for m in figures.everyone]):
        rows += [(f"{group.title}. {group.basis}" if group.basis else group.title,), *some]
    return Table(("", *(m.name for m in figures.everyone)), tuple(rows))


def loop_table(found: Collected) -> Table:
    """Time of every stage, one column a model."""
    iterations = [t for t in found.iterations if any(s.iteration == t for s in found.stages)]
    stages = {(s.iteration, s.name): s for s in found.stages}
    # What only the bootstrap does comes first, then the stages of the loop in their order.
    loop = dict.fromkeys(s.name for s in found.stages if s.iteration)
    names = [*dict.fromkeys(s.name for s in found.stages if s.name not in loop), *loop]
    rows = tuple((name, *(_time(stages.get((t, name))) for t in iterations)) for name in names)
    return Table(("", *(model_name(t) for t in iterations)), rows)


def _time(stage: Stage | None) -> str:
    if stage is None:
        return ""
    if stage.reused:
        return "reused"
    return stage.state.lower() if stage.seconds is None else duration(stage.seconds)


def judge_table(figures: Figures) -> Table:
    """The five measures of every model with n and interval, and the same for 'longer wins'."""
    rows: list[tuple[str, ...]] = []
    said: tuple[str, ...] = ()
    for model in figures.everyone:
        if model.judge:
            rows.append((model.name, *(_estimate(name, model.judge.get(name)) for name in MEASURES)))
        length = ("“longer wins”", *(_estimate(name, model.length_only.get(name)) for name in MEASURES))
        if model.length_only and length != said:  # the same for all models that judge the same answers
            rows.append(length)
            said = length
    return Table(("", *MEASURES.values()), tuple(rows))


def _estimate(name: str, found: Estimate | None) -> str:
    """Shares in percent; correlations (-1 to 1) as they are."""
    return estimated(found, ".2f" if name in ("spearman", "kendall") else ".1%")


def estimated(found: Estimate | None, form: str = ".1%") -> str:
    """A figure, its interval (or that there are too few prompts for one), n, and what is left out, a line each."""
    if found is None or found.value is None:
        return NOTHING if found is None or not found.n else f"{NOTHING}\n\nn={found.n}"
    ends = found.low, found.high
    interval = (
        TOO_FEW if None in ends else " to ".join(format(end, form.lstrip("+")) for end in ends if end is not None)
    )
    excluded = f", {found.excluded} excluded" if found.excluded else ""
    return f"{format(found.value, form)}\n{interval}\nn={found.n}{excluded}".replace("-", "−")


def candidates_table(figures: Figures) -> Table:
    """What the scores of the candidates of a model follow, and whether a second scorer agrees."""
    rows = [
        (f"to {m.name}", estimated(m.score_length, ".2f"), estimated(m.shadow))
        for m in figures.models
        if m.scores.scored
    ]
    return Table(("", "score follows length (Spearman)", "second scorer within half a point"), tuple(rows))


def head_to_head_table(figures: Figures) -> Table:
    """Every meeting with its counts and rates."""
    rows = [
        (
            f"{model.name} against {result.opponent}",
            f"{result.wins} / {result.ties} / {result.losses}\n{result.unreadable} unreadable",
            estimated(result.rate), estimated(result.length_controlled), estimated(result.flips),
            estimated(result.preference, "+.1%"),
        )
        for model in figures.models
        for result in model.against.values()
    ]  # fmt: skip
    head = ("wins / ties / losses", "win rate", "at equal lengths", "flipped with the order", "preference for itself")
    return Table(("", *head), tuple(rows))


def kinds_table(figures: Figures) -> Table:
    """Win rates by kind of prompt: a column a meeting."""
    met = [(f"{m.name} against {r.opponent}", r) for m in figures.models for r in m.against.values() if r.kinds]
    rows = [(kind, *(_of_kind(r, kind) for _, r in met)) for kind in KINDS]
    return Table(("", *(name for name, _ in met)), tuple(rows) if met else ())


def _of_kind(result: Meeting, kind: str) -> str:
    found = result.kinds.get(kind)
    return NOTHING if found is None else estimated(found.rate)


@dataclass(frozen=True)
class Cell:
    """A win rate and its shade 0 .. 10."""

    text: str
    shade: str


def win_matrix(figures: Figures) -> list[tuple[str, list[Cell]]]:
    """Row against column: measured for the newer model; the other half is its complement, since ties count half."""
    people = (opponent for m in figures.models for opponent in m.against)
    names = list(dict.fromkeys([*(m.name for m in figures.everyone), *people]))
    rates = {(m.name, o): r.win_rate for m in figures.models for o, r in m.against.items() if r.win_rate is not None}
    if not rates:
        return []
    rates |= {(b, a): 1 - rate for (a, b), rate in rates.items()}
    return [(row, [_cell(rates.get((row, column)), row == column) for column in names]) for row in names]


def _cell(rate: float | None, same: bool) -> Cell:
    if rate is None:
        return Cell("" if same else NOTHING, "none")
    return Cell(f"{rate:.1%}", f"h{round(rate * 10)}")


def yield_table(found: Collected) -> Table:
    """From prompts to pairs, with what was dropped and why; one column an iteration with pairs."""
    iterations = [t for t in found.iterations if found.of(t, "prompts") or found.of(t, "pairs")]
    iterations = [t for t in iterations if any(s.statistics for s in found.stages if s.iteration == t)]
    labels: dict[str, Callable[[int], float | None]] = {}

    def add(label: str, stage: str, name: str) -> None:
        labels[label] = lambda t: _total(found.of(t, stage)[-1:] if stage == "pairs" else found.of(t, stage), name)

    add("prompts asked for", "prompts", "asked")
    dropped = {n for t in iterations for s in found.of(t, "prompts") for n in s.statistics if n.startswith("dropped")}
    for name in sorted(dropped):
        add(f"… dropped: {_words(name)}", "prompts", name)
    add("… more than needed", "prompts", "surplus")
    add("prompts accepted", "prompts", "prompts")
    add("candidates", "generate", "candidates")
    add("… cut by the length limit", "generate", "truncated")
    add("… empty", "generate", "empty")
    add("answers judged", "judge", "judged")
    for name, text in CAUSES.items():
        add(f"… {text.partition(' (')[0]}", "pairs", name)
    add("pairs" if found.spec.preferences.strategy == "PreferencePairs" else "positives", "pairs", "pairs")
    rows = []
    for label, value in labels.items():
        values = [value(t) for t in iterations]
        if any(v is not None for v in values) and (any(values) or not label.startswith("…")):
            rows.append((label, *(number(v, ",.0f") for v in values)))
    return Table(("", *(f"to {model_name(t)}" for t in iterations)), tuple(rows))


def _words(name: str) -> str:
    return "".join(f" {c.lower()}" if c.isupper() else c for c in name.removeprefix("dropped")).strip()


def _total(stages: list[Stage], name: str) -> float | None:
    values = [v for s in stages if (v := s.figure(name)) is not None]
    return sum(values) if values else None


def cost_table(found: Collected) -> Table:
    """Seconds, work, GPU-seconds and tokens by stage, over all iterations, with a sum."""
    rows = []
    sums = [0.0, 0.0, 0.0, 0.0]
    for name in dict.fromkeys(s.stage for s in found.stages):
        stages = [s for s in found.stages if s.stage == name and (s.record is not None or s.manifest is not None)]
        figures = [
            sum(s.seconds or 0 for s in stages),
            sum(s.manifest.timings.seconds for s in stages if s.manifest is not None and not s.reused),
            sum(s.record.gpu_seconds for s in stages if s.record is not None),
            sum(s.figure("tokens") or 0 for s in stages if not s.reused),
        ]
        if any(figures):
            sums = [a + b for a, b in zip(sums, figures, strict=True)]
            rows.append((name, str(len(stages)), *_cost(figures)))
    # Status keeps the details of the last iterations only; its total counts everything.
    rest = found.status.gpu_seconds - sums[2]
    if rest >= 1:
        sums[2] += rest
        rows.append(("earlier iterations, not itemised", "", "", "", f"{rest:,.0f}", ""))
    if rows:
        rows.append(("all", "", *_cost(sums)))
    return Table(("stage", "times", "wall time", "work of pods", "GPU-seconds", "tokens"), tuple(rows))


def _cost(figures: list[float]) -> tuple[str, str, str, str]:
    wall, work, gpu, tokens = figures
    return duration(wall), duration(work), f"{gpu:,.0f}", f"{tokens:,.0f}"
