"""`srlm samples NAME`: prompts with the model's answers and their scores, while the loop runs."""

from __future__ import annotations

import argparse
import asyncio
import json
import re

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.text import Text

from srlm_cli.answers import Answer, Prompt, Samples, read_samples, sources
from srlm_cli.download import ends_at_once, use
from srlm_cli.output import add_output_argument
from srlm_cli.runs import add_endpoint_argument, add_run_arguments, cluster_of, read, storage_of
from srlm_contract.text import visible
from srlm_operator.errors import ConfigurationError

#: Colour of what the preference data made of an answer.
_ROLES = {"chosen": "green", "positive": "green", "rejected": "red"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `srlm samples`."""
    parser.description = (
        "Prints prompts with the answers of a model, their scores and what the preference data made of them, as far as "
        "they are committed: the newest judged ones, else candidates that wait for the judge, else answers to "
        "validation prompts. S3 is read with your own AWS credentials (environment or profile), else with the Secret "
        "that the run names."
    )
    add_run_arguments(parser)
    parser.add_argument("--prompts", type=_count, default=3, metavar="N", help="how many (default: %(default)s)")
    parser.add_argument("--iteration", type=_model, metavar="T", help="answers of M_T: 2 or M2 (default: the newest)")
    parser.add_argument("--verdicts", action="store_true", help="with what the judge wrote")
    add_output_argument(parser, "text", "json")
    add_endpoint_argument(parser)
    parser.set_defaults(func=lambda args: asyncio.run(_run(args)))


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of prompts")
    return int(text)


def _model(text: str) -> str:
    match = re.fullmatch(r"[Mm]?([1-9][0-9]*)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no iteration: write 2 or M2")
    return f"M{match[1]}"


async def _run(args: argparse.Namespace) -> int:
    async with cluster_of(args) as (client, namespace):
        found = await read(client, namespace, args.name)
        places = list(sources(found.status, args.iteration))
        samples = None
        if places:
            storage = storage_of(found, args.endpoint_url)
            with ends_at_once("stopped"):
                samples = await use(client, namespace, storage, lambda store: read_samples(store, places, args.prompts))
    if samples is None:
        of = f" of {args.iteration}" if args.iteration else ""
        raise ConfigurationError(
            f"run {namespace}/{args.name} has no answers{of} yet (it is {found.status.phase}): "
            f"`srlm status {args.name}` says how far it is"
        )
    if args.output == "json":
        print(json.dumps(samples.wire(), indent=2))
    else:
        Console().print(screen(samples, verdicts=args.verdicts))
    return 0


def screen(samples: Samples, *, verdicts: bool) -> RenderableType:
    """All of them, one below the other."""
    kind = "judged" if samples.stage.startswith("judge") else "not judged"
    if samples.stage.startswith("evaluate"):
        kind = "to validation prompts"
    head = f"Answers of {samples.model}, {kind}" + ("" if samples.complete else " (more are being made)")
    return Group(Text(head, style="bold"), *(part for one in samples.prompts for part in _prompt(one, verdicts)))


def _prompt(prompt: Prompt, verdicts: bool) -> list[RenderableType]:
    parts: list[RenderableType] = [Rule(style="dim"), Text(visible(prompt.text), style="bold cyan")]
    for answer in prompt.answers:
        parts.append(_facts(answer))
        parts.append(Padding(Text(visible(answer.text)), (0, 0, 0, 2)))
        if verdicts:
            parts += [
                Padding(Text(f"judge: {visible(verdict.text)}", style="dim"), (0, 0, 0, 4))
                for verdict in answer.verdicts
            ]
    return parts


def _facts(answer: Answer) -> Text:
    line = Text("\n")
    if answer.score is not None:
        line.append(f"{answer.score:.2f}", style="bold")
    elif answer.verdicts:
        line.append("no readable score", style="yellow")
    for word, style in (
        (answer.role, _ROLES.get(answer.role, "")),
        (f"{answer.tokens} tokens" if answer.tokens else "", "dim"),
        ("cut by the length limit" if answer.truncated else "", "yellow"),
    ):
        if word:
            line.append(("  " if len(line) > 1 else "") + word, style=style)
    return line
