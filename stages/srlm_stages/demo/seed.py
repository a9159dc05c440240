"""Takes from a seed file what suits the demo's small model: few prompts, those with short answers first.

    python -m srlm_stages.demo.seed SOURCE MODEL RESULT

SOURCE: a seed file of any format that `seedData.format` knows. Writes the chosen prompts to RESULT as Open Assistant
trees and prints what it chose as JSON. Answers that are longer than a small model can be taught to finish would be cut
or left out by every later stage, and the answers of a whole data set would be judged for days.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from srlm_contract.errors import StageFailure
from srlm_stages.seed.files import SeedDataError
from srlm_stages.seed.formats import SeedPrompt, read_seed_data

#: Prompts that are taken at most.
MOST_PROMPTS = 38
#: Limits of an answer in tokens, from the first that does to the last resort.
LIMITS = (64, 96, 128, 160)
#: Share of the prompts that shall keep two ranked answers.
SHARE = 0.5

Length = Callable[[str], int]


def within(prompts: Sequence[SeedPrompt], limit: int, length: Length) -> list[SeedPrompt]:
    """The prompts and answers of at most `limit` tokens. The best answer that is left has rank 0, as it is taught."""
    found = []
    for prompt in prompts:
        if length(prompt.text) > limit:
            continue
        answers = [a for a in prompt.answers if length(a.text) <= limit]
        best = min((a.rank for a in answers if a.rank is not None), default=0)
        ranked = tuple(replace(a, rank=None if a.rank is None else a.rank - best) for a in answers)
        found.append(replace(prompt, answers=ranked))
    return found


def answer_limit(prompts: Sequence[SeedPrompt], length: Length) -> int:
    """Tokens an answer may have: the first limit with which half of the ranked prompts stay so, else the last."""
    enough = SHARE * sum(bool(prompt.ranked) for prompt in prompts)
    return next((n for n in LIMITS if sum(bool(p.ranked) for p in within(prompts, n, length)) >= enough), LIMITS[-1])


def chosen(prompts: Sequence[SeedPrompt], limit: int, length: Length) -> list[SeedPrompt]:
    """At most MOST_PROMPTS prompts: those with two ranked answers first, then those with one, then the rest, which can
    still be asked; within these the ones with the shortest answers.
    """

    def order(prompt: SeedPrompt) -> tuple[bool, bool, int]:
        return not prompt.ranked, prompt.best is None, max((length(a.text) for a in prompt.answers), default=0)

    return sorted(within(prompts, limit, length), key=order)[:MOST_PROMPTS]


def tree(prompt: SeedPrompt, language: str) -> dict[str, object]:
    """The prompt as an Open Assistant tree."""
    replies = [
        {"text": a.text, "role": "assistant", "lang": language, **({} if a.rank is None else {"rank": a.rank})}
        for a in prompt.answers
    ]
    return {
        "message_tree_id": prompt.id,
        "tree_state": "ready_for_export",
        "prompt": {"text": prompt.text, "role": "prompter", "lang": language, "replies": replies},
    }


def token_counter(model: Path) -> Length:
    """Counts the tokens of a text as the model does."""
    if (model / "tokenizer.json").is_file():  # without the seconds that transformers takes to be imported
        from tokenizers import Tokenizer

        fast = Tokenizer.from_file(str(model / "tokenizer.json"))
        return lambda text: len(fast.encode(text, add_special_tokens=False).ids)
    from srlm_stages.conversation.chat import load_tokenizer

    tokenizer = load_tokenizer(model, "")
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m srlm_stages.demo.seed", description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="seed data of any known format")
    parser.add_argument("model", type=Path, help="folder of the model whose tokens count")
    parser.add_argument("result", type=Path, help="file to write")
    parser.add_argument("--language", default="en", help="language of the prompts (default: %(default)s)")
    arguments = parser.parse_args(argv)
    try:
        prompts = read_seed_data(arguments.source, "Auto", arguments.language).prompts
        length = token_counter(arguments.model)
    except (SeedDataError, StageFailure) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    limit = answer_limit(prompts, length)
    rows = chosen(prompts, limit, length)
    arguments.result.parent.mkdir(parents=True, exist_ok=True)
    arguments.result.write_text("".join(json.dumps(tree(row, arguments.language)) + "\n" for row in rows))
    answers = sum(len(row.answers) for row in rows)
    print(json.dumps({"answerTokens": limit, "prompts": len(rows), "answers": answers, "of": len(prompts)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
