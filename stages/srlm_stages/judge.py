"""LLM-as-a-Judge over (prompt, answer): sampled verdicts averaged, or the expected score from the digit logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srlm_contract.errors import BadInput, InvalidTask
from srlm_contract.rows import Candidate, Judgement, RankedAnswer
from srlm_contract.tasks import JudgeParams

from .context import StageContext
from .conversation.chat import encode_chat, messages
from .engines import Engine, OnProgress, context_length, open_engine, rounded_length
from .judging.external import ExternalJudge
from .judging.rubric import rubric_of
from .judging.score_words import SCORE_LEAD
from .judging.scoring import Asker, EngineAsker, ExternalAsker, Score, Tally, Task, expected_scores, sampled_scores
from .runtime.rows import read_all, write_rows
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
    judge = _open(ctx, params, [task.prompt for task in tasks], progress.total)
    judge.lead = rubric.lead
    try:
        scores = judge.score(params.scorer, tasks, tally, progress.part(0))
        judge.ask_freely([by_id[row] for row in free_rows], free, progress.part(1))
        seconds = judge.score(
            params.shadow_scorer.scorer, [by_id[row] for row in shadow_rows], shadow, progress.part(2)
        )
    finally:
        judge.close()

    _check(rows, tally, alone=ctx.shards == 1)
    shadow_scores = {row: score.score for row, score in zip(shadow_rows, seconds, strict=True)}
    judgements = [
        row.model_copy(
            update={
                "verdicts": score.verdicts,
                "score": score.score,
                "variance": score.variance,
                "digit_mass": score.digit_mass,
                "shadow_score": shadow_scores.get(row.id),
            }
        )
        for row, score in zip(rows, scores, strict=True)
    ]
    write_rows(ctx.rows_file("judgements"), judgements)
    ctx.details["scores"] = dict(sorted(tally.scores.items()))
    scored = [(row.score, row) for row in judgements if row.score is not None]
    ctx.details["scoreLengthMoments"] = moments((score, len(row.answer)) for score, row in scored)
    both = [(score, row.shadow_score) for score, row in scored if row.shadow_score is not None]
    if both:
        ctx.details["shadowMoments"] = moments(both)
    return _statistics(judgements, tally, free, shadow)


@dataclass
class _Judge:
    """The judge of this stage: a model in an engine, or an external one."""

    ctx: StageContext
    params: JudgeParams
    engine: Engine | None = None
    tokenizer: Any = None
    limit: int = 0
    external: ExternalJudge | None = None
    lead: str = SCORE_LEAD
    """What the rubric's score line begins with."""

    def score(self, scorer: str, tasks: Sequence[Task], tally: Tally, on_progress: OnProgress | None) -> list[Score]:
        """Score tasks with one of the scorers; `None` scores nothing."""
        params = self.params
        if scorer == "None" or not tasks:
            return []
        if scorer == "ExpectedScore":
            assert self.engine is not None  # _open refuses an external judge with this scorer
            return expected_scores(
                tasks, self.engine, self.tokenizer, self.limit,
                min_mass=params.min_digit_mass, tally=tally, lead=self.lead, on_progress=on_progress,
            )  # fmt: skip
        return sampled_scores(
            tasks,
            self._asker(params.constrain == "ScoreLine", tally),
            samples=params.samples,
            min_valid=params.min_valid_samples,
            max_reasks=params.max_reasks,
            seed_of=lambda row, sample: self.ctx.seed("judge", row, sample),
            tally=tally,
            lead=self.lead,
            on_progress=on_progress,
        )

    def ask_freely(self, tasks: Sequence[Task], tally: Tally, on_progress: OnProgress) -> None:
        """One verdict a task without the constraint: how well the judge keeps the format by itself."""
        if tasks:
            sampled_scores(
                tasks, self._asker(False, tally), samples=1, min_valid=1, max_reasks=0,
                seed_of=lambda row, sample: self.ctx.seed("judge-free", row, sample), tally=tally,
                lead=self.lead, on_progress=on_progress,
            )  # fmt: skip

    def _asker(self, constrained: bool, tally: Tally) -> Asker:
        if self.external is not None:
            return ExternalAsker(self.external)
        assert self.engine is not None
        return EngineAsker(self.engine, self.tokenizer, self.limit, self.params.sampling, constrained, tally, self.lead)

    def close(self) -> None:
        if self.external is not None:
            self.external.close()
        if self.engine is not None:
            self.engine.close()


def _open(ctx: StageContext, params: JudgeParams, prompts: Sequence[str], asks: int) -> _Judge:
    """The judge of `asks` verdicts, with a context as long as the longest prompt here needs and no longer."""
    if params.external.url:
        if "ExpectedScore" in (params.scorer, params.shadow_scorer.scorer):
            raise InvalidTask("InvalidTask", "judging.external gives no logits: use scorer Sampled")
        if params.constrain != "None":
            ctx.warn("judging.constrain does not reach an external judge: its verdicts are free text")
        key = ctx.environ.get("SRLM_JUDGE_API_KEY")
        return _Judge(ctx, params, external=ExternalJudge(params.external, params.sampling, key))
    if not prompts:
        return _Judge(ctx, params)
    model = ctx.model_path("model")
    tokenizer = ctx.tokenizer(model)
    limit = context_length(model)
    lengths = [len(encode_chat(tokenizer, messages(prompt))) for prompt in prompts]
    # What fits no context is left out later: no reason to ask for a long one.
    longest = max((length for length in lengths if length < limit), default=0)
    if longest + params.sampling.max_tokens < limit:
        limit = rounded_length(longest + params.sampling.max_tokens + 1, limit)
    ctx.progress.begin(asks, "verdicts", f"starting {params.engine.name}, loading the model")
    engine = open_engine(params.engine, model, limit)
    ctx.versions |= engine.versions
    return _Judge(ctx, params, engine, tokenizer, limit)


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


def _asks(params: JudgeParams, scorer: str, rows: Sequence[object]) -> int:
    """Verdicts that a scorer asks for, those asked again left out."""
    return 0 if scorer == "None" else len(rows) * (params.samples if scorer == "Sampled" else 1)


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


def _check(rows: Sequence[Judgement], tally: Tally, *, alone: bool) -> None:
    """Raises what makes going on pointless; what other pods may do better is left to `merge`."""
    if alone and rows and tally.too_long == len(rows):
        raise none_fits(len(rows))
    if tally.asked >= (1 if alone else HOPELESS) and not tally.parsed:
        raise not_usable(tally.asked, f"; the first was: {tally.example[:200]!r}")


def none_fits(rows: int) -> BadInput:
    """The error of a judge whose prompts are all too long."""
    return BadInput(
        "InputTooLong",
        f"none of {rows} judge prompts fits the model's context; use a model with a longer context, "
        "shorter answers (generation.sampling.maxTokens) or a shorter rubric",
    )


def not_usable(verdicts: int, example: str = "") -> BadInput:
    """The error of a judge whose verdicts cannot be read."""
    return BadInput(
        "JudgeNotUsable",
        f"none of {verdicts} verdicts has a readable score; set judging.constrain to ScoreLine, use scorer "
        f"ExpectedScore, or another judge{example}",
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
        raise not_usable(int(merged["verdicts"]))
    return merged
