"""LLM-as-a-Judge over (prompt, answer): sampled verdicts averaged, or the expected score from the digit logits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from srlm_contract.errors import BadInput, InvalidTask
from srlm_contract.jsonl import write_rows
from srlm_contract.rows import Candidate, Judgement, RankedAnswer
from srlm_contract.scorers import READING, SCORERS, WRITING, Scorer
from srlm_contract.tasks import JudgeParams

from .context import StageContext
from .conversation.chat import encode_chat, messages
from .engines import OnProgress
from .engines.model import LanguageModel
from .judging.external import ExternalJudge
from .judging.metrics import length_correlations
from .judging.rubric import rubric_of
from .judging.scoring import Judge, Score, Tally, Task
from .runtime.rows import read_all
from .runtime.statistics import Statistics, merge_shards, moments

#: A pod with this many verdicts and no readable one gives up before its shard is committed.
HOPELESS = 16


def run(ctx: StageContext) -> Statistics:
    """Writes judgements.jsonl (or this shard's part of it), one row an answer, in the order of the input."""
    params = ctx.params(JudgeParams)
    rubric = rubric_of(ctx, params.rubric)
    everything = _read(ctx, params)
    rows = [row for row in everything if ctx.mine(row.prompt_id)]
    tasks = [Task(row.id, rubric.fill(row.prompt, row.answer)) for row in rows]
    by_id = {task.id: task for task in tasks}
    tally, free, shadow = Tally(), Tally(), Tally()
    free_rows = _sample(ctx, everything, params.unconstrained_sample if params.constrain != "None" else 0, "free")
    shadow_wanted = params.shadow_scorer.sample if params.shadow_scorer.scorer != "None" else 0
    shadow_rows = _sample(ctx, everything, shadow_wanted, "shadow")

    seconds_asked = _asks(params, params.shadow_scorer.scorer, shadow_rows)
    progress = PartialProgress(ctx, _asks(params, params.scorer, tasks), len(free_rows), seconds_asked)
    with _opened(ctx, params, rubric.lead, [task.prompt for task in tasks], progress.total) as judge:
        scores = judge.score(params.scorer, tasks, tally, progress.part(0))
        judge.ask_freely([by_id[row] for row in free_rows], free, progress.part(1))
        seconds = judge.score(
            params.shadow_scorer.scorer, [by_id[row] for row in shadow_rows], shadow, progress.part(2)
        )

    _check(rows, tally, [score.digit_mass for score in scores], alone=ctx.shards == 1)
    shadow_scores = {row: score.score for row, score in zip(shadow_rows, seconds, strict=True)}
    judgements = [_scored(row, score, shadow_scores.get(row.id)) for row, score in zip(rows, scores, strict=True)]
    write_rows(ctx.rows_file("judgements"), judgements)
    ctx.details["scores"] = dict(sorted(tally.scores.items()))
    both = [(r.score, r.shadow_score) for r in judgements if r.score is not None and r.shadow_score is not None]
    if both:
        ctx.details["shadowMoments"] = moments(both)
    return _statistics(judgements, tally, free, shadow)


def judged_heldout(ctx: StageContext, params: JudgeParams) -> tuple[list[Judgement], Statistics]:
    """(people's held-out answers as the model scores them, statistics). A model that cannot judge is no error."""
    rubric = rubric_of(ctx, params.rubric)
    rows = _read(ctx, params)
    tasks = [Task(row.id, rubric.fill(row.prompt, row.answer)) for row in rows]
    tally, nothing = Tally(), Tally()
    progress = PartialProgress(ctx, _asks(params, params.scorer, tasks))
    with _opened(ctx, params, rubric.lead, [task.prompt for task in tasks], progress.total) as judge:
        scores = judge.score(params.scorer, tasks, tally, progress.part(0))
    judgements = [_scored(row, score) for row, score in zip(rows, scores, strict=True)]
    return judgements, _statistics(judgements, tally, nothing, nothing)


def _scored(row: Judgement, score: Score, shadow: float | None = None) -> Judgement:
    said = {"verdicts": score.verdicts, "score": score.score, "variance": score.variance}
    return row.model_copy(update={**said, "digit_mass": score.digit_mass, "shadow_score": shadow})


@contextmanager
def _opened(ctx: StageContext, params: JudgeParams, lead: str, prompts: Sequence[str], asks: int) -> Iterator[Judge]:
    """The judge of `asks` verdicts, with a context as long as the longest prompt here needs and no longer."""
    judge = Judge(params, lead, ctx.seed)
    if params.external.url:
        if {params.scorer, params.shadow_scorer.scorer}.intersection(READING):
            raise InvalidTask("InvalidTask", f"judging.external gives no logits: use scorer {' or '.join(WRITING)}")
        if params.constrain != "None":
            ctx.warn("judging.constrain does not reach an external judge: its verdicts are free text")
        key = ctx.environ.get("SRLM_JUDGE_API_KEY")
        with closing(ExternalJudge(params.external, params.sampling, key)) as external:
            yield replace(judge, external=external)
    elif prompts:
        model = LanguageModel.of(ctx, params)
        lengths = [len(encode_chat(model.tokenizer, messages(prompt))) for prompt in prompts]
        # What fits no context is left out later: no reason to ask for a long one.
        longest = max((length for length in lengths if length < model.context), default=0)
        limit = model.length(longest + params.sampling.max_tokens + 1)
        engine = model.engine(limit, asks, "verdicts")
        yield replace(judge, engine=engine, tokenizer=model.tokenizer, limit=limit)
    else:
        yield judge


def _read(ctx: StageContext, params: JudgeParams) -> list[Judgement]:
    """The answers to judge, as judgements without a verdict."""
    if params.rows == "candidates":
        return [
            Judgement(
                id=c.id, prompt_id=c.prompt_id, prompt=c.prompt, answer=c.answer, verdicts=(),
                tokens=c.tokens, truncated=c.truncated,
            )
            for c in read_all(ctx.input("candidates"), "candidates", Candidate)
        ]  # fmt: skip
    folder: Path = ctx.input("data")
    return [
        Judgement(id=r.id, prompt_id=r.prompt_id, prompt=r.prompt, answer=r.answer, verdicts=(), rank=r.rank)
        for r in read_all(folder, params.rows, RankedAnswer)
    ]


def _sample(ctx: StageContext, rows: Sequence[Judgement], count: int, purpose: str) -> list[str]:
    """Ids of this shard's part of `count` rows drawn from all rows, whatever the number of shards."""
    drawn = sorted(rows, key=lambda row: (ctx.seed(purpose, row.id, 0), row.id))[:count]
    return [row.id for row in drawn if ctx.mine(row.prompt_id)]


def _asks(params: JudgeParams, scorer: Literal["None", Scorer], rows: Sequence[object]) -> int:
    """Verdicts that a scorer asks for, those asked again left out."""
    return 0 if scorer == "None" else len(rows) * SCORERS[scorer].calls(params.samples)


class PartialProgress:
    """Counts the verdicts of all parts of the stage together; parts: how many each asks for, in their order."""

    def __init__(self, ctx: StageContext, *parts: int) -> None:
        self._ctx, self._parts = ctx, parts
        self.total = sum(parts)
        self._tokens = [0] * len(parts)

    def part(self, number: int) -> OnProgress:
        """What one part reports to; the parts before it are done by then."""
        before = sum(self._parts[:number])

        def on_progress(done: int, tokens: int) -> None:
            self._tokens[number] = tokens
            self._ctx.progress.update(before + done, self.total, unit="verdicts", tokens=sum(self._tokens))

        if self._parts[number]:
            on_progress(0, 0)
        return on_progress


def _check(rows: Sequence[Judgement], tally: Tally, masses: Sequence[float | None], *, alone: bool) -> None:
    """Raises what makes going on pointless; what other pods may do better is left to `merge`."""
    if alone and rows and tally.too_long == len(rows):
        raise none_fits(len(rows))
    if tally.asked >= (1 if alone else HOPELESS) and not tally.parsed:
        known = [mass for mass in masses if mass is not None]
        raise too_little_mass(tally.asked, sum(known) / len(known)) if known else not_usable(tally.asked, tally.example)


def none_fits(rows: int) -> BadInput:
    """The error of a judge whose prompts are all too long."""
    return BadInput(
        "InputTooLong",
        f"none of {rows} judge prompts fits the model's context; use a model with a longer context, "
        "shorter answers (generation.sampling.maxTokens) or a shorter rubric",
    )


def not_usable(verdicts: int, example: str = "") -> BadInput:
    """The error of a judge whose written verdicts cannot be read; example: one of them."""
    first = f"; the first was: {example[:200]!r}" if example else ""
    return BadInput(
        "JudgeNotUsable",
        f"none of {verdicts} verdicts has a readable score; set judging.constrain to ScoreLine, use scorer "
        f"ExpectedScore, or another judge{first}",
    )


def too_little_mass(verdicts: int, mean: float) -> BadInput:
    """The error of a judge that hardly ever thinks of a digit; mean: the probability of all score digits together."""
    return BadInput(
        "JudgeNotUsable",
        f"none of {verdicts} verdicts has a readable score: together the score digits have a probability of {mean:.2g} "
        "on average, and never as much as judging.minDigitMass asks for; use scorer Sampled with judging.constrain "
        "ScoreLine, another judge, or a lower minDigitMass",
    )


def _statistics(rows: Sequence[Judgement], tally: Tally, free: Tally, shadow: Tally) -> Statistics:
    scored = [row.score for row in rows if row.score is not None]
    statistics: Statistics = {
        "rows": len(rows),
        "judged": len(scored),
        "verdicts": tally.asked,
        "parsed": tally.parsed,
        "truncatedVerdicts": tally.truncated,
        "tooLong": tally.too_long,
        "scoreSum": sum(scored),
        "tokens": tally.tokens + free.tokens + shadow.tokens,
        "freeVerdicts": free.asked,
        "freeParsed": free.parsed,
    }
    masses = [row.digit_mass for row in rows if row.digit_mass is not None]
    if masses:
        statistics |= {"digitMassSum": sum(masses), "digitMassRows": len(masses)}
    # Shards hold whole prompts, so that means over prompts add up.
    lengths = [correlation for correlation in length_correlations(rows) if correlation is not None]
    if lengths:
        statistics |= {"lengthCorrelationSum": sum(lengths), "lengthCorrelationPrompts": len(lengths)}
    if shadow.asked:
        statistics |= {"shadowVerdicts": shadow.asked, "shadowParsed": shadow.parsed}
    both = [(r.score, r.shadow_score) for r in rows if r.score is not None and r.shadow_score is not None]
    if both:
        statistics |= {
            "shadowRows": len(both),
            "shadowSame": sum(abs(a - b) < 0.5 for a, b in both),
            "shadowDifferenceSum": sum(abs(a - b) for a, b in both),
        }
    return statistics


def merge(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Statistics of all shards. Raises BadInput when no verdict of any shard could be read, or no prompt fits."""
    merged = merge_shards(parts)
    if merged.get("rows") and merged.get("tooLong") == merged["rows"]:
        raise none_fits(int(merged["rows"]))
    if merged.get("verdicts") and not merged.get("parsed"):
        rows = merged.get("digitMassRows")
        raise (
            too_little_mass(int(merged["verdicts"]), merged["digitMassSum"] / rows)
            if rows
            else not_usable(int(merged["verdicts"]))
        )
    return merged
