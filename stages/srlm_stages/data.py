"""Seed data → IFT examples, ranked answers for the judge (train and held out), validation prompts and people's answers.

Parts are disjoint by prompt. IFT takes the top-ranked answer of a prompt (Self-Rewarding Language Models,
section 3.1); the ranked parts keep every human-ranked answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from srlm_contract.errors import BadInput
from srlm_contract.jsonl import write_rows
from srlm_contract.keys import row_id
from srlm_contract.rows import REFERENCES, PromptRow, RankedAnswer, SeedExample, ValidationAnswer
from srlm_contract.tasks import DataParams

from .context import StageContext
from .runtime.statistics import Statistics
from .seed.files import SeedDataError
from .seed.formats import SeedData, SeedPrompt, read_seed_data
from .seed.source import seed_file
from .seed.split import split_prompts

#: Beginnings of causes that are marks of the data, not faults of the file.
MARKED = ("deleted", "otherLanguage", "spam", "synthetic", "unranked")


def run(ctx: StageContext) -> Statistics:
    """Writes ift.jsonl, ranked-train.jsonl, ranked-heldout.jsonl, validation.jsonl and references.jsonl."""
    params = ctx.params(DataParams)
    path = seed_file(ctx.source_path("seedData"), params.format)
    too_long = 0
    fits = _length_limit(ctx, params)

    def usable(answer: str) -> bool:
        nonlocal too_long
        too_long += not fits(answer)
        return fits(answer)

    try:
        seed = read_seed_data(path, params.format, params.language)
        ctx.progress.update(len(seed.prompts), len(seed.prompts), unit="prompts")
        split = split_prompts(
            seed.prompts,
            seed=ctx.task.seed,
            ift_examples=params.ift.max_examples,
            heldout_answers=params.held_out_examples,
            validation_prompts=params.validation_prompts,
            train_judge=params.ranked,
            usable_for_ift=usable,
        )
    except SeedDataError as error:
        raise BadInput("InvalidSeedData", str(error)) from error

    write_rows(ctx.output / REFERENCES, _references(split.validation))
    ctx.details["dropped"] = dict(sorted(seed.dropped.items()))
    _warn_about_dropped(ctx, path.name, seed)
    statistics: Statistics = {
        "prompts": len(seed.prompts),
        "ift": write_rows(ctx.output / "ift.jsonl", _examples(split.ift)),
        "rankedTrain": write_rows(ctx.output / "ranked-train.jsonl", _ranked(split.ranked_train)),
        "rankedTrainPrompts": len(split.ranked_train),
        "rankedHeldout": write_rows(ctx.output / "ranked-heldout.jsonl", _ranked(split.ranked_heldout)),
        "rankedHeldoutPrompts": len(split.ranked_heldout),
        "validation": write_rows(
            ctx.output / "validation.jsonl",
            (PromptRow(id=p.id, prompt=p.text, source="seed") for p in split.validation),
        ),
        "droppedTooLong": too_long,
    }
    for cause, count in sorted(seed.dropped.items()):
        statistics[f"dropped{cause[0].upper()}{cause[1:]}"] = count
    _warn_about_shrinking(ctx, params, statistics)
    return statistics


def _examples(prompts: Iterable[SeedPrompt]) -> Iterator[SeedExample]:
    for prompt in prompts:
        assert prompt.best is not None  # split_prompts chose only such
        yield SeedExample(id=prompt.id, prompt=prompt.text, answer=prompt.best)


def _references(prompts: Iterable[SeedPrompt]) -> Iterator[ValidationAnswer]:
    for prompt in prompts:
        if prompt.best is not None:
            yield ValidationAnswer(id=prompt.id, prompt=prompt.text, answer=prompt.best)


def _ranked(prompts: Iterable[SeedPrompt]) -> Iterator[RankedAnswer]:
    for prompt in prompts:
        for answer in prompt.ranked:
            assert answer.rank is not None  # `ranked` leaves out the others
            yield RankedAnswer(
                id=row_id(prompt.text, answer.text),
                prompt_id=prompt.id,
                prompt=prompt.text,
                answer=answer.text,
                rank=answer.rank,
            )


def _length_limit(ctx: StageContext, params: DataParams) -> Callable[[str], bool]:
    """Whether an answer has at most `ift.maxAnswerTokens` tokens of the base model."""
    limit = params.ift.max_answer_tokens
    if limit is None:
        return lambda answer: True
    from .conversation.chat import load_tokenizer

    tokenizer = load_tokenizer(ctx.tokenizer_path("tokenizer"))
    return lambda answer: len(tokenizer.encode(answer, add_special_tokens=False)) <= limit


def _warn_about_dropped(ctx: StageContext, name: str, seed: SeedData) -> None:
    """One warning about what is wrong with the file; what its own marks exclude (language, spam, ...) is no fault."""
    faults = [cause for cause in sorted(seed.dropped) if not cause.startswith(MARKED)]
    if faults:
        causes = ", ".join(f"{seed.dropped[cause]} {cause} (first: {seed.first[cause]})" for cause in faults)
        ctx.warn(f"{name}: left out {causes}")


def _warn_about_shrinking(ctx: StageContext, params: DataParams, statistics: Statistics) -> None:
    wanted = {
        "ift": ("seedData.ift.maxExamples", params.ift.max_examples),
        "validation": ("seedData.validationPrompts", params.validation_prompts),
        "rankedHeldout": ("seedData.eft.heldOutExamples", params.held_out_examples),
    }
    for name, (field, count) in wanted.items():
        if statistics[name] < count:
            ctx.warn(f"seed data gives {statistics[name]:.0f} of {count} wanted by {field}")
