"""Judge verdicts about human-ranked answers → EFT examples: those that agree with people, scores rebalanced."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from srlm_contract.errors import BadInput
from srlm_contract.jsonl import write_rows
from srlm_contract.keys import row_id
from srlm_contract.rows import EftExample, Judgement
from srlm_contract.tasks import SelectParams

from .context import StageContext
from .judging.agreement import KeptVerdict, rebalance, select_agreeing
from .judging.rubric import Rubric, rubric_of
from .runtime.rows import read_all
from .runtime.statistics import Statistics


def run(ctx: StageContext) -> Statistics:
    """Writes eft.jsonl: the judge task as prompt, the verdict that agrees with people as answer."""
    params = ctx.params(SelectParams)
    rubric = rubric_of(ctx, params.rubric)
    judgements = list(read_all(ctx.input("judgements"), "judgements", Judgement))
    kept, counts = select_agreeing(judgements, agreement=params.eft.agreement, min_tau=params.eft.min_tau)
    if not judgements:
        raise BadInput("InputDamaged", "the judgements of human-ranked answers are empty; make them again")
    chosen = rebalance(kept, seed=ctx.task.seed, max_examples=params.eft.max_examples)
    rows = write_rows(ctx.output / "eft.jsonl", _examples(rubric, chosen))
    if not rows:
        ctx.warn(f"no verdict agrees with the human ranking ({_words(counts)}): M1 is trained on IFT alone")
    ctx.progress.update(len(judgements), len(judgements), unit="judgements")
    ctx.details["scoresKept"] = _histogram(v.score for v in kept)
    ctx.details["scoresChosen"] = _histogram(v.score for v in chosen)
    return {
        "eft": rows,
        "verdictsAgreeing": len(kept),
        "droppedRebalanced": len(kept) - rows,
        "samplesAgreeing": counts["agreeing"],
        "samplesDisagreeing": counts["disagreeing"],
        "samplesUnreadable": counts["unreadable"],
        "promptsWithoutRanks": counts["promptsWithoutRanks"],
    }


def _examples(rubric: Rubric, chosen: Iterable[KeptVerdict]) -> Iterator[EftExample]:
    for verdict in chosen:
        row = verdict.judgement
        yield EftExample(
            id=row_id(row.id, verdict.text),
            prompt=rubric.fill(row.prompt, row.answer),
            answer=verdict.text,
            score=verdict.score,
        )


def _histogram(scores: Iterable[float]) -> dict[str, int]:
    return {f"{score:g}": count for score, count in sorted(Counter(scores).items())}


def _words(counts: Counter[str]) -> str:
    return ", ".join(f"{n} samples {cause}" for cause, n in sorted(counts.items())) or "no sample was complete"
