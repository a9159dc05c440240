"""New prompts by self-instruct: few-shot from human and earlier ones, filtered against everything the run has seen."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from srlm_contract.errors import BadInput
from srlm_contract.jsonl import write_rows
from srlm_contract.keys import row_id
from srlm_contract.rows import PromptRow, RankedAnswer, SeedExample
from srlm_contract.tasks import PromptsParams

from .context import StageContext
from .conversation.chat import Prompt, chat_prompt, encode_text, messages
from .engines import OnProgress, Request
from .engines.answers import answer_of
from .engines.model import LanguageModel
from .prompting.filters import PromptFilter, cleaned
from .prompting.pool import read_pool
from .runtime.rows import read_all, read_rows
from .runtime.statistics import Statistics
from .seed.languages import word_count

#: At most this many requests for each wanted prompt.
MAX_ASKS_A_PROMPT = 12
#: Smallest share of prompts.count to go on with.
MIN_SHARE = 0.5

CHAT_INSTRUCTION = (
    "Below are tasks that people gave to an AI assistant. Write one new task of the same kind on a different subject. "
    "It must make sense by itself and be answerable in text. Reply with the new task only."
)
COMPLETION_LEAD = "A list of varied tasks and questions that people gave to an AI assistant, one a line:\n\n"


def run(ctx: StageContext) -> Statistics:
    """Writes prompts.jsonl: at most `count` accepted prompts, in the order in which they were accepted."""
    params = ctx.params(PromptsParams)
    data = ctx.input("data")
    human = [row.prompt for row in read_rows(data / "ift.jsonl", SeedExample)]
    earlier = [row.prompt for name in ctx.names("earlier-") for row in read_all(ctx.input(name), "prompts", PromptRow)]
    accept = PromptFilter(params.filters, params.language)
    for prompt in [*human, *earlier, *_kept_aside(data)]:
        accept.remember(prompt)

    if params.source == "Pool":
        rows, counts = _from_pool(ctx, params, accept)
    else:
        rows, counts = _written(ctx, params, accept, human, earlier)
    _check(params, rows, counts)
    if len(rows) < params.count:
        ctx.warn(f"{len(rows)} of {params.count} prompts after {counts['asked']} tries ({_causes(counts)})")
    write_rows(ctx.output / "prompts.jsonl", rows)
    dropped = {name: float(n) for name, n in sorted(counts.items()) if name.startswith("dropped")}
    return {
        "rows": len(rows), "prompts": len(rows), "asked": counts["asked"], "surplus": counts["surplus"],
        "tokens": counts["tokens"], **dropped,
    }  # fmt: skip


def _kept_aside(data: Path) -> Iterator[str]:
    """Validation and held-out prompts: a new prompt that is close to one of them would leak it into training."""
    yield from (row.prompt for row in read_rows(data / "validation.jsonl", PromptRow))
    for name in ("ranked-train.jsonl", "ranked-heldout.jsonl"):
        if (data / name).is_file():
            yield from dict.fromkeys(row.prompt for row in read_rows(data / name, RankedAnswer))


def _written(
    ctx: StageContext,
    params: PromptsParams,
    accept: PromptFilter,
    human: Sequence[str],
    earlier: Sequence[str],
) -> tuple[list[PromptRow], Counter[str]]:
    """Prompts by a model, in batches until there are enough."""
    if not human:
        raise BadInput("InvalidSeedData", "there are no seed prompts to show as examples; seedData gives no IFT rows")
    model = LanguageModel.of(ctx, params)
    tokenizer, sampling = model.tokenizer, params.sampling
    opened = _encode(tokenizer, params, human[:1]).opened
    examples = _short_enough(tokenizer, human, params), _short_enough(tokenizer, earlier, params)
    length = model.length(_longest_prompt(tokenizer, params, examples) + sampling.max_tokens)
    rows: list[PromptRow] = []
    counts: Counter[str] = Counter()
    engine = model.engine(length, params.count, "prompts")
    while len(rows) < params.count and counts["asked"] < params.count * MAX_ASKS_A_PROMPT:
        requests = [
            _request(ctx, tokenizer, params, examples, number, length - sampling.max_tokens - 1)
            for number in range(counts["asked"], counts["asked"] + _batch(params, len(rows), counts))
        ]
        counts["asked"] += len(requests)
        answers = engine.generate(requests, _progress(ctx, params.count, len(rows), len(requests), counts["tokens"]))
        for answer in answers:
            counts["tokens"] += answer.tokens
            said = answer_of(tokenizer, answer, opened)
            text = cleaned(said.text)
            refusal = "droppedTruncated" if said.truncated else accept.refusal(text)
            if len(rows) >= params.count:
                counts["surplus"] += 1
            elif refusal is not None:
                counts[refusal] += 1
            else:
                accept.remember(text)
                rows.append(PromptRow(id=row_id(text), prompt=text, source="generated"))
    return rows, counts


def _progress(ctx: StageContext, total: int, accepted: int, asked: int, tokens: int) -> OnProgress:
    """Prompts written so far; those not filtered yet count as what they would fill of the missing ones."""
    missing = total - accepted
    return lambda n, t: ctx.progress.update(
        min(accepted + n * missing // asked, total), total, unit="prompts", tokens=tokens + t
    )


def _batch(params: PromptsParams, accepted: int, counts: Counter[str]) -> int:
    """How many to ask for next: what is missing, at the share accepted so far (two thirds before any is known)."""
    share = max(accepted / counts["asked"], 0.1) if counts["asked"] else 0.66
    return int((params.count - accepted) / share) + 2


def _short_enough(tokenizer: Any, prompts: Sequence[str], params: PromptsParams) -> list[str]:
    """Prompts fit to be shown: not longer than what is asked for, on one line in a list."""
    lines = [" ".join(p.split()) if params.style == "Completion" else p for p in prompts]
    short = [p for p in lines if word_count(p) <= params.filters.max_words]
    fitting = [p for p in short if len(encode_text(tokenizer, p)) <= params.sampling.max_tokens]
    return fitting or lines[:1]


def _longest_prompt(tokenizer: Any, params: PromptsParams, examples: tuple[list[str], list[str]]) -> int:
    """Tokens of the request with the longest examples there are."""
    few = params.few_shot
    shown = [
        p
        for pool, count in zip(examples, (few.seed + few.generated, few.generated), strict=True)
        for p in sorted(pool, key=len)[-count or len(pool) :]
    ][: 2 * few.generated + few.seed]
    return len(_encode(tokenizer, params, shown).ids) + 32


def _request(
    ctx: StageContext,
    tokenizer: Any,
    params: PromptsParams,
    examples: tuple[list[str], list[str]],
    number: int,
    longest: int,
) -> Request:
    """Request `number`, with examples drawn by its own seed; examples are left out until it fits."""
    seed = ctx.seed("prompts", "", number)
    draw = random.Random(seed)  # noqa: S311 - a choice of examples, not a secret
    human, earlier = examples
    generated = draw.sample(earlier, min(params.few_shot.generated, len(earlier)))
    wanted = params.few_shot.seed + params.few_shot.generated - len(generated)
    shown = draw.sample(human, min(wanted, len(human))) + generated
    draw.shuffle(shown)
    prompt = _encode(tokenizer, params, shown).ids
    while len(prompt) > longest and len(shown) > 1:
        shown.pop()
        prompt = _encode(tokenizer, params, shown).ids
    if len(prompt) > longest:
        raise BadInput("InputTooLong", "not even one example prompt fits the model's context; shorten prompts.sampling")
    stop = ("\n",) if params.style == "Completion" else ()
    sampling = params.sampling
    return Request(prompt, seed, sampling.max_tokens, sampling.temperature, sampling.top_p, stop)


def _encode(tokenizer: Any, params: PromptsParams, shown: Sequence[str]) -> Prompt:
    if params.style == "Completion":
        lines = "".join(f"{i}. {text}\n" for i, text in enumerate(shown, 1))
        return Prompt(encode_text(tokenizer, f"{COMPLETION_LEAD}{lines}{len(shown) + 1}.", special=True))
    tasks = "\n\n".join(f"Task {i}: {text}" for i, text in enumerate(shown, 1))
    return chat_prompt(tokenizer, messages(f"{CHAT_INSTRUCTION}\n\n{tasks}"))


def _from_pool(ctx: StageContext, params: PromptsParams, accept: PromptFilter) -> tuple[list[PromptRow], Counter[str]]:
    """Prompts of a file, in an order drawn by the seed."""
    pool = read_pool(ctx.source_path("pool"))
    random.Random(ctx.seed("prompts", "", 0)).shuffle(pool)  # noqa: S311 - an order, not a secret
    rows: list[PromptRow] = []
    counts: Counter[str] = Counter()
    for text in map(cleaned, pool):
        if len(rows) >= params.count:
            break
        counts["asked"] += 1
        refusal = accept.refusal(text)
        if refusal is not None:
            counts[refusal] += 1
            continue
        accept.remember(text)
        rows.append(PromptRow(id=row_id(text), prompt=text, source="pool"))
        ctx.progress.update(len(rows), params.count, unit="prompts")
    return rows, counts


def _check(params: PromptsParams, rows: Sequence[PromptRow], counts: Counter[str]) -> None:
    if len(rows) < params.count * MIN_SHARE:
        raise BadInput(
            "TooFewPrompts",
            f"only {len(rows)} of {params.count} new prompts after {counts['asked']} tries ({_causes(counts)}); "
            "try prompts.style Completion, other sampling, wider prompts.filters or more seed data",
        )


def _causes(counts: Counter[str]) -> str:
    dropped = [(n, name.removeprefix("dropped").lower()) for name, n in counts.items() if name.startswith("dropped")]
    return ", ".join(f"{n} {cause}" for n, cause in sorted(dropped, reverse=True)) or "none dropped"
