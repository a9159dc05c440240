"""M_t measured: its judging against people, its answers to the validation prompts, and how they do against others'.

Head-to-head: one fixed judge reads question and both answers, in both orders, and says A or B. Disagreement between
the orders is a tie; what cannot be read is counted apart.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from srlm_contract.jsonl import write_rows
from srlm_contract.rows import Comparison, Judgement, PromptRow, ValidationAnswer
from srlm_contract.tasks import EvaluateParams

from .context import StageContext
from .judging.answering import answer_prompts
from .judging.comparing import Pairing, choices_by_api, choices_by_model
from .judging.external import ExternalJudge
from .judging.metrics import Estimate, group_by_prompt, head_to_head, judge_metrics, outcome
from .runtime.rows import read_all, read_rows
from .runtime.statistics import Statistics


def run(ctx: StageContext) -> Statistics:
    """Writes answers.jsonl, comparisons.jsonl and metrics.json."""
    params = ctx.params(EvaluateParams)
    metrics: dict[str, Any] = {"model": params.model}
    statistics: Statistics = {}
    if ctx.has("judgements"):
        judged, figures = _judge_agreement(ctx, params)
        metrics["judge"] = judged
        statistics |= figures

    prompts = list(read_rows(ctx.input("data") / "validation.jsonl", PromptRow))[: params.prompts]
    answers, tokens = answer_prompts(ctx, params, prompts)
    write_rows(ctx.output / "answers.jsonl", answers)
    if answers:
        statistics |= {
            "answers": len(answers),
            "characters": sum(len(a.answer) for a in answers),
            "answerTokens": sum(a.tokens for a in answers),
            "truncated": sum(a.truncated for a in answers),
        }

    comparisons, judge_tokens = _compare(ctx, params, answers)
    write_rows(ctx.output / "comparisons.jsonl", comparisons)
    metrics["headToHead"] = {"judge": params.judge, "opponents": {}}
    for opponent in params.opponents:
        result = head_to_head(c for c in comparisons if c.opponent == opponent)
        metrics["headToHead"]["opponents"][opponent] = {**asdict(result), "winRate": result.win_rate}
        if result.win_rate is not None:
            statistics[f"winRate{opponent}"] = result.win_rate
        if opponent == params.headline:
            statistics |= {
                "wins": result.wins, "ties": result.ties, "losses": result.losses, "unreadable": result.unreadable,
            }  # fmt: skip
            statistics |= {} if result.win_rate is None else {"winRate": result.win_rate}
    statistics["tokens"] = tokens + judge_tokens
    metrics["answers"] = {name: statistics[name] for name in ("answers", "characters", "answerTokens") if answers}
    (ctx.output / "metrics.json").write_text(json.dumps(metrics, indent=1, sort_keys=True) + "\n")
    return statistics


def _judge_agreement(ctx: StageContext, params: EvaluateParams) -> tuple[dict[str, Any], Statistics]:
    """The five measures of the model's own judgements and of 'longer is better' on the same answers."""
    rows = list(read_all(ctx.input("judgements"), "judgements", Judgement))
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
    accuracy = judge["pairwise"]
    if accuracy.low is not None and accuracy.high is not None:
        figures |= {"judgeAccuracyLow": accuracy.low, "judgeAccuracyHigh": accuracy.high}
    return report, figures


def _compare(
    ctx: StageContext, params: EvaluateParams, answers: Sequence[ValidationAnswer]
) -> tuple[list[Comparison], int]:
    """Every opponent's answers against the model's, by one judge; (comparisons, tokens read)."""
    pairings = []
    for opponent in params.opponents:
        theirs = {a.id: a for a in read_all(ctx.input(f"answers-{opponent}"), "answers", ValidationAnswer)}
        pairings += [
            Pairing(opponent, a.id, a.prompt, a.answer, theirs[a.id].answer) for a in answers if a.id in theirs
        ]
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
            first=first, second=second, outcome=outcome(first, second),  # type: ignore[arg-type]  # its four values
        )
        for p, (first, second) in zip(pairings, choices, strict=True)
    ], tokens  # fmt: skip


def _judge_model(ctx: StageContext) -> Path:
    return ctx.model_path("judge" if ctx.has("judge") else "model")
