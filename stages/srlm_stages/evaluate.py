"""M_t measured: its judging against people, its answers to the validation prompts, and how they do against others'.

Head-to-head: one fixed judge reads question and both answers, in both orders, and says A or B. Disagreement between
the orders is a tie; what cannot be read is counted apart. The model itself is asked the same about its answers and
those of the model before, or of people: what it prefers beyond the judge's choice is its preference for itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from srlm_contract.jsonl import write_rows
from srlm_contract.rows import PEOPLE, REFERENCES, Comparison, Judgement, PromptRow, ValidationAnswer
from srlm_contract.tasks import EvaluateParams

from .context import StageContext
from .judge import judged_heldout
from .judging.answering import answer_prompts
from .judging.comparing import OwnChoices, choices_by_api, choices_by_model, meetings
from .judging.external import ExternalJudge
from .judging.head_to_head import head_to_head, length_controlled, outcome, self_preference
from .judging.metrics import Estimate, group_by_prompt, judge_metrics
from .runtime.rows import read_all, read_rows
from .runtime.statistics import Statistics


def run(ctx: StageContext) -> Statistics:
    """Writes answers.jsonl, comparisons.jsonl and metrics.json."""
    params = ctx.params(EvaluateParams)
    metrics: dict[str, Any] = {"model": params.model}
    statistics: Statistics = {}
    judgements: list[Judgement] | None = None
    spent = 0.0
    if ctx.has("judgements"):
        judgements = list(read_all(ctx.input("judgements"), "judgements", Judgement))
    elif params.judging is not None:
        judgements, counts = judged_heldout(ctx, params.judging)
        statistics |= {name: counts[name] for name in ("judged", "verdicts", "parsed", "scoreSum")}
        spent = counts["tokens"]
    if judgements is not None:
        metrics["judge"], figures = _judge_agreement(judgements, params)
        statistics |= figures

    prompts = list(read_rows(ctx.input("data") / "validation.jsonl", PromptRow))[: params.prompts]
    theirs = {o: _answers(ctx, o) for o in params.opponents}
    if params.people and (references := _references(ctx)):
        theirs[PEOPLE] = references
    own = _own_choices(ctx, params, theirs)
    answers, tokens = answer_prompts(ctx, params, prompts, own=own)
    write_rows(ctx.output / "answers.jsonl", answers)
    if answers:
        statistics |= {
            "answers": len(answers),
            "characters": sum(len(a.answer) for a in answers),
            "answerTokens": sum(a.tokens for a in answers),
            "truncated": sum(a.truncated for a in answers),
        }
        metrics["answers"] = {name: statistics[name] for name in ("answers", "characters", "answerTokens")}

    comparisons, judge_tokens = _compare(ctx, params, answers, theirs, own)
    write_rows(ctx.output / "comparisons.jsonl", comparisons)
    met = {o: [c for c in comparisons if c.opponent == o] for o in theirs}
    if params.headline in met:
        statistics |= _headline(met[params.headline])
    for opponent in own.opponents if own is not None else ():
        name = f"selfPreference{'' if opponent in params.opponents else opponent}"
        statistics |= _figures(name, self_preference(met[opponent]))
    if PEOPLE in met:
        statistics |= _figures(f"winRate{PEOPLE}", head_to_head(met[PEOPLE]).rate)
    statistics["tokens"] = tokens + judge_tokens + spent
    statistics |= {f"winRate{o}": rate for o, rows in met.items() if (rate := head_to_head(rows).win_rate) is not None}
    metrics["headToHead"] = {"judge": params.judge, "opponents": {o: _told(rows) for o, rows in met.items()}}
    (ctx.output / "metrics.json").write_text(json.dumps(metrics, indent=1, sort_keys=True) + "\n")
    return statistics


def _answers(ctx: StageContext, opponent: str) -> dict[str, ValidationAnswer]:
    return {a.id: a for a in read_all(ctx.input(f"answers-{opponent}"), "answers", ValidationAnswer)}


def _references(ctx: StageContext) -> dict[str, ValidationAnswer]:
    """What people answered best. None, with a warning, where the artifact of `data` is of an older version."""
    path = ctx.input("data") / REFERENCES
    if not path.exists():
        ctx.warn(f"the models do not meet people: the data of this run were prepared before {REFERENCES} was")
        return {}
    return {row.id: row for row in read_rows(path, ValidationAnswer)}


def _own_choices(
    ctx: StageContext, params: EvaluateParams, theirs: Mapping[str, Mapping[str, ValidationAnswer]]
) -> OwnChoices | None:
    """What the model prefers itself, its answers or the last opponent's, or people's; None where it is the judge
    anyway."""
    asked = {name: theirs[name] for name in (*params.opponents[-1:], PEOPLE) if name in theirs}
    if not asked or params.baseline or _is_the_judge(ctx, params):
        return None
    return OwnChoices(ctx, asked)


def _is_the_judge(ctx: StageContext, params: EvaluateParams) -> bool:
    """Whether the model itself compares the answers, as M1 does where the judge is the bootstrap's model."""
    if params.judge == "External":
        return False
    given = {**ctx.task.sources, **ctx.task.inputs}
    return given.get("judge", given["model"]) == given["model"]


def _headline(comparisons: Sequence[Comparison]) -> Statistics:
    """Figures of the comparisons that are reported first."""
    result = head_to_head(comparisons)
    return {
        "wins": result.wins, "ties": result.ties, "losses": result.losses, "unreadable": result.unreadable,
        **_figures("winRate", result.rate),
        **_figures("orderFlips", result.flips),
        **_figures("lengthControlledWinRate", length_controlled(comparisons)),
    }  # fmt: skip


def _figures(name: str, found: Estimate) -> Statistics:
    """A figure and the ends of its interval, as far as there are any."""
    values = {name: found.value, f"{name}Low": found.low, f"{name}High": found.high}
    return {n: value for n, value in values.items() if value is not None}


def _told(comparisons: Sequence[Comparison]) -> dict[str, Any]:
    result = head_to_head(comparisons)
    return {**asdict(result), "winRate": result.win_rate, "lengthControlled": asdict(length_controlled(comparisons))}


def _judge_agreement(rows: Sequence[Judgement], params: EvaluateParams) -> tuple[dict[str, Any], Statistics]:
    """The five measures of the model's own judgements and of 'longer is better' on the same answers."""
    groups, unscored = group_by_prompt(rows)
    judge = judge_metrics(groups, params.perfect_score)
    length = judge_metrics([g.by_length() for g in groups], float("inf"))
    report = {
        "answers": len(rows),
        "unscored": unscored,
        "prompts": len(groups),
        "perfectScore": params.perfect_score,
        "scorer": {name: asdict(estimate) for name, estimate in judge.items()},
        "lengthOnly": {name: asdict(estimate) for name, estimate in length.items()},
    }
    wanted: Mapping[str, Estimate] = {
        "judgeAccuracy": judge["pairwise"],
        "judgeAccuracyHalfTies": judge["pairwiseHalfTies"],
        "lengthOnlyAccuracy": length["pairwise"],
        "spearman": judge["spearman"],
        "kendall": judge["kendall"],
        "exactMatch": judge["exactMatch"],
        "fiveBest": judge["fiveBest"],
    }
    figures: Statistics = {name: e.value for name, e in wanted.items() if e.value is not None}
    figures |= {"judgeAccuracyPairs": judge["pairwise"].n, "unscored": unscored}
    return report, figures | _figures("judgeAccuracy", judge["pairwise"])


def _compare(
    ctx: StageContext,
    params: EvaluateParams,
    answers: Sequence[ValidationAnswer],
    theirs: Mapping[str, Mapping[str, ValidationAnswer]],
    own: OwnChoices | None = None,
) -> tuple[list[Comparison], int]:
    """Every opponent's answers against the model's, by one judge; (comparisons, tokens read)."""
    pairings = [pairing for opponent, some in theirs.items() for pairing in meetings(opponent, answers, some)]
    if not pairings:
        return [], 0
    if params.judge == "External":
        judge = ExternalJudge(params.external, params.sampling, ctx.environ.get("SRLM_JUDGE_API_KEY"))
        choices, tokens = choices_by_api(ctx, judge, pairings)
    else:
        choices, tokens = choices_by_model(ctx, _judge_model(ctx), params, pairings)
    return [
        Comparison(
            id=p.id, prompt=p.prompt, model=params.model, opponent=p.opponent,
            first=first, second=second, outcome=outcome(first, second),
            own=own.about(p) if own is not None else None,
            characters=len(p.answer), opponent_characters=len(p.other),
        )
        for p, (first, second) in zip(pairings, choices, strict=True)
    ], tokens  # fmt: skip


def _judge_model(ctx: StageContext) -> Path:
    return ctx.model_path("judge" if ctx.has("judge") else "model")
