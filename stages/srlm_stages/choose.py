"""Which training checkpoint becomes M_{t+1}: pairwise judging on the validation prompts, as the paper stops early."""

from __future__ import annotations

import shutil
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

from srlm_contract.rows import PromptRow, ValidationAnswer
from srlm_contract.tasks import ChooseParams

from .context import StageContext
from .judging.answering import answer_prompts
from .judging.comparing import Pairing, choices_by_model
from .judging.head_to_head import outcome
from .runtime.rows import read_rows
from .runtime.statistics import Statistics
from .training.model_card import write_card

FINAL = "final"


def run(ctx: StageContext) -> Statistics:
    """Writes the model with the highest mean win rate against the others; the earlier one when equal."""
    params = ctx.params(ChooseParams)
    models = checkpoints(ctx.model_path("train"))
    prompts = list(read_rows(ctx.input("data") / "validation.jsonl", PromptRow))[: params.prompts]
    answers: dict[str, list[ValidationAnswer]] = {}
    tokens = 0
    if len(models) > 1 and prompts:
        for name, folder in models.items():
            answers[name], generated = answer_prompts(ctx, params, prompts, folder)
            tokens += generated
    meetings = _meetings(answers)
    rates, unreadable, read = _win_rates(ctx, params, meetings)
    best = choose(list(models), rates)
    if meetings and not rates:
        ctx.warn(f"none of {len(meetings)} comparisons of checkpoints could be read: the last one is taken")
    for path in models[best].iterdir():
        if path.is_file():
            shutil.copyfile(path, ctx.output / path.name)
    ctx.details["winRates"] = rates
    ctx.details["chosen"] = best
    statistics: Statistics = {
        "checkpoints": len(models),
        "chosenStep": -1 if best == FINAL else int(best),
        "comparisons": len(meetings),
        "unreadable": unreadable,
        "tokens": tokens + read,
        **({"winRate": rates[best]} if best in rates else {}),
    }
    write_card(ctx, statistics)
    return statistics


def checkpoints(folder: Path) -> dict[str, Path]:
    """The models of a training artifact by step, the finished one last."""
    steps = {int(path.name): path for path in folder.glob("steps/*")}
    return {**{str(step): steps[step] for step in sorted(steps)}, FINAL: folder}


def choose(names: Sequence[str], rates: Mapping[str, float]) -> str:
    """The name with the highest rate, the first of equals; the last name when nothing was compared."""
    return max(names, key=lambda name: rates.get(name, 0.5)) if rates else names[-1]


def _meetings(answers: Mapping[str, Sequence[ValidationAnswer]]) -> list[tuple[str, str, Pairing]]:
    """Every two models' answers to the same prompt: (one, other, what is compared)."""
    meetings = []
    for left, right in combinations(answers, 2):
        theirs = {answer.id: answer for answer in answers[right]}
        meetings += [
            (left, right, Pairing(right, a.id, a.prompt, a.answer, theirs[a.id].answer))
            for a in answers[left]
            if a.id in theirs
        ]
    return meetings


def _win_rates(
    ctx: StageContext, params: ChooseParams, meetings: Sequence[tuple[str, str, Pairing]]
) -> tuple[dict[str, float], int, int]:
    """(mean win rate of each model against all others, ties half; comparisons that could not be read, which are left
    out; tokens read)."""
    if not meetings:
        return {}, 0, 0
    choices, read = choices_by_model(ctx, ctx.model_path("judge"), params, [m[2] for m in meetings])
    points: dict[str, float] = defaultdict(float)
    played: Counter[str] = Counter()
    unreadable = 0
    for (left, right, _), (first, second) in zip(meetings, choices, strict=True):
        result = outcome(first, second)
        if result == "unreadable":
            unreadable += 1
            continue
        gained = {"win": 1.0, "tie": 0.5, "loss": 0.0}[result]
        for name, gain in ((left, gained), (right, 1 - gained)):
            points[name] += gain
            played[name] += 1
    return {name: points[name] / played[name] for name in played}, unreadable, read
